#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;

const WINDOW: Duration = Duration::from_secs(120);

proptest! {
    /// The book's formula, whatever was asked and accepted.
    #[test]
    fn probability_is_the_formula(requests in 0_u64..2000, accepted in 0.0..=1.0_f64, ratio in 1.0..5.0_f64) {
        let throttle = Throttle::new(ratio, WINDOW);
        let accepts = (requests as f64 * accepted) as u64;
        let now = 5_000_000_000_000;
        for _ in 0..requests {
            add(&throttle.slot_at(now).requests, throttle.number(now));
        }
        for _ in 0..accepts {
            add(&throttle.slot_at(now).accepts, throttle.number(now));
        }
        let (requests, accepts) = (requests as f64, accepts as f64);
        let wanted = ((requests - ratio * accepts) / (requests + 1.0)).max(0.0);
        let found = throttle.probability_at(now);
        prop_assert!((found - wanted).abs() < 1e-9);
        prop_assert!((0.0..1.0).contains(&found));
        // All of it is forgotten after the window.
        prop_assert_eq!(throttle.probability_at(now + nanos(WINDOW)), 0.0);
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_sends_twice_what_is_accepted() {
    let throttle = Arc::new(Throttle::new(2.0, WINDOW));
    let mut rng = SmallRng::seed_from_u64(4);
    // 100 requests a second, of which the service takes 10.
    let mut sent = 0;
    for second in 0..240 {
        let mut room = 10;
        for _ in 0..100 {
            tokio::time::advance(Duration::from_millis(10)).await;
            let Some(mut asked) = throttle.ask(&mut rng) else {
                continue;
            };
            sent += u32::from(second >= 120);
            if room == 0 {
                asked.refused();
            }
            room = u32::saturating_sub(room, 1);
        }
    }
    // 120 seconds, 10 accepted in each: about 20 sent, of 100.
    assert!((2000..3000).contains(&sent), "{sent}");
    // The service is back: some requests got through to find that out, and soon all do.
    for _ in 0..2 * 120 * 100 {
        tokio::time::advance(Duration::from_millis(10)).await;
        throttle.ask(&mut rng);
    }
    assert_eq!(throttle.probability(), 0.0);
}

#[test]
fn a_slow_service_is_not_one_that_refuses() {
    let throttle = Arc::new(Throttle::new(2.0, WINDOW));
    let mut rng = SmallRng::seed_from_u64(4);
    let under_way: Vec<_> = (0..1000).map(|_| throttle.ask(&mut rng).unwrap()).collect();
    assert_eq!(throttle.probability(), 0.0);
    for mut asked in under_way {
        asked.refused();
    }
    assert!(throttle.probability() > 0.99);
}

#[test]
fn a_request_that_was_given_up_is_no_refusal() {
    let throttle = Arc::new(Throttle::new(2.0, WINDOW));
    let mut rng = SmallRng::seed_from_u64(4);
    for _ in 0..1000 {
        drop(throttle.ask(&mut rng).unwrap());
    }
    assert_eq!(throttle.probability(), 0.0);
}
