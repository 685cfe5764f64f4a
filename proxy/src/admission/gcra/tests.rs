#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;

#[test]
fn a_burst_and_then_the_rate() {
    let rate = Rate::new(10, Duration::from_secs(1), 3);
    let time = AtomicU64::new(0);
    let now = 100 * SECOND;
    for remaining in [2, 1, 0] {
        assert_eq!(rate.take(&time, now).unwrap().remaining, remaining);
    }
    let refused = rate.take(&time, now).unwrap_err();
    assert_eq!(refused.retry_after, Duration::from_millis(100));
    assert_eq!(refused.reset, Duration::from_millis(300));
    assert_eq!(refused.remaining, 0);
    // Refusals cost nothing.
    assert!(rate.take(&time, now + SECOND / 10 - 1).is_err());
    assert!(rate.take(&time, now + SECOND / 10).is_ok());
    assert!(rate.take(&time, now + SECOND / 10).is_err());
    // What was given back is there again.
    rate.give_back(&time);
    assert!(rate.take(&time, now + SECOND / 10).is_ok());
    // A long pause brings back the burst and no more.
    let later = now + 1000 * SECOND;
    let taken = (0..10).filter(|_| rate.take(&time, later).is_ok()).count();
    assert_eq!(taken, 3);
}

proptest! {
    /// Never more than the burst and what the rate allows since, in any stretch of time; and never less for who asks all the
    /// time.
    #[test]
    fn never_above_burst_and_rate(
        requests in 1_u32..1000,
        per_ms in 1000_u64..100_000,
        burst in 1_u32..50,
        gaps in prop::collection::vec(0_u64..200_000_000, 1..400),
    ) {
        let rate = Rate::new(requests, Duration::from_millis(per_ms), burst);
        let time = AtomicU64::new(0);
        let mut now = SECOND;
        let mut admitted = Vec::new();
        for gap in gaps {
            now += gap;
            if rate.take(&time, now).is_ok() {
                admitted.push(now);
            }
        }
        let per_ns = f64::from(requests) / (per_ms as f64 * 1e6);
        for (first, from) in admitted.iter().enumerate() {
            for (last, to) in admitted.iter().enumerate().skip(first) {
                let most = f64::from(burst) + (to - from) as f64 * per_ns;
                prop_assert!((last - first + 1) as f64 <= most + 1e-6);
            }
        }
        prop_assert!(!admitted.is_empty());
    }
}
