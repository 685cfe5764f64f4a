#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::super::gcra::Rate;
use super::*;
use std::time::Duration;

const NOW: u64 = 1_000_000_000_000;

#[test]
fn who_is_counted_is_not_displaced() {
    let table = KeyTable::new(100);
    let size = table.size();
    let rate = Rate::new(1, Duration::from_secs(60), 5);
    let take =
        |key: &str, caller: &str, now| rate.take(table.bucket(&key, &caller, now), now).is_ok();
    for _ in 0..5 {
        assert!(take("alice", "alice", NOW));
    }
    assert!(!take("alice", "alice", NOW));
    // Somebody makes keys up, one after the other.
    let admitted = (0..100_000)
        .filter(|number| take(&format!("made-up-{number}"), "mallory", NOW + 1))
        .count();
    // A first request for each place there is, and what one key may.
    assert!(admitted <= 256 + 5 + 5, "{admitted}");
    assert!(table.crowded() > 99_000);
    assert_eq!(table.size(), size);
    // She is still refused, and others who find no place do not share with him.
    assert!(!take("alice", "alice", NOW + 2));
    let others = (0..50)
        .filter(|number| {
            take(
                &format!("tenant-{number}"),
                &format!("caller-{number}"),
                NOW + 2,
            )
        })
        .count();
    assert!(others >= 40, "{others}");
    // A minute later all of their places are free again.
    let later = NOW + 60_000_000_000 * 6;
    let crowded = table.crowded();
    assert!(take("bob", "bob", later));
    assert_eq!(table.crowded(), crowded);
}

proptest! {
    /// As many keys as it was made for have buckets of their own.
    #[test]
    fn keys_are_told_apart(keys in 1_u32..500) {
        let table = KeyTable::new(keys.max(64));
        let rate = Rate::new(1, Duration::from_secs(60), 1);
        let admitted = (0..keys).filter(|key| rate.take(table.bucket(key, &0, NOW), NOW).is_ok()).count();
        // Sets fill unevenly: a handful may share.
        prop_assert!(admitted as u32 >= keys - keys / 10 - 1, "{} of {}", admitted, keys);
        let again = (0..keys).filter(|key| rate.take(table.bucket(key, &0, NOW), NOW).is_ok()).count();
        prop_assert_eq!(again, 0);
    }
}
