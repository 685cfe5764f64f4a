//! Arbitrary limits.

use proptest::collection::{btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::{name, route_match};
use crate::model::{
    AdaptiveAlgorithm, AdaptiveLimit, BatchLimit, CallerPriority, CountedTokens, Duration,
    EndpointLimits, LearnBatch, Limits, Priorities, Priority, Queue, RateLimit, RateLimitReport,
    RateLimitSpec, Resource, TargetRef, Throttling, TokenScope,
};

fn limit() -> impl Strategy<Value = Option<u32>> {
    of(1u32..=1_000_000)
}

fn wait(from: u64, to: u64) -> impl Strategy<Value = Option<Duration>> {
    of((from..to).prop_map(Duration::from_millis))
}

/// Fixed, adaptive or none, and what may stand beside it.
fn concurrency() -> impl Strategy<Value = Limits> {
    let queue = (
        of(1u32..1000),
        wait(1, 600_000),
        wait(1, 50),
        wait(50, 1000),
    )
        .prop_map(|(max_length, max_wait, target, interval)| Queue {
            max_length,
            max_wait,
            target,
            interval,
        });
    let words = || {
        select(vec![
            Priority::Critical,
            Priority::Default,
            Priority::Sheddable,
        ])
    };
    let identities = btree_set(
        "spiffe://outrigger\\.local/ns/[a-z]{1,3}/(sa/[a-z]|\\*)",
        0..3,
    );
    let caller =
        (identities, words(), of(words())).prop_map(|(identities, one, other)| CallerPriority {
            identities: identities.into_iter().collect(),
            priority: other.map_or(one, |other| one.max(other)),
            highest: other.map(|other| one.min(other)),
        });
    let priorities = (of("[a-z-]{1,9}"), of(0u32..=90), vec(caller, 0..3)).prop_map(
        |(header, reserved_percent, callers)| Priorities {
            header,
            reserved_percent,
            callers,
        },
    );
    let adaptive = (any::<bool>(), of((1u32..100, 0u32..900)), of(100u32..=1000)).prop_map(
        |(named, bounds, tolerance_percent)| AdaptiveLimit {
            algorithm: named.then_some(AdaptiveAlgorithm::Gradient2),
            min_limit: bounds.map(|(min, _)| min),
            max_limit: bounds.map(|(min, more)| min + more),
            tolerance_percent,
        },
    );
    let learn = (of(1u32..100), any::<bool>()).prop_map(|(start, bounded)| LearnBatch {
        start,
        max: bounded.then_some(start.unwrap_or(1) + 10),
    });
    let batch = (
        prop_oneof![(1u32..1000).prop_map(Ok), learn.prop_map(Err)],
        of(1u32..=100),
    )
        .prop_map(|(size, head_room_percent)| BatchLimit {
            size: size.ok(),
            learn: size.err(),
            head_room_percent,
        });
    let none = (None, None, None);
    let concurrency = prop_oneof![
        Just(none),
        (1u32..1000).prop_map(|fixed| (Some(fixed), None, None)),
        adaptive.prop_map(|adaptive| (None, Some(adaptive), None)),
        batch.prop_map(|batch| (None, None, Some(batch))),
    ];
    (concurrency, of(queue), of(priorities)).prop_map(
        |((concurrency, adaptive, batch), queue, priorities)| {
            // They stand beside a concurrency only.
            let is_limited = concurrency.is_some() || adaptive.is_some() || batch.is_some();
            // These play no part in front of a batch.
            let queue = queue.map(|queue| match batch {
                Some(_) => Queue {
                    target: None,
                    interval: None,
                    ..queue
                },
                None => queue,
            });
            Limits {
                concurrency,
                adaptive,
                batch,
                queue: queue.filter(|_| is_limited),
                priorities: priorities.filter(|_| is_limited),
                ..Limits::default()
            }
        },
    )
}

pub(super) fn limits() -> impl Strategy<Value = Limits> {
    let throttling =
        (of(100u32..1000), wait(1000, 3_600_000)).prop_map(|(ratio_percent, window)| Throttling {
            ratio_percent,
            window,
        });
    (
        (limit(), limit(), limit(), of(0u32..1000)),
        (limit(), limit()),
        of(throttling),
        concurrency(),
    )
        .prop_map(
            |((connections, pending, requests, retries), endpoint, throttling, servers)| Limits {
                connections,
                pending,
                requests,
                retries,
                endpoint: EndpointLimits {
                    connections: endpoint.0,
                    requests: endpoint.1,
                },
                throttling,
                ..servers
            },
        )
}

pub(super) fn rate_limit() -> impl Strategy<Value = Resource> {
    let parts = vec![
        "identity",
        "namespace",
        "path",
        "method",
        "header:X-Tenant",
        "model",
        "tenant",
    ];
    let count = select(vec![
        CountedTokens::Input,
        CountedTokens::Output,
        CountedTokens::Total,
    ]);
    let budget = (
        100u64..1_000_000,
        of(count),
        of(any::<bool>()),
        of(1u32..100),
        (any::<bool>(), of(0u64..100)),
    );
    let limit = (
        vec(route_match(), 0..2),
        subsequence(parts, 0..4),
        1u32..10_000_000,
        (10_000u64..86_400_000).prop_map(Duration::from_millis),
        of(1u32..1000),
        of(1u32..=1_000_000),
        of(budget),
    )
        .prop_map(|(matches, key, requests, per, burst, max_keys, budget)| {
            let limit = RateLimit {
                name: String::new(),
                matches,
                key: key.into_iter().map(str::to_owned).collect(),
                requests: Some(requests),
                tokens: None,
                per,
                count: None,
                scope: None,
                hard_limit: None,
                default_max_tokens: None,
                advance: None,
                burst,
                max_keys,
            };
            let Some((tokens, count, hard_limit, default_max_tokens, (shared, advance))) = budget
            else {
                return limit;
            };
            RateLimit {
                requests: None,
                burst: None,
                tokens: Some(tokens),
                count,
                hard_limit,
                default_max_tokens,
                scope: (!shared).then_some(TokenScope::Sidecar),
                advance: advance.filter(|_| shared),
                ..limit
            }
        });
    let report = of(select(vec![
        RateLimitReport::Refused,
        RateLimitReport::Always,
    ]));
    let kind = of(Just("Service".to_owned()));
    (name(), name(), (kind, name()), vec(limit, 1..4), report).prop_map(
        |(namespace, name, (kind, target), mut limits, report)| {
            for (index, limit) in limits.iter_mut().enumerate() {
                limit.name = format!("limit-{index}");
            }
            let spec = RateLimitSpec {
                target_refs: vec![TargetRef { kind, name: target }],
                limits,
                report,
            };
            Resource::new(&namespace, &name, spec)
        },
    )
}
