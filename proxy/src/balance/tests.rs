#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::draw::Weights;
use super::*;
use crate::telemetry::metrics::{BalancingMetrics, HashPick};

mod newcomers;

const POLICIES: [Policy; 8] = Policy::ALL;

fn endpoint(index: usize, weight: u32) -> Arc<Endpoint> {
    Arc::new(Endpoint {
        address: format!("10.0.{}.{}:80", index / 250, index % 250 + 1)
            .parse()
            .unwrap(),
        mtls: true,
        identity: None,
        ports: Box::default(),
        labels: BTreeMap::new(),
        weight,
        zone: "".into(),
        instance: index.to_string().into(),
        // All of the same age: estimates that nothing was learnt about are alike.
        load: Arc::new(Load::new(0)),
        outside: None,
        health: Arc::default(),
    })
}

fn set(policy: Policy, weights: &[u32]) -> EndpointSet {
    let endpoints = weights
        .iter()
        .enumerate()
        .map(|(i, weight)| endpoint(i, *weight))
        .collect();
    EndpointSet::new(policy, DEFAULT_DECAY, endpoints)
}

fn position(set: &EndpointSet, picked: &Arc<Endpoint>) -> usize {
    set.endpoints()
        .iter()
        .position(|each| Arc::ptr_eq(each, picked))
        .unwrap()
}

/// How often each is picked; nothing stays in flight.
fn picks(set: &EndpointSet, rng: &mut StdRng, count: usize) -> Vec<u64> {
    let mut counts = vec![0; set.endpoints().len()];
    for _ in 0..count {
        let picked = set.pick(rng, &[]).unwrap();
        counts[position(set, &picked)] += 1;
    }
    counts
}

#[test]
fn an_empty_set_has_nothing_to_offer_and_a_single_endpoint_is_always_offered() {
    let mut rng = StdRng::seed_from_u64(1);
    for policy in POLICIES {
        assert!(set(policy, &[]).pick(&mut rng, &[]).is_none());
        let one = set(policy, &[3]);
        let only = one.pick(&mut rng, &[]).unwrap();
        assert!(
            one.pick(&mut rng, &[only]).is_some(),
            "{policy:?}: better twice than never"
        );
    }
}

#[test]
fn round_robin_is_smooth() {
    let set = set(Policy::RoundRobin, &[5, 1, 1]);
    // nginx' own example of the algorithm.
    assert_eq!(*set.schedule(), [0, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn round_robin_reduces_weights_and_rounds_large_ones() {
    assert_eq!(set(Policy::RoundRobin, &[90, 10]).schedule().len(), 10);
    assert_eq!(set(Policy::RoundRobin, &[7, 7, 7]).schedule().len(), 3);
    let large = set(Policy::RoundRobin, &[1, 1_000_000, 999_999]);
    let turns = |index: u32| {
        large
            .schedule()
            .iter()
            .filter(|turn| **turn == index)
            .count()
    };
    assert_eq!(turns(0), 1, "rounded, but not away");
    assert!(large.schedule().len() <= 1026, "{}", large.schedule().len());
    assert!(turns(1).abs_diff(turns(2)) <= 1);
}

#[test]
fn round_robin_is_exact_across_threads() {
    let set = Arc::new(set(Policy::RoundRobin, &[3, 2, 1]));
    let threads: Vec<_> = (0..4)
        .map(|seed| {
            let set = set.clone();
            std::thread::spawn(move || picks(&set, &mut StdRng::seed_from_u64(seed), 1500))
        })
        .collect();
    let mut total = [0; 3];
    for thread in threads {
        for (sum, count) in total.iter_mut().zip(thread.join().unwrap()) {
            *sum += count;
        }
    }
    assert_eq!(total, [3000, 2000, 1000]);
}

#[test]
fn two_candidates_are_two() {
    // With two endpoints both are always looked at, so the idle one is taken every time.
    let mut rng = StdRng::seed_from_u64(2);
    for policy in [Policy::PeakEwma, Policy::LeastRequest] {
        for weights in [[1, 1], [2, 1]] {
            let set = set(policy, &weights);
            let _busy: Vec<_> = (0..9).map(|_| set.endpoints()[0].begin()).collect();
            assert_eq!(
                picks(&set, &mut rng, 1000),
                [0, 1000],
                "{policy:?} {weights:?}"
            );
        }
    }
}

#[test]
fn p2c_never_takes_the_worst() {
    let mut rng = StdRng::seed_from_u64(3);
    let set = set(Policy::LeastRequest, &[1; 5]);
    let _busy: Vec<_> = (0..5).map(|_| set.endpoints()[3].begin()).collect();
    let counts = picks(&set, &mut rng, 5000);
    assert_eq!(counts[3], 0);
    assert!(
        counts
            .iter()
            .enumerate()
            .all(|(i, count)| i == 3 || *count > 1000),
        "{counts:?}"
    );
}

#[test]
fn a_slower_endpoint_gets_less() {
    // Latencies in ms; each endpoint serves one request at a time in its latency, however many are there.
    const LATENCY: [u64; 3] = [10, 10, 100];
    let set = set(Policy::PeakEwma, &[1; 3]);
    let mut rng = StdRng::seed_from_u64(4);
    let (counts, _) = simulate(&set, &mut rng, 20_000, |index, _| Ok(LATENCY[index]));
    assert!(counts[2] * 8 < counts[0], "{counts:?}");
    assert!(counts[2] > 0, "it is still asked now and then: {counts:?}");
}

#[test]
fn fast_failures_draw_no_traffic() {
    for policy in [Policy::PeakEwma, Policy::LeastRequest] {
        let set = set(policy, &[1; 3]);
        let mut rng = StdRng::seed_from_u64(5);
        // The first endpoint refuses at once for a minute, and is well again after that.
        let (counts, late) = simulate(&set, &mut rng, 120_000, |index, ms| match index {
            0 if ms < 60_000 => Err(()),
            _ => Ok(20),
        });
        let while_down = counts[0] - late[0];
        assert!(
            while_down < 600,
            "{policy:?}: {while_down} of 60,000 went to the failing endpoint"
        );
        assert!(late[0] > 3_000, "{policy:?}: it came back: {late:?}");
    }
}

/// A request each millisecond; `serve` says how long it takes at an endpoint (ms), or that it fails at once. Returns the
/// picks by endpoint, of the whole time and of its last half.
fn simulate(
    set: &EndpointSet,
    rng: &mut StdRng,
    millis: u64,
    serve: impl Fn(usize, u64) -> Result<u64, ()>,
) -> (Vec<u64>, Vec<u64>) {
    let start = clock::now();
    let mut counts = vec![0; set.endpoints().len()];
    let mut late = counts.clone();
    let mut under_way: BTreeMap<u64, Vec<(usize, u64)>> = BTreeMap::new();
    for ms in 0..millis {
        let now = start + ms * 1_000_000;
        for (index, took) in under_way.remove(&ms).unwrap_or_default() {
            let load = &set.endpoints()[index].load;
            load.sample(now, took * 1_000_000);
            load.end();
        }
        let picked = set.pick_at(now, None, rng, &[]).unwrap();
        let index = position(set, picked);
        let load = &set.endpoints()[index].load;
        load.begin(now);
        counts[index] += 1;
        late[index] += u64::from(ms * 2 >= millis);
        match serve(index, ms) {
            Ok(took) => under_way.entry(ms + took).or_default().push((index, took)),
            Err(()) => {
                load.penalise(now, FAILURE_PENALTY);
                load.end();
            }
        }
    }
    (counts, late)
}

#[test]
fn a_changed_description_keeps_the_load() {
    let old = endpoint(0, 1);
    let _busy = old.begin();
    let mut new = Arc::into_inner(endpoint(0, 5)).unwrap();
    assert_eq!(new.key(), old.key());
    new.load = old.load.clone();
    let new = Arc::new(new);
    assert_eq!(new.load.in_flight(), 1);
    assert!(new.is_same(&old));
    let set = EndpointSet::new(Policy::Random, DEFAULT_DECAY, vec![new, endpoint(1, 1)]);
    let mut rng = StdRng::seed_from_u64(6);
    for _ in 0..100 {
        let picked = set.pick(&mut rng, std::slice::from_ref(&old)).unwrap();
        assert!(!picked.is_same(&old), "tried in its earlier version");
    }
}

#[test]
fn subsets_and_ports() {
    let mut described = Arc::into_inner(endpoint(0, 1)).unwrap();
    described.labels = BTreeMap::from([
        ("version".to_owned(), "v1".to_owned()),
        ("gpu".to_owned(), "h100".to_owned()),
    ]);
    let subset = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    };
    assert!(described.carries(&subset(&[])));
    assert!(described.carries(&subset(&[("version", "v1")])));
    assert!(!described.carries(&subset(&[("version", "v2")])));
    assert!(!described.carries(&subset(&[("version", "v1"), ("zone", "a")])));
    assert!(described.serves(80), "no ports named: all");
    described.ports = [8080].into();
    assert!(described.serves(8080) && !described.serves(80));
}

#[tokio::test(start_paused = true)]
async fn the_latency_is_that_of_the_first_byte_and_in_flight_ends_with_the_last() {
    let endpoint = endpoint(0, 1);
    let mut request = endpoint.begin();
    tokio::time::advance(Duration::from_millis(200)).await;
    request.first_byte();
    assert_eq!(endpoint.load.latency(), Some(Duration::from_millis(200)));
    assert_eq!(endpoint.load.in_flight(), 1);
    tokio::time::advance(Duration::from_secs(5)).await;
    request.first_byte();
    drop(request);
    assert_eq!(endpoint.load.in_flight(), 0);
    assert!(
        endpoint.load.latency() < Some(Duration::from_millis(200)),
        "the stream's length is no latency"
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_given_up_tells_how_long_it_waited() {
    let endpoint = endpoint(0, 1);
    let hung = endpoint.begin();
    tokio::time::advance(Duration::from_secs(2)).await;
    drop(hung);
    assert_eq!(endpoint.load.latency(), Some(Duration::from_secs(2)));
    // One given up at once says nothing: it must not make the endpoint look fast.
    let before = endpoint.load.latency();
    drop(endpoint.begin());
    assert_eq!(endpoint.load.latency(), before);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_remembered_for_a_while() {
    let set = set(Policy::PeakEwma, &[1, 1]);
    let state = |index: usize| set.stats()[index].state;
    let mut request = set.endpoints()[0].begin();
    request.failed();
    drop(request);
    assert_eq!(
        (state(0), state(1)),
        (EndpointState::Penalised, EndpointState::Ready)
    );
    assert_eq!(set.stats()[0].failures, 1);
    tokio::time::advance(FAILURE_PENALTY).await;
    assert_eq!(state(0), EndpointState::Ready);

    // A server that asks for an hour gets a minute.
    let mut request = set.endpoints()[0].begin();
    request.failed_for(Duration::from_secs(3600));
    drop(request);
    tokio::time::advance(MAX_PENALTY - Duration::from_secs(1)).await;
    assert_eq!(state(0), EndpointState::Penalised);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(state(0), EndpointState::Ready);
}

#[test]
fn in_flight_comes_back_to_zero_across_threads() {
    let set = Arc::new(set(Policy::PeakEwma, &[1, 2, 3]));
    let threads: Vec<_> = (0..4)
        .map(|seed| {
            let set = set.clone();
            std::thread::spawn(move || {
                let mut rng = StdRng::seed_from_u64(seed);
                let mut open = Vec::new();
                for step in 0..2000 {
                    let mut request = set.pick(&mut rng, &[]).unwrap().begin();
                    match step % 3 {
                        0 => request.first_byte(),
                        1 => request.failed(),
                        _ => {}
                    }
                    open.push(request);
                    if open.len() > 20 {
                        drop(open.swap_remove(step % 20));
                    }
                }
            })
        })
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    for stats in set.stats() {
        assert_eq!(stats.in_flight, 0);
    }
    assert_eq!(
        set.stats().iter().map(|stats| stats.picks).sum::<u64>(),
        8000
    );
}

#[test]
fn what_is_not_available_gets_nothing_while_others_are() {
    for policy in POLICIES {
        let set = set(policy, &[1; 4]);
        let mut rng = StdRng::seed_from_u64(8);
        let held = |rng: &mut StdRng, count: usize| {
            let begin = || set.pick(rng, &[]).unwrap().begin();
            let requests: Vec<_> = std::iter::repeat_with(begin).take(count).collect();
            let counts: Vec<_> = set.stats().iter().map(|stats| stats.in_flight).collect();
            drop(requests);
            counts
        };
        let bar = |index: usize, barred| set.endpoints()[index].health.set_failing(0, barred);
        bar(0, true);
        bar(2, true);
        let counts = held(&mut rng, 400);
        assert_eq!((counts[0], counts[2]), (0, 0), "{policy:?}");
        assert!(counts[1] > 100 && counts[3] > 100, "{policy:?} {counts:?}");
        // An available one that was tried is better than one that is not available.
        let tried: Vec<_> = [1, 3].map(|i: usize| set.endpoints()[i].clone()).into();
        assert!(!set.has_untried(&tried));
        for _ in 0..50 {
            assert!(set.pick(&mut rng, &tried).unwrap().health.is_available());
        }
        assert!(set.has_untried(&tried[..1]));
        let second = set.pick(&mut rng, &tried[..1]).unwrap();
        assert_eq!(position(&set, &second), 3);
        assert!(!set.is_panic());
        // A quarter is available: all may be chosen.
        bar(1, true);
        assert!(set.is_panic());
        let counts = held(&mut rng, 700);
        assert!(
            counts.iter().all(|count| *count > 30),
            "{policy:?} {counts:?}"
        );
        assert!(set.has_untried(&tried));
        // Half of them again.
        bar(2, false);
        assert!(!set.is_panic());
        let counts = held(&mut rng, 60);
        assert_eq!((counts[0], counts[1]), (0, 0), "{policy:?}");
    }
}

#[test]
fn a_full_endpoint_gets_nothing_until_a_request_ends() {
    for policy in POLICIES {
        let set = set(policy, &[1; 3]);
        let mut rng = StdRng::seed_from_u64(9);
        for (endpoint, most) in set.endpoints().iter().zip([1, 2, 4]) {
            endpoint.load.set_most_in_flight(Some(most));
        }
        let mut requests = Vec::new();
        while let Some(endpoint) = set.pick(&mut rng, &[]) {
            let request = endpoint.try_begin().unwrap();
            requests.push((endpoint, request));
            assert!(requests.len() <= 7, "{policy:?}");
        }
        let counts: Vec<_> = set.stats().iter().map(|stats| stats.in_flight).collect();
        assert_eq!(counts, [1, 2, 4], "{policy:?}");
        assert!(set.is_full());
        assert!(set.endpoints()[0].try_begin().is_none());
        assert_eq!(set.stats()[0].in_flight, 1);
        // The only one with room is chosen although it was tried; while it is not available the others do not overflow
        // to it.
        let open = set.endpoints()[2].clone();
        requests.retain(|(endpoint, _)| !endpoint.is_same(&open));
        let picked = set.pick(&mut rng, std::slice::from_ref(&open)).unwrap();
        assert!(picked.is_same(&open), "{policy:?}");
        open.health.set_failing(0, true);
        assert!(set.pick(&mut rng, &[]).is_none(), "{policy:?}");
        assert!(set.is_full());
        open.health.set_failing(0, false);
        drop(requests);
        // A limit that is lifted is gone at once.
        for endpoint in set.endpoints() {
            endpoint.load.set_most_in_flight(None);
        }
        let held: Vec<_> = (0..100)
            .map(|_| set.pick(&mut rng, &[]).unwrap().begin())
            .collect();
        assert_eq!(held.len(), 100);
    }
    // One endpoint has no choice to make, and is full all the same.
    let one = set(Policy::RoundRobin, &[1]);
    one.endpoints()[0].load.set_most_in_flight(Some(1));
    let mut rng = StdRng::seed_from_u64(9);
    let _held = one.pick(&mut rng, &[]).unwrap().try_begin().unwrap();
    assert!(one.pick(&mut rng, &[]).is_none());
    // None is not full.
    assert!(!set(Policy::Random, &[]).is_full());
}

#[test]
fn limits_hold_across_threads() {
    let set = set(Policy::LeastRequest, &[1; 2]);
    let held: [AtomicU32; 2] = Default::default();
    for endpoint in set.endpoints() {
        endpoint.load.set_most_in_flight(Some(3));
    }
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (set, held) = (&set, &held);
            scope.spawn(move || {
                let mut rng = StdRng::seed_from_u64(seed);
                for _ in 0..2_000 {
                    let Some(endpoint) = set.pick(&mut rng, &[]) else {
                        continue;
                    };
                    let Some(_request) = endpoint.try_begin() else {
                        continue;
                    };
                    let held = &held[position(set, &endpoint)];
                    assert!(held.fetch_add(1, Relaxed) < 3);
                    std::thread::yield_now();
                    held.fetch_sub(1, Relaxed);
                }
            });
        }
    });
    assert_eq!(
        set.stats().iter().map(|each| each.in_flight).sum::<u32>(),
        0
    );
}

fn with(settings: Settings, endpoints: Vec<Arc<Endpoint>>) -> (EndpointSet, Arc<BalancingMetrics>) {
    let metrics = Arc::<BalancingMetrics>::default();
    let set = EndpointSet::with(Arc::new(settings), endpoints, metrics.clone(), None);
    (set, metrics)
}

fn changed(index: usize, change: impl FnOnce(&mut Endpoint)) -> Arc<Endpoint> {
    let mut endpoint = Arc::into_inner(endpoint(index, 1)).unwrap();
    change(&mut endpoint);
    Arc::new(endpoint)
}

#[test]
fn without_a_panic_threshold_nothing_goes_where_it_should_not() {
    for policy in POLICIES {
        for count in [1, 3] {
            let settings = Settings {
                policy,
                panic_percent: 0,
                ..Settings::default()
            };
            let (set, metrics) = with(settings, (0..count).map(|i| endpoint(i, 1)).collect());
            let mut rng = StdRng::seed_from_u64(1);
            let bar = |index: usize| set.endpoints()[index].health.set_failing(0, true);
            (1..count).for_each(bar);
            let picked = set.pick_by(Some(7), &mut rng, &[]).unwrap();
            assert_eq!(position(&set, &picked), 0, "{policy:?}");
            bar(0);
            assert!(set.pick_by(Some(7), &mut rng, &[]).is_none(), "{policy:?}");
            assert!(set.pick(&mut rng, &[]).is_none());
            assert!(!set.is_panic() && !set.is_full() && !set.has_untried(&[]));
            assert_eq!(metrics.panic_picks(), 0);
        }
    }
}

#[test]
fn panic_is_counted() {
    let (set, metrics) = with(
        Settings::default(),
        (0..4).map(|i| endpoint(i, 1)).collect(),
    );
    let mut rng = StdRng::seed_from_u64(1);
    picks(&set, &mut rng, 10);
    assert_eq!(metrics.panic_picks(), 0);
    (0..3).for_each(|i| set.endpoints()[i].health.set_failing(0, true));
    picks(&set, &mut rng, 10);
    assert_eq!(metrics.panic_picks(), 10);
}

#[test]
fn a_zone_keeps_its_requests_while_it_can_take_them() {
    // Two of three endpoints in the own zone were enough in Envoy's example: 1.4 × 2/3 = 93 %.
    let zoned = |index: usize| {
        changed(index, |it| {
            it.zone = if index < 3 { "a" } else { "b" }.into()
        })
    };
    for policy in &POLICIES[..4] {
        let settings = Settings {
            policy: *policy,
            zone: Some(ZonePreference {
                own: "a".into(),
                overprovisioning: 140,
                min_local_percent: 30,
            }),
            ..Settings::default()
        };
        let (set, metrics) = with(settings, (0..6).map(zoned).collect());
        let mut rng = StdRng::seed_from_u64(4);
        let bar = |index: usize| set.endpoints()[index].health.set_failing(0, true);
        let local = |rng: &mut StdRng| picks(&set, rng, 3000)[..3].iter().sum::<u64>();
        assert_eq!(set.local_share(), Some(1.0));
        assert_eq!(local(&mut rng), 3000, "{policy:?}");
        assert_eq!(metrics.zone_picks(), [("local", 3000), ("remote", 0)]);
        bar(0);
        assert_eq!(set.local_share(), Some(0.933));
        let share = local(&mut rng);
        assert!((2720..2880).contains(&share), "{policy:?}: {share}");
        // A retry leaves the zone only where nothing else is left in it.
        let tried = [set.endpoints()[1].clone()];
        assert!(set.pick(&mut rng, &tried).is_some());
        bar(1);
        let share = local(&mut rng);
        assert!(
            (1270..1530).contains(&share),
            "{policy:?}: {share} at 1.4 / 3"
        );
        bar(2);
        assert_eq!(local(&mut rng), 0, "{policy:?}");
        // Panic: zones play no part.
        bar(3);
        assert!(set.is_panic() && set.local_share().is_none());
        assert!((1300..1700).contains(&local(&mut rng)), "{policy:?}");
    }
}

#[test]
fn a_small_zone_is_not_preferred() {
    let zoned = |index: usize| {
        changed(index, |it| {
            it.zone = if index < 1 { "a" } else { "b" }.into()
        })
    };
    let share = |min_local_percent| {
        let settings = Settings {
            zone: Some(ZonePreference {
                own: "a".into(),
                overprovisioning: 140,
                min_local_percent,
            }),
            ..Settings::default()
        };
        let (set, _) = with(settings, (0..10).map(zoned).collect());
        (
            set.local_share(),
            picks(&set, &mut StdRng::seed_from_u64(1), 1000)[0],
        )
    };
    assert_eq!(share(10), (Some(1.0), 1000));
    let (none, picks) = share(11);
    assert!(none.is_none() && picks < 300, "{picks}");
}

#[test]
fn a_key_has_one_endpoint_and_others_only_while_that_one_cannot_take_it() {
    for policy in [Policy::RingHash, Policy::Maglev] {
        let settings = Settings {
            policy,
            ..Settings::default()
        };
        let (set, metrics) = with(settings, (0..5).map(|i| endpoint(i, 1)).collect());
        let mut rng = StdRng::seed_from_u64(1);
        let mut find = |key: u64, tried: &[Arc<Endpoint>]| {
            let picked = set.pick_by(Some(hash::mix(key)), &mut rng, tried).unwrap();
            position(&set, &picked)
        };
        let before: Vec<_> = (0..500).map(|key| find(key, &[])).collect();
        set.endpoints()[2].health.set_failing(0, true);
        for (key, owner) in (0..500).zip(&before) {
            let now = find(key, &[]);
            assert_ne!(now, 2, "{policy:?}");
            assert!(
                now == *owner || *owner == 2,
                "{policy:?}: only its keys move"
            );
        }
        set.endpoints()[2].health.set_failing(0, false);
        let again: Vec<_> = (0..500).map(|key| find(key, &[])).collect();
        assert_eq!(again, before);
        // A retry goes to the key's next one, and the same each time.
        let tried = [set.endpoints()[before[0]].clone()];
        let second = find(0, &tried);
        assert_ne!(second, before[0]);
        assert_eq!(find(0, &tried), second);
        let all = set.endpoints().to_vec();
        assert_eq!(find(0, &all), before[0], "all were tried: the owner again");
        // Without a key there is still a choice.
        let counts = picks(&set, &mut rng, 1000);
        assert!(counts.iter().all(|count| *count > 50), "{counts:?}");
        let counted: Vec<_> = metrics.hash_picks().collect();
        assert_eq!(counted[2], (HashPick::NoKey, 1000));
        let of_two = before.iter().filter(|owner| **owner == 2).count() as u64;
        assert_eq!(counted[1], (HashPick::Moved, of_two + 2));
    }
}

#[test]
fn a_bounded_load_sends_hot_keys_on() {
    let settings = Settings {
        policy: Policy::RingHash,
        bounded_load: Some(125),
        ..Settings::default()
    };
    let (set, _) = with(settings, (0..4).map(|i| endpoint(i, 1)).collect());
    let mut rng = StdRng::seed_from_u64(1);
    // One key, a hundred requests at the same time: nobody has more than 125 % of a quarter.
    let held: Vec<_> = (0..100)
        .map(|_| set.pick_by(Some(42), &mut rng, &[]).unwrap().begin())
        .collect();
    let most = set.stats().iter().map(|stats| stats.in_flight).max();
    assert!(most <= Some(32), "{most:?}");
    drop(held);
    let alone = set.pick_by(Some(42), &mut rng, &[]).unwrap();
    assert!(alone.is_same(&set.pick_by(Some(42), &mut rng, &[]).unwrap()));
}

#[test]
fn the_weight_of_a_newcomer_grows() {
    let slow_start = |aggression, min_percent| SlowStart {
        window: Duration::from_secs(100),
        aggression,
        min_percent,
    };
    let at = |it: SlowStart, seconds| (it.factor(Duration::from_secs(seconds)) * 1000.0).round();
    assert_eq!(at(slow_start(1, 10), 0), 100.0);
    assert_eq!(at(slow_start(1, 10), 5), 100.0);
    assert_eq!(at(slow_start(1, 10), 50), 500.0);
    assert_eq!(at(slow_start(1, 10), 100), 1000.0);
    assert_eq!(at(slow_start(2, 10), 25), 500.0);
    assert_eq!(at(slow_start(1, 100), 1), 1000.0);
}

#[test]
fn a_newcomer_gets_its_share_of_its_weight() {
    const SECOND: u64 = 1_000_000_000;
    let begun = 1_000 * SECOND;
    for policy in &POLICIES[..4] {
        let newcomer = changed(3, |it| it.load = Arc::new(Load::new_at(begun)));
        let endpoints = (0..3).map(|i| endpoint(i, 1)).chain([newcomer]).collect();
        let settings = Settings {
            policy: *policy,
            slow_start: Some(SlowStart {
                window: Duration::from_secs(100),
                aggression: 1,
                min_percent: 10,
            }),
            ..Settings::default()
        };
        let (set, _) = with(settings, endpoints);
        let mut rng = StdRng::seed_from_u64(2);
        let mut share = |seconds: u64| {
            let now = begun + seconds * SECOND;
            for endpoint in set.endpoints() {
                endpoint.load.sample(now, 50_000_000);
            }
            let picked = (0..20_000).filter(|_| {
                let picked = set.pick_at(now, None, &mut rng, &[]).unwrap();
                position(&set, picked) == 3
            });
            picked.count() as f64 / 20_000.0
        };
        // A quarter of the requests are its own in the end. P2C asks it at most as often as it stands to the choice,
        // twice its part of the weight, and then compares: an idle newcomer may win all of these.
        let most = match policy {
            Policy::PeakEwma | Policy::LeastRequest => 2.0,
            _ => 1.0,
        };
        for (seconds, factor) in [(0, 0.1), (50, 0.5)] {
            let found = share(seconds);
            let weighted = factor / (3.0 + factor);
            assert!(
                (0.6 * weighted..1.4 * weighted * most).contains(&found),
                "{policy:?} after {seconds} s: {found}, its weight says {weighted}"
            );
        }
        let found = share(100);
        assert!(
            (0.2..0.3).contains(&found),
            "{policy:?} in the end: {found}"
        );
    }
}

#[test]
fn a_failure_costs_an_endpoint_seconds_and_not_minutes() {
    // One request a second, two endpoints: the first fails once.
    let set = set(Policy::PeakEwma, &[1, 1]);
    let mut rng = StdRng::seed_from_u64(9);
    let mut failed_at = None;
    let mut back_at = None;
    let start = clock::now();
    for second in 0..60 {
        let now = start + second * 1_000_000_000;
        let picked = set.pick_at(now, None, &mut rng, &[]).unwrap();
        let index = position(&set, picked);
        let load = &picked.load;
        match (index, failed_at) {
            (0, None) => {
                failed_at = Some(second);
                load.penalise(now, FAILURE_PENALTY);
            }
            (0, Some(_)) if back_at.is_none() => back_at = Some(second),
            _ => load.sample(now, 20_000_000),
        }
    }
    let pause = back_at.unwrap() - failed_at.unwrap();
    assert!((5..=12).contains(&pause), "back after {pause} s");
}

fn policy() -> impl Strategy<Value = Policy> {
    prop::sample::select(POLICIES.to_vec())
}

proptest! {
    #[test]
    fn outside_of_panic_only_what_is_available_is_picked(
        policy in policy(),
        weights in prop::collection::vec(1_u32..9, 2..12),
        barred in prop::collection::vec(any::<bool>(), 12),
        tried in prop::collection::vec(any::<bool>(), 12),
        zones in prop::collection::vec(any::<bool>(), 12),
        panic_percent in prop::sample::select(vec![0_u8, 30, 50, 100]),
        key in prop::option::of(any::<u64>()),
        seed in any::<u64>(),
    ) {
        let settings = Settings {
            policy,
            panic_percent,
            zone: Some(ZonePreference { own: "a".into(), overprovisioning: 140, min_local_percent: 0 }),
            slow_start: Some(SlowStart { window: Duration::from_secs(60), aggression: 1, min_percent: 10 }),
            ..Settings::default()
        };
        let endpoints: Vec<_> = weights.iter().enumerate().map(|(i, weight)| changed(i, |it| {
            it.weight = *weight;
            it.zone = if zones[i] { "a" } else { "b" }.into();
            if i % 3 == 0 {
                it.load = Arc::new(Load::of_newcomer());
            }
        })).collect();
        let (set, _) = with(settings, endpoints);
        let all = set.endpoints();
        all.iter().zip(&barred).for_each(|(each, barred)| each.health.set_failing(0, *barred));
        let tried: Vec<_> = all.iter().zip(&tried).filter(|(_, tried)| **tried).map(|(each, _)| each.clone()).collect();
        let available = all.iter().filter(|each| each.health.is_available()).count();
        prop_assert_eq!(set.is_panic(), available * 100 < all.len() * usize::from(panic_percent));
        let mut rng = StdRng::seed_from_u64(seed);
        for _ in 0..20 {
            let picked = set.pick_by(key, &mut rng, &tried);
            prop_assert_eq!(picked.is_some(), set.is_panic() || available > 0);
            let Some(picked) = picked else { continue };
            prop_assert!(set.is_panic() || picked.health.is_available());
            prop_assert!(!set.has_untried(&tried) || !tried.iter().any(|each| each.is_same(&picked)));
        }
    }

    #[test]
    fn what_was_tried_is_not_picked_while_others_are_left(
        policy in policy(),
        weights in prop::collection::vec(0_u32..20, 1..12),
        tried in prop::collection::vec(any::<bool>(), 12),
        seed in any::<u64>(),
    ) {
        let set = set(policy, &weights);
        let mut rng = StdRng::seed_from_u64(seed);
        let tried: Vec<_> = set.endpoints().iter().zip(tried).filter(|(_, t)| *t).map(|(e, _)| e.clone()).collect();
        for _ in 0..20 {
            let picked = set.pick(&mut rng, &tried).unwrap();
            let again = tried.iter().any(|each| Arc::ptr_eq(each, &picked));
            prop_assert!(!again || tried.len() == weights.len());
        }
    }

    #[test]
    fn round_robin_keeps_to_the_weights_in_every_round(
        weights in prop::collection::vec(1_u32..30, 1..10),
        start in 0_usize..500,
    ) {
        let set = set(Policy::RoundRobin, &weights);
        let mut rng = StdRng::seed_from_u64(0);
        picks(&set, &mut rng, start);
        let round = set.schedule().len();
        let counts = picks(&set, &mut rng, round.max(1));
        let sum: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        if weights.len() > 1 {
            for (count, weight) in counts.iter().zip(&weights) {
                prop_assert_eq!(count * sum, u64::from(*weight) * round as u64);
            }
        }
    }

    #[test]
    fn random_converges_to_the_weights(
        weights in prop::collection::vec(1_u32..30, 2..8),
        seed in any::<u64>(),
    ) {
        const DRAWS: f64 = 20_000.0;
        let set = set(Policy::Random, &weights);
        let counts = picks(&set, &mut StdRng::seed_from_u64(seed), DRAWS as usize);
        let sum: f64 = weights.iter().map(|w| f64::from(*w)).sum();
        for (count, weight) in counts.iter().zip(&weights) {
            let share = f64::from(*weight) / sum;
            // Six standard deviations.
            let slack = 6.0 * (DRAWS * share * (1.0 - share)).sqrt();
            prop_assert!((*count as f64 - DRAWS * share).abs() <= slack, "{counts:?} {weights:?}");
        }
    }

    #[test]
    fn p2c_fills_endpoints_by_their_weights(
        policy in prop::sample::select(vec![Policy::PeakEwma, Policy::LeastRequest]),
        weights in prop::collection::vec(1_u32..10, 2..8),
        seed in any::<u64>(),
    ) {
        let set = set(policy, &weights);
        let mut rng = StdRng::seed_from_u64(seed);
        let sum: u32 = weights.iter().sum();
        // As many requests as weight, thirty times over, all held open.
        let _open: Vec<_> = (0..30 * sum).map(|_| set.pick(&mut rng, &[]).unwrap().begin()).collect();
        for (stats, weight) in set.stats().iter().zip(&weights) {
            let expected = 30 * weight;
            let slack = 3 * weight + 3;
            prop_assert!(stats.in_flight.abs_diff(expected) <= slack, "{} at weight {weight} of {weights:?}", stats.in_flight);
        }
    }

    #[test]
    fn weighted_draws_are_distinct_and_within(
        weights in prop::collection::vec(1_u32..1000, 2..20),
        seed in any::<u64>(),
    ) {
        let table = Weights::new(weights.iter().copied());
        let mut rng = StdRng::seed_from_u64(seed);
        for _ in 0..50 {
            let first = table.draw(&mut rng);
            let second = table.draw_other(&mut rng, first);
            prop_assert!(first < weights.len() && second < weights.len());
            prop_assert_ne!(first, second);
        }
        for (index, weight) in weights.iter().enumerate() {
            prop_assert_eq!(table.get(index), *weight);
        }
    }
}
