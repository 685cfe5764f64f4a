#![allow(clippy::unwrap_used)]

use super::*;

fn breaker(requests: Option<u32>) -> Breaker {
    Breaker {
        limits: CallerLimits {
            requests,
            ..CallerLimits::default()
        },
        usage: Arc::default(),
        throttle: None,
        refusals: Arc::default(),
    }
}

#[test]
fn a_place_is_free_again_when_its_permit_is_dropped() {
    let limited = breaker(Some(2));
    let first = limited.enter(Counted::Requests).unwrap();
    assert!(!limited.is_open(Counted::Requests));
    let _second = limited.enter(Counted::Requests).unwrap();
    assert!(limited.is_open(Counted::Requests));
    assert!(limited.enter(Counted::Requests).is_none());
    assert_eq!(limited.refusals.get(Limit::Requests), 1);
    // What is refused leaves nothing behind, and other limits are other limits.
    assert_eq!(limited.usage.get(Counted::Requests), 2);
    let _other = limited.enter(Counted::Retries).unwrap();
    drop(first);
    assert!(limited.enter(Counted::Requests).is_some());
}

#[test]
fn a_limit_that_changes_meets_what_is_under_way() {
    let before = breaker(None);
    let held: Vec<_> = (0..5)
        .map(|_| before.enter(Counted::Requests).unwrap())
        .collect();
    let after = Breaker {
        usage: Arc::clone(&before.usage),
        ..breaker(Some(3))
    };
    assert!(after.enter(Counted::Requests).is_none());
    drop(held);
    assert_eq!(after.usage.get(Counted::Requests), 0);
    assert!(after.enter(Counted::Requests).is_some());
}

#[test]
fn threads_never_exceed_it() {
    let limited = breaker(Some(3));
    let inside = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    if let Some(_permit) = limited.enter(Counted::Requests) {
                        assert!(inside.fetch_add(1, Relaxed) < 3);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(limited.usage.get(Counted::Requests), 0);
}
