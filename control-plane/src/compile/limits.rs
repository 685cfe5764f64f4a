//! Limits and rate limits, from what users write to what sidecars read. Defaults are filled in here, once.

use std::sync::Arc;

use outrigger_proto::dataplane::v1 as wire;

use super::policy::duration;
use super::rules;
use crate::model::{self, CountedTokens, KeyPart, Limits, RateLimitReport, Resource, TokenScope};

/// The callers' part. None: nothing of it is set.
pub(super) fn of_callers(limits: Option<&Limits>) -> Option<wire::CallerLimits> {
    let limits = limits?;
    let compiled = wire::CallerLimits {
        connections: limits.connections,
        pending: limits.pending,
        requests: limits.requests,
        retries: limits.retries,
        endpoint_connections: limits.endpoint.connections,
        endpoint_requests: limits.endpoint.requests,
        throttling: limits.throttling.map(|throttling| wire::Throttling {
            ratio_percent: throttling.ratio_percent(),
            window: duration(throttling.window()),
        }),
    };
    (compiled != wire::CallerLimits::default()).then_some(compiled)
}

/// The part of the sidecars that serve it. None: there is no limit of the concurrency.
pub(super) fn of_servers(limits: Option<&Limits>) -> Option<wire::ServerLimits> {
    use wire::server_limits::Concurrency;
    let limits = limits?;
    let concurrency = match (limits.concurrency, limits.adaptive, limits.batch) {
        (Some(fixed), ..) => Concurrency::Fixed(fixed),
        (None, Some(adaptive), _) => Concurrency::Adaptive(adaptive_limit(adaptive)),
        (None, None, Some(batch)) => Concurrency::Batch(batch_limit(batch)),
        (None, None, None) => return None,
    };
    Some(wire::ServerLimits {
        queue: match concurrency {
            Concurrency::Batch(_) => Some(queue_of_batch(limits.queue.unwrap_or_default())),
            _ => limits.queue.map(queue),
        },
        concurrency: Some(concurrency),
        priorities: limits.priorities.as_ref().map(priorities),
    })
}

fn adaptive_limit(adaptive: model::AdaptiveLimit) -> wire::AdaptiveLimit {
    use wire::adaptive_limit::Algorithm;
    let algorithm = match adaptive.algorithm.unwrap_or_default() {
        model::AdaptiveAlgorithm::Gradient2 => Algorithm::Gradient2,
    };
    wire::AdaptiveLimit {
        algorithm: algorithm.into(),
        min_limit: adaptive.min_limit(),
        max_limit: adaptive.max_limit(),
        tolerance_percent: adaptive.tolerance_percent(),
    }
}

fn batch_limit(batch: model::BatchLimit) -> wire::BatchLimit {
    let learn = batch.learn.unwrap_or_default();
    wire::BatchLimit {
        size: batch.size.unwrap_or_default(),
        head_room_percent: batch.head_room_percent(),
        start: learn.start(),
        max: learn.max(),
    }
}

/// Waits are bounded before they begin: the queue has no target and no interval.
fn queue_of_batch(queue: model::Queue) -> wire::Queue {
    let queue = queue.of_batch();
    wire::Queue {
        max_length: queue.max_length(),
        max_wait: duration(queue.max_wait()),
        target: None,
        interval: None,
    }
}

fn queue(queue: model::Queue) -> wire::Queue {
    wire::Queue {
        max_length: queue.max_length(),
        max_wait: duration(queue.max_wait()),
        target: duration(queue.target()),
        interval: duration(queue.interval()),
    }
}

fn priorities(priorities: &model::Priorities) -> wire::Priorities {
    let caller = |caller: &model::CallerPriority| wire::CallerPriority {
        identities: caller.identities.clone(),
        priority: priority(caller.priority).into(),
        highest: priority(caller.highest.unwrap_or(caller.priority)).into(),
    };
    wire::Priorities {
        header: priorities.header().to_ascii_lowercase(),
        reserved_percent: priorities.reserved_percent(),
        callers: priorities.callers.iter().map(caller).collect(),
    }
}

fn priority(priority: model::Priority) -> wire::Priority {
    match priority {
        model::Priority::Critical => wire::Priority::Critical,
        model::Priority::Default => wire::Priority::Default,
        model::Priority::Sheddable => wire::Priority::Sheddable,
    }
}

/// The limits of all policies for a service, in the order of the policies' names.
pub(super) fn rate_limits(policies: &[Arc<Resource>]) -> Vec<wire::RateLimit> {
    let limits = |resource: &Arc<Resource>| -> Vec<wire::RateLimit> {
        let policy = resource.qualified_name();
        let Some(spec) = resource.as_rate_limit() else {
            return Vec::new();
        };
        let always = spec.report.unwrap_or_default() == RateLimitReport::Always;
        let limit = |limit: &model::RateLimit| wire::RateLimit {
            policy: policy.clone(),
            name: limit.name.clone(),
            matches: matches(&limit.matches),
            key: limit.key_parts().map(key_part).collect(),
            requests: limit.requests.unwrap_or_default(),
            per: duration(limit.per),
            burst: limit.burst(),
            max_keys: limit.max_keys(),
            always_report: always,
            tokens: limit.tokens.map(|tokens| token_budget(tokens, limit)),
        };
        spec.limits.iter().map(limit).collect()
    };
    policies.iter().flat_map(limits).collect()
}

fn matches(matches: &[model::RouteMatch]) -> Vec<wire::Match> {
    let mut compiled = Vec::with_capacity(matches.len());
    for each in matches {
        let each = rules::to_match(each, Vec::new(), 0);
        if each.is_empty() {
            // It matches everything, whatever the others do.
            return Vec::new();
        }
        compiled.extend(each);
    }
    compiled
}

fn token_budget(tokens: u64, limit: &model::RateLimit) -> wire::TokenBudget {
    let counted = match limit.count.unwrap_or_default() {
        CountedTokens::Input => wire::CountedTokens::Input,
        CountedTokens::Output => wire::CountedTokens::Output,
        CountedTokens::Total => wire::CountedTokens::Total,
    };
    wire::TokenBudget {
        tokens,
        counted: counted.into(),
        shared: limit.scope.unwrap_or_default() == TokenScope::Mesh,
        hard_limit: limit.hard_limit.unwrap_or_default(),
        default_max_tokens: limit.default_max_tokens(),
        advance: limit.advance(),
    }
}

fn key_part(part: KeyPart<'_>) -> wire::RateLimitKey {
    use wire::rate_limit_key::Of;
    let (of, header) = match part {
        KeyPart::Identity => (Of::Identity, ""),
        KeyPart::Namespace => (Of::Namespace, ""),
        KeyPart::Path => (Of::Path, ""),
        KeyPart::Method => (Of::Method, ""),
        KeyPart::Header(name) => (Of::Header, name),
        KeyPart::Model => (Of::Model, ""),
        KeyPart::Tenant => (Of::Tenant, ""),
    };
    wire::RateLimitKey {
        of: of.into(),
        header: header.to_ascii_lowercase(),
    }
}
