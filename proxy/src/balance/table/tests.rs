#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const KEYS: u64 = 20_000;

fn settings(policy: Policy) -> Settings {
    Settings {
        policy,
        ring_size: 4096,
        ..Settings::default()
    }
}

fn endpoint(index: usize, weight: u32) -> Arc<Endpoint> {
    Arc::new(Endpoint {
        address: format!("10.1.{}.{}:8000", index / 200, index % 200 + 1)
            .parse()
            .unwrap(),
        mtls: true,
        identity: None,
        ports: Box::default(),
        labels: BTreeMap::new(),
        weight,
        zone: "".into(),
        instance: "".into(),
        load: Arc::default(),
        outside: None,
        health: Arc::default(),
    })
}

fn endpoints(weights: &[u32]) -> Vec<Arc<Endpoint>> {
    let indexed = weights.iter().enumerate();
    indexed
        .map(|(index, weight)| endpoint(index, *weight))
        .collect()
}

fn table(policy: Policy, endpoints: &[Arc<Endpoint>]) -> Table {
    Table::new(&settings(policy), endpoints, None).unwrap()
}

fn keys() -> impl Iterator<Item = u64> {
    (0..KEYS).map(|key| Hasher::new().bytes(&key.to_be_bytes()).finish())
}

fn owner_of(table: &Table, endpoints: &[Arc<Endpoint>], key: u64) -> SocketAddr {
    endpoints[table.owner(key)].address
}

const HASHING: [Policy; 2] = [Policy::RingHash, Policy::Maglev];

#[test]
fn sizes() {
    let set = endpoints(&[1, 1, 1]);
    assert_eq!(table(Policy::RingHash, &set).len(), 3 * 4096);
    assert_eq!(
        table(Policy::RingHash, &endpoints(&[20, 10])).len(),
        3 * 4096
    );
    assert_eq!(table(Policy::Maglev, &set).len(), 65_537);
    // The bound holds whatever the weights, and the least of them has a place.
    let bound = crate::balance::MAX_RING_SIZE as usize;
    for weights in [vec![1, 1_000_000, 1_000_000], vec![1; 300], vec![1, 150]] {
        let ring = table(Policy::RingHash, &endpoints(&weights));
        let allowed = bound / 4..=bound + weights.len();
        assert!(allowed.contains(&ring.len()), "{}: {weights:?}", ring.len());
    }
    assert!(Table::new(&settings(Policy::Random), &set, None).is_none());
    assert!(Table::new(&settings(Policy::Maglev), &[], None).is_none());
}

#[test]
fn keys_belong_to_the_same_endpoint_everywhere() {
    let set = endpoints(&[1, 2, 3, 4]);
    let mut other = set.clone();
    other.reverse();
    for policy in HASHING {
        let (one, two) = (table(policy, &set), table(policy, &other));
        for key in keys().take(1000) {
            assert_eq!(owner_of(&one, &set, key), owner_of(&two, &other, key));
        }
    }
    // Part of the contract between sidecars of different versions: a change of these moves every key.
    let key = Hasher::new().bytes(b"alice").finish();
    assert_eq!(key, 0x3507_d047_a67c_08f4, "{key:#x}");
}

#[test]
fn a_table_is_built_again_only_for_other_addresses_weights_or_sizes() {
    let set = endpoints(&[1, 2, 3]);
    for policy in HASHING {
        let settings = settings(policy);
        let first = Table::new(&settings, &set, None).unwrap();
        // Other objects, in another order: the same servers.
        let mut again = endpoints(&[1, 2, 3]);
        again.swap(0, 2);
        let second = Table::new(&settings, &again, Some(&first)).unwrap();
        assert!(second.shares_with(&first));
        for key in keys().take(200) {
            assert_eq!(owner_of(&first, &set, key), owner_of(&second, &again, key));
        }
        let heavier = Table::new(&settings, &endpoints(&[1, 2, 4]), Some(&first)).unwrap();
        assert!(!heavier.shares_with(&first));
        let smaller = Settings {
            ring_size: 64,
            maglev_size: 251,
            ..settings.clone()
        };
        let resized = Table::new(&smaller, &set, Some(&first)).unwrap();
        assert!(!resized.shares_with(&first));
    }
}

#[test]
fn only_the_keys_of_what_is_not_allowed_move_and_they_spread() {
    let set = endpoints(&[1; 8]);
    for policy in HASHING {
        let table = table(policy, &set);
        let mut taken = [0; 8];
        for key in keys() {
            let owner = table.owner(key);
            let stand_in = table.next(key, |index| index != 3).unwrap();
            assert_ne!(stand_in, 3);
            assert!(table.next(key, |_| true).is_some());
            if owner == 3 {
                taken[stand_in] += 1;
                // The same one every time.
                assert_eq!(table.next(key, |index| index != 3), Some(stand_in));
            }
        }
        let moved: usize = taken.iter().sum();
        for (index, count) in taken.iter().enumerate().filter(|(index, _)| *index != 3) {
            assert!(
                count * 40 > moved,
                "{policy:?}: {index} took {count} of {moved}"
            );
        }
        assert!(table.next(7, |_| false).is_none());
    }
}

#[test]
fn an_endpoint_without_a_place_takes_keys_where_nobody_else_can() {
    let set = endpoints(&[1; 8]);
    let small = Settings {
        maglev_size: 5,
        ..settings(Policy::Maglev)
    };
    let table = Table::new(&small, &set, None).unwrap();
    let owners: std::collections::BTreeSet<_> = keys().map(|key| table.owner(key)).collect();
    assert_eq!(owners.len(), 5);
    for key in keys().take(100) {
        let found = table.next(key, |index| !owners.contains(&index)).unwrap();
        assert!(!owners.contains(&found));
    }
    assert!(table.next(7, |_| false).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn one_of_n_taken_out_or_added_moves_about_one_nth(
        policy in prop::sample::select(HASHING.to_vec()),
        count in 2_usize..24,
        gone in any::<prop::sample::Index>(),
    ) {
        let with = endpoints(&vec![1; count + 1]);
        let mut without = with.clone();
        let gone = without.remove(gone.index(count + 1));
        let (larger, smaller) = (table(policy, &with), table(policy, &without));
        let (mut of_gone, mut others_moved) = (0, 0);
        for key in keys() {
            let before = owner_of(&larger, &with, key);
            let after = owner_of(&smaller, &without, key);
            if before == gone.address {
                of_gone += 1;
            } else if before != after {
                others_moved += 1;
            }
        }
        let share = KEYS as f64 / (count + 1) as f64;
        // A few thousand places each: some per cent off.
        let slack = share * 0.35 + 60.0;
        prop_assert!((f64::from(of_gone) - share).abs() < slack, "{of_gone} keys, {share} is a share");
        match policy {
            // None but the keys of the one that is gone.
            Policy::RingHash => prop_assert_eq!(others_moved, 0),
            // The paper's figure 12: a few per cent more.
            _ => prop_assert!(f64::from(others_moved) < 0.08 * KEYS as f64, "{others_moved} others"),
        }
    }

    #[test]
    fn shares_follow_the_weights(
        policy in prop::sample::select(HASHING.to_vec()),
        weights in prop::collection::vec(1_u32..6, 2..8),
    ) {
        let set = endpoints(&weights);
        let table = table(policy, &set);
        let mut counts = vec![0_u32; weights.len()];
        for key in keys() {
            counts[table.owner(key)] += 1;
        }
        let sum: u32 = weights.iter().sum();
        for (count, weight) in counts.iter().zip(&weights) {
            let share = KEYS as f64 * f64::from(*weight) / f64::from(sum);
            prop_assert!((f64::from(*count) - share).abs() < share * 0.35 + 60.0, "{counts:?} {weights:?}");
        }
    }
}
