#![allow(clippy::unwrap_used)]

use prost_types::Duration as WireDuration;
use wire::server_limits::Concurrency as From;

use super::*;

const NOTHING: Option<WireDuration> = Some(WireDuration {
    seconds: 0,
    nanos: 0,
});

fn callers(change: impl FnOnce(&mut wire::CallerLimits)) -> Result<Option<CallerLimits>, Reason> {
    let mut wire = wire::CallerLimits::default();
    change(&mut wire);
    of_callers(Some(&wire))
}

fn servers(change: impl FnOnce(&mut wire::ServerLimits)) -> Result<Option<ServerLimits>, Reason> {
    let mut wire = wire::ServerLimits {
        concurrency: Some(From::Fixed(4)),
        ..Default::default()
    };
    change(&mut wire);
    of_servers(Some(&wire))
}

#[test]
fn limits_of_callers_that_let_nothing_through_are_refused() {
    assert_eq!(of_callers(None), Ok(None));
    // No retries at all is a limit that makes sense.
    let none = callers(|wire| wire.retries = Some(0)).unwrap().unwrap();
    assert_eq!((none.retries, none.requests), (Some(0), None));
    let refused = |change: fn(&mut wire::CallerLimits)| callers(change).unwrap_err();
    for (found, field) in [
        (refused(|wire| wire.connections = Some(0)), "connections"),
        (refused(|wire| wire.pending = Some(0)), "pending"),
        (refused(|wire| wire.requests = Some(0)), "requests"),
        (
            refused(|wire| wire.endpoint_connections = Some(0)),
            "endpoint_connections",
        ),
        (
            refused(|wire| wire.endpoint_requests = Some(0)),
            "endpoint_requests",
        ),
    ] {
        assert_eq!(found, format!("limits.{field}: 0 lets nothing through"));
    }
    let throttling = |ratio_percent, window| {
        callers(|wire| {
            wire.throttling = Some(wire::Throttling {
                ratio_percent,
                window,
            });
        })
    };
    let defaults = throttling(0, None).unwrap().unwrap().throttling;
    assert_eq!(defaults, Some((2.0, Duration::from_secs(120))));
    assert_eq!(
        throttling(99, None).unwrap_err(),
        "limits.throttling.ratio_percent: 99 is below 100"
    );
    assert_eq!(
        throttling(0, NOTHING).unwrap_err(),
        "limits.throttling.window: 0.000000000 s is not above 0"
    );
}

#[test]
fn limits_of_servers_that_make_no_sense_are_refused() {
    assert_eq!(of_servers(None), Ok(None));
    let fixed = servers(|_| {}).unwrap().unwrap();
    assert_eq!(fixed.concurrency, Concurrency::Fixed(4));
    let adaptive = |change: fn(&mut wire::AdaptiveLimit)| {
        let mut wire = wire::AdaptiveLimit::default();
        change(&mut wire);
        servers(|limits| limits.concurrency = Some(From::Adaptive(wire)))
    };
    assert_eq!(
        adaptive(|_| {}).unwrap().unwrap().concurrency,
        Concurrency::Adaptive {
            min: 20,
            max: 200,
            tolerance: 1.5
        }
    );
    let queue = |change: fn(&mut wire::Queue)| {
        let mut wire = wire::Queue::default();
        change(&mut wire);
        servers(|limits| limits.queue = Some(wire))
    };
    let priorities = |change: fn(&mut wire::Priorities)| {
        let mut wire = wire::Priorities::default();
        change(&mut wire);
        servers(|limits| limits.priorities = Some(wire))
    };
    for (found, reason) in [
        (
            servers(|wire| wire.concurrency = None),
            "limits.concurrency: neither fixed, adaptive nor batch",
        ),
        (
            servers(|wire| wire.concurrency = Some(From::Fixed(0))),
            "limits.fixed: 0 lets nothing through",
        ),
        (
            adaptive(|wire| (wire.min_limit, wire.max_limit) = (30, 20)),
            "limits.adaptive.max_limit: 20 is below min_limit, 30",
        ),
        (
            adaptive(|wire| wire.tolerance_percent = 50),
            "limits.adaptive.tolerance_percent: below 100",
        ),
        (
            queue(|wire| wire.max_length = 100_001),
            "limits.queue.max_length: 100001 is above 100000",
        ),
        (
            queue(|wire| wire.max_wait = NOTHING),
            "limits.queue.max_wait: 0.000000000 s is not above 0",
        ),
        (
            priorities(|wire| wire.reserved_percent = 101),
            "limits.priorities.reserved_percent: 101 is above 100",
        ),
        (
            priorities(|wire| wire.header = "no header".into()),
            "limits.priorities.header: \"no header\" is not a header's name",
        ),
    ] {
        assert_eq!(found.unwrap_err(), reason);
    }
}

#[test]
fn rate_limits_that_make_no_sense_are_refused() {
    let good = || wire::RateLimit {
        policy: "default/limits".into(),
        name: "each".into(),
        requests: 60,
        per: Some(WireDuration {
            seconds: 60,
            nanos: 0,
        }),
        ..Default::default()
    };
    let spec = rate_limits(&[good()]).unwrap().remove(0);
    assert_eq!((spec.rate.burst(), spec.max_keys), (60, 10_000));
    let refused = |change: fn(&mut wire::RateLimit)| {
        let mut wire = good();
        change(&mut wire);
        rate_limits(&[good(), wire]).unwrap_err()
    };
    for (found, reason) in [
        (
            refused(|wire| wire.requests = 0),
            "requests: 0 lets nothing through",
        ),
        (refused(|wire| wire.per = None), "per: unset"),
        (
            refused(|wire| wire.max_keys = 1_000_001),
            "max_keys: 1000001 is above 1000000",
        ),
        (
            refused(|wire| wire.key = vec![wire::RateLimitKey::default()]),
            "key[0].of: unset",
        ),
    ] {
        assert_eq!(found, format!("rate_limits[1].{reason}"));
    }
}

#[test]
fn a_limit_by_batch_never_has_a_queue_that_stands() {
    let batch = |change: fn(&mut wire::BatchLimit)| {
        let mut wire = wire::BatchLimit::default();
        change(&mut wire);
        servers(|limits| limits.concurrency = Some(From::Batch(wire)))
    };
    let limits = batch(|_| {}).unwrap().unwrap();
    let learnt = BatchLimit {
        size: None,
        head_room: 10,
        start: 256,
        max: 1024,
    };
    assert_eq!(limits.concurrency, Concurrency::Batch(learnt));
    let queue = QueueSettings {
        max_length: 1000,
        max_wait: Duration::from_secs(5),
        target: Duration::MAX,
        interval: Duration::MAX,
    };
    assert_eq!(limits.queue, Some(queue));
    for (found, reason) in [
        (
            batch(|wire| (wire.start, wire.max) = (30, 20)),
            "limits.batch.max: 20 is below start, 30",
        ),
        (
            batch(|wire| wire.head_room_percent = 101),
            "limits.batch.head_room_percent: 101 is above 100",
        ),
    ] {
        assert_eq!(found.unwrap_err(), reason);
    }
}
