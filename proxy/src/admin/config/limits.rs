//! Limits, and what is in use of them.

use serde_json::{Map, Value, json};

use super::millis;
use crate::admission::{Breaker, Counted, Gate, RateLimits};

/// Those of calls to a service.
pub(super) fn of_callers(breaker: &Breaker) -> Value {
    let mut shown = Map::new();
    for counted in Counted::ALL {
        let limit =
            json!({ "limit": breaker.limit(counted), "in_use": breaker.usage.get(counted) });
        shown.insert(counted.limit().as_str().to_owned(), limit);
    }
    json!({
        "service": shown,
        "endpoint": {
            "connections": breaker.limits.endpoint_connections,
            "requests": breaker.limits.endpoint_requests,
        },
        "throttling": breaker.limits.throttling.map(|(ratio, window)| json!({
            "ratio": ratio,
            "window_ms": millis(window),
            "probability": breaker.throttle.as_ref().map(|throttle| throttle.probability()),
        })),
    })
}

/// That of an application.
pub(super) fn concurrency(gate: &Gate) -> Value {
    let settings = gate.settings();
    let limits = &settings.limits;
    let priorities = limits.priorities.as_ref().map(|priorities| {
        let callers = priorities.callers.iter().map(|caller| {
            json!({
                "identities": caller.identities.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "priority": caller.priority.as_str(),
                "highest": caller.highest.as_str(),
            })
        });
        json!({
            "header": priorities.header.as_str(),
            "reserved_percent": priorities.reserved,
            "callers": callers.collect::<Vec<_>>(),
        })
    });
    json!({
        "concurrency": settings.limit(),
        "batch": settings.batch().map(|(batch, limit)| {
            let (size, source) = batch.size(limit);
            json!({
                "size": size,
                "source": source.as_str(),
                "head_room_percent": limit.head_room,
                "turn_ms": batch.turn().map(|turn| (turn.as_secs_f64() * 1e6).round() / 1e3),
            })
        }),
        "in_use": gate.in_use(),
        "waiting": gate.waiting(),
        "queue": limits.queue.map(|queue| json!({
            "max_length": queue.max_length,
            "max_wait_ms": millis(queue.max_wait),
            // In front of a batch there is no such thing.
            "target_ms": settings.batch().is_none().then(|| millis(queue.target)),
            "interval_ms": settings.batch().is_none().then(|| millis(queue.interval)),
        })),
        "priorities": priorities,
    })
}

/// Those of a port.
pub(super) fn rate_limits(limits: &RateLimits) -> Value {
    let limit = |limit: &crate::admission::RateLimit| {
        json!({
            "policy": &*limit.policy,
            "name": &*limit.name,
            "matches": limit.matches.iter().map(super::condition).collect::<Vec<_>>(),
            "requests": limit.rate.requests(),
            "per_ms": millis(limit.rate.per()),
            "burst": limit.rate.burst(),
            "allowed": limit.counts.allowed(),
            "refused": limit.counts.refused(),
        })
    };
    let budget = |budget: &std::sync::Arc<crate::admission::TokenBudget>| {
        json!({
            "policy": &*budget.policy,
            "name": &*budget.name,
            "matches": budget.matches.iter().map(super::condition).collect::<Vec<_>>(),
            "tokens": budget.tokens,
            "per_ms": millis(budget.per),
            "count": budget.counted.as_str(),
            "scope": if budget.shared { "mesh" } else { "sidecar" },
            "hard_limit": budget.hard_limit,
            "default_max_tokens": budget.default_max_tokens,
            "advance": budget.advance,
            "allowed": budget.counts.allowed(),
            "refused": budget.counts.refused(),
            "spent_tokens": budget.counts.spent(),
        })
    };
    let budgets = limits.budgets.iter().map(budget);
    limits.limits.iter().map(limit).chain(budgets).collect()
}
