use proptest::prelude::*;

use super::*;

const MS: u64 = 1_000_000;

proptest! {
    #[test]
    fn stays_within_its_bounds(
        min in 1_u32..50,
        more in 0_u32..500,
        samples in prop::collection::vec((0..u64::MAX / 2, any::<u32>()), 0..300),
    ) {
        let limit = Gradient2::new(min, min + more, 1.5);
        for (latency, in_flight) in samples {
            limit.sample(latency, in_flight);
            prop_assert!((min..=min + more).contains(&limit.limit()));
        }
    }
}

#[test]
fn grows_while_latency_stays_and_falls_when_it_rises() {
    let limit = Gradient2::new(20, 200, 1.5);
    assert_eq!(limit.limit(), 20);
    for _ in 0..400 {
        limit.sample(10 * MS, limit.limit());
    }
    assert_eq!(limit.limit(), 200);
    for _ in 0..100 {
        limit.sample(100 * MS, limit.limit());
    }
    assert!(limit.limit() < 60, "{}", limit.limit());
    // Back to normal: it recovers.
    for _ in 0..400 {
        limit.sample(10 * MS, limit.limit());
    }
    assert!(limit.limit() > 150, "{}", limit.limit());
}

#[test]
fn an_idle_application_teaches_nothing() {
    let limit = Gradient2::new(20, 200, 1.5);
    for _ in 0..1000 {
        limit.sample(10 * MS, 3);
    }
    assert_eq!(limit.limit(), 20);
}
