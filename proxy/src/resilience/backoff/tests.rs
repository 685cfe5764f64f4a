#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

#[test]
fn the_ceiling_doubles_up_to_the_maximum() {
    let backoff = Backoff::default();
    let ceilings: Vec<u128> = (1..=6).map(|n| backoff.ceiling(n).as_millis()).collect();
    assert_eq!(ceilings, [25, 50, 100, 200, 250, 250]);
    assert_eq!(backoff.ceiling(u32::MAX), backoff.max);
}

#[test]
fn the_jitter_is_full() {
    let backoff = Backoff {
        base: Duration::from_millis(100),
        max: Duration::from_secs(1),
    };
    let mut rng = StdRng::seed_from_u64(7);
    let delays: Vec<Duration> = (0..10_000).map(|_| backoff.delay(2, &mut rng)).collect();
    let mean = delays.iter().sum::<Duration>() / delays.len() as u32;
    assert!(
        mean.abs_diff(Duration::from_millis(100)) < Duration::from_millis(3),
        "{mean:?}"
    );
    assert!(
        delays.iter().any(|delay| *delay < Duration::from_millis(2)),
        "from zero"
    );
    assert!(
        delays
            .iter()
            .any(|delay| *delay > Duration::from_millis(198)),
        "to the ceiling"
    );
}

proptest! {
    #[test]
    fn no_pause_is_longer_than_allowed(base in 0_u64..10_000, max in 0_u64..100_000, retry in any::<u32>(), seed in any::<u64>()) {
        let backoff = Backoff { base: Duration::from_millis(base), max: Duration::from_millis(max) };
        prop_assert!(backoff.delay(retry, &mut StdRng::seed_from_u64(seed)) <= backoff.max);
    }
}
