//! Limits and rate limits.

use std::time::Duration;

use http::HeaderName;
use outrigger_proto::dataplane::v1 as wire;

use super::service::one_match;
use super::{Reason, known, list, service_name, timeout};
use crate::admission::tokens::Counted;
use crate::admission::{
    BatchLimit, CallerPriority, KeyPart, Priorities, Priority, QueueSettings, Rate,
};
use crate::policy::{CallerLimits, Concurrency, Match, ServerLimits};

/// The contract's defaults.
const THROTTLING_PERCENT: u32 = 200;
const THROTTLING_WINDOW: Duration = Duration::from_secs(120);
const MIN_LIMIT: u32 = 20;
const MAX_LIMIT: u32 = 200;
const TOLERANCE_PERCENT: u32 = 150;
const MAX_LENGTH: u32 = 100;
const MAX_WAIT: Duration = Duration::from_secs(1);
const TARGET: Duration = Duration::from_millis(5);
const INTERVAL: Duration = Duration::from_millis(100);
const HEAD_ROOM_PERCENT: u32 = 10;
const START: u32 = 256;
const MAX_BATCH: u32 = 1024;
const MAX_LENGTH_OF_BATCH: u32 = 1000;
const MAX_WAIT_OF_BATCH: Duration = Duration::from_secs(5);
const PRIORITY_HEADER: &str = "x-outrigger-priority";
const MAX_KEYS: u32 = 10_000;

/// A queue or a table that is larger is a mistake, or an attack on our memory.
const MOST_WAITING: u32 = 100_000;
const MOST_KEYS: u32 = 1_000_000;
/// Sums of budgets stay far from overflow.
const MOST_TOKENS: u64 = 1_000_000_000_000;

/// A rate limit, before it is given what it counts with.
#[derive(Clone, Debug)]
pub(in crate::control) struct RateLimitSpec {
    pub policy: std::sync::Arc<str>,
    pub name: std::sync::Arc<str>,
    pub matches: Vec<Match>,
    pub key: Vec<KeyPart>,
    pub rate: Rate,
    pub max_keys: u32,
    pub always_report: bool,
    /// It is a limit of tokens; the rate says nothing.
    pub tokens: Option<TokenSpec>,
}

/// What is special about a limit of tokens.
#[derive(Clone, Copy, Debug)]
pub(in crate::control) struct TokenSpec {
    pub tokens: u64,
    pub per: Duration,
    pub counted: Counted,
    pub shared: bool,
    pub hard_limit: bool,
    pub default_max_tokens: u32,
    pub advance: u64,
}

fn or(value: u32, default: u32) -> u32 {
    if value == 0 { default } else { value }
}

pub(super) fn of_callers(
    wire: Option<&wire::CallerLimits>,
) -> Result<Option<CallerLimits>, Reason> {
    let Some(wire) = wire else {
        return Ok(None);
    };
    for (field, limit) in [
        ("connections", wire.connections),
        ("pending", wire.pending),
        ("requests", wire.requests),
        ("endpoint_connections", wire.endpoint_connections),
        ("endpoint_requests", wire.endpoint_requests),
    ] {
        if limit == Some(0) {
            return Err(format!("limits.{field}: 0 lets nothing through"));
        }
    }
    let throttling = match &wire.throttling {
        None => None,
        Some(throttling) => {
            let percent = or(throttling.ratio_percent, THROTTLING_PERCENT);
            if percent < 100 {
                return Err(format!(
                    "limits.throttling.ratio_percent: {percent} is below 100"
                ));
            }
            let window = timeout("limits.throttling.window", throttling.window)?;
            Some((
                f64::from(percent) / 100.0,
                window.unwrap_or(THROTTLING_WINDOW),
            ))
        }
    };
    Ok(Some(CallerLimits {
        connections: wire.connections,
        pending: wire.pending,
        requests: wire.requests,
        retries: wire.retries,
        endpoint_connections: wire.endpoint_connections,
        endpoint_requests: wire.endpoint_requests,
        throttling,
    }))
}

pub(super) fn of_servers(
    wire: Option<&wire::ServerLimits>,
) -> Result<Option<ServerLimits>, Reason> {
    use wire::server_limits::Concurrency as From;
    let Some(wire) = wire else {
        return Ok(None);
    };
    let concurrency = match &wire.concurrency {
        None => return Err("limits.concurrency: neither fixed, adaptive nor batch".into()),
        Some(From::Fixed(0)) => return Err("limits.fixed: 0 lets nothing through".into()),
        Some(From::Fixed(limit)) => Concurrency::Fixed(*limit),
        Some(From::Adaptive(adaptive)) => adaptive_limit(adaptive)?,
        Some(From::Batch(batch)) => batch_limit(batch)?,
    };
    Ok(Some(ServerLimits {
        queue: match concurrency {
            Concurrency::Batch(_) => Some(queue_of_batch(wire.queue.unwrap_or_default())?),
            _ => wire.queue.as_ref().map(queue).transpose()?,
        },
        concurrency,
        priorities: wire.priorities.as_ref().map(priorities).transpose()?,
    }))
}

fn adaptive_limit(wire: &wire::AdaptiveLimit) -> Result<Concurrency, Reason> {
    use wire::adaptive_limit::Algorithm;
    known::<Algorithm>("limits.adaptive.algorithm", wire.algorithm)?;
    let (min, max) = (or(wire.min_limit, MIN_LIMIT), or(wire.max_limit, MAX_LIMIT));
    if max < min {
        return Err(format!(
            "limits.adaptive.max_limit: {max} is below min_limit, {min}"
        ));
    }
    let tolerance = f64::from(or(wire.tolerance_percent, TOLERANCE_PERCENT)) / 100.0;
    if tolerance < 1.0 {
        return Err("limits.adaptive.tolerance_percent: below 100".into());
    }
    Ok(Concurrency::Adaptive {
        min,
        max,
        tolerance,
    })
}

fn batch_limit(wire: &wire::BatchLimit) -> Result<Concurrency, Reason> {
    let (start, max) = (or(wire.start, START), or(wire.max, MAX_BATCH));
    if max < start {
        return Err(format!("limits.batch.max: {max} is below start, {start}"));
    }
    let head_room = or(wire.head_room_percent, HEAD_ROOM_PERCENT);
    if head_room > 100 {
        return Err(format!(
            "limits.batch.head_room_percent: {head_room} is above 100"
        ));
    }
    Ok(Concurrency::Batch(BatchLimit {
        size: (wire.size > 0).then_some(wire.size),
        head_room,
        start,
        max,
    }))
}

/// Waits are bounded before they begin: the queue never stands.
fn queue_of_batch(wire: wire::Queue) -> Result<QueueSettings, Reason> {
    let wire = wire::Queue {
        max_length: or(wire.max_length, MAX_LENGTH_OF_BATCH),
        target: None,
        interval: None,
        ..wire
    };
    let is_unset = wire.max_wait.is_none();
    let queue = queue(&wire)?;
    Ok(QueueSettings {
        max_wait: if is_unset {
            MAX_WAIT_OF_BATCH
        } else {
            queue.max_wait
        },
        target: Duration::MAX,
        interval: Duration::MAX,
        ..queue
    })
}

fn queue(wire: &wire::Queue) -> Result<QueueSettings, Reason> {
    let max_length = or(wire.max_length, MAX_LENGTH);
    if max_length > MOST_WAITING {
        return Err(format!(
            "limits.queue.max_length: {max_length} is above {MOST_WAITING}"
        ));
    }
    let clock = |field: &str, wire, default| {
        timeout(&format!("limits.queue.{field}"), wire).map(|clock| clock.unwrap_or(default))
    };
    Ok(QueueSettings {
        max_length: max_length as usize,
        max_wait: clock("max_wait", wire.max_wait, MAX_WAIT)?,
        target: clock("target", wire.target, TARGET)?,
        interval: clock("interval", wire.interval, INTERVAL)?,
    })
}

fn priorities(wire: &wire::Priorities) -> Result<Priorities, Reason> {
    let header = match wire.header.as_str() {
        "" => PRIORITY_HEADER,
        header => header,
    };
    if wire.reserved_percent > 100 {
        return Err(format!(
            "limits.priorities.reserved_percent: {} is above 100",
            wire.reserved_percent
        ));
    }
    Ok(Priorities {
        header: header_name("limits.priorities.header", header)?,
        reserved: wire.reserved_percent,
        callers: list(
            "limits.priorities.callers",
            &wire.callers,
            |caller: &wire::CallerPriority| {
                let own = priority("priority", caller.priority)?.unwrap_or(Priority::Default);
                Ok(CallerPriority {
                    identities: list("identities", &caller.identities, |text| {
                        text.parse().map_err(|error| format!(": {error}"))
                    })?,
                    priority: own,
                    highest: priority("highest", caller.highest)?.unwrap_or(own).min(own),
                })
            },
        )?,
    })
}

fn priority(field: &str, number: i32) -> Result<Option<Priority>, Reason> {
    Ok(match known::<wire::Priority>(field, number)? {
        wire::Priority::Unspecified => None,
        wire::Priority::Critical => Some(Priority::Critical),
        wire::Priority::Default => Some(Priority::Default),
        wire::Priority::Sheddable => Some(Priority::Sheddable),
    })
}

pub(super) fn rate_limits(wire: &[wire::RateLimit]) -> Result<Vec<RateLimitSpec>, Reason> {
    list("rate_limits", wire, |limit: &wire::RateLimit| {
        let per = timeout("per", limit.per)?.ok_or("per: unset")?;
        let tokens = limit.tokens.as_ref();
        let tokens = tokens.map(|wire| token_budget(wire, per)).transpose()?;
        if limit.requests == 0 && tokens.is_none() {
            return Err("requests: 0 lets nothing through".into());
        }
        let max_keys = or(limit.max_keys, MAX_KEYS);
        if max_keys > MOST_KEYS {
            return Err(format!("max_keys: {max_keys} is above {MOST_KEYS}"));
        }
        Ok(RateLimitSpec {
            policy: service_name("policy", &limit.policy)?,
            name: limit.name.as_str().into(),
            matches: list("matches", &limit.matches, one_match)?,
            key: list("key", &limit.key, key_part)?,
            rate: Rate::new(limit.requests, per, or(limit.burst, limit.requests)),
            max_keys,
            always_report: limit.always_report,
            tokens,
        })
    })
}

fn token_budget(wire: &wire::TokenBudget, per: Duration) -> Result<TokenSpec, Reason> {
    if wire.tokens == 0 || wire.tokens > MOST_TOKENS {
        return Err(format!(
            "tokens.tokens: {} is not from 1 to {MOST_TOKENS}",
            wire.tokens
        ));
    }
    if wire.advance > wire.tokens {
        return Err(format!(
            "tokens.advance: {} is above tokens, {}",
            wire.advance, wire.tokens
        ));
    }
    let counted = known::<wire::CountedTokens>("tokens.counted", wire.counted)?;
    Ok(TokenSpec {
        tokens: wire.tokens,
        per,
        counted: match counted {
            wire::CountedTokens::Input => Counted::Input,
            wire::CountedTokens::Output => Counted::Output,
            wire::CountedTokens::Unspecified | wire::CountedTokens::Total => Counted::Total,
        },
        shared: wire.shared,
        hard_limit: wire.hard_limit,
        default_max_tokens: wire.default_max_tokens.max(1),
        advance: wire.advance,
    })
}

fn key_part(wire: &wire::RateLimitKey) -> Result<KeyPart, Reason> {
    use wire::rate_limit_key::Of;
    Ok(match known::<Of>("of", wire.of)? {
        Of::Unspecified => return Err("of: unset".into()),
        Of::Identity => KeyPart::Identity,
        Of::Namespace => KeyPart::Namespace,
        Of::Path => KeyPart::Path,
        Of::Method => KeyPart::Method,
        Of::Header => KeyPart::Header(header_name("header", &wire.header)?),
        Of::Model => KeyPart::Model,
        Of::Tenant => KeyPart::Tenant,
    })
}

fn header_name(field: &str, name: &str) -> Result<HeaderName, Reason> {
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| format!("{field}: {name:?} is not a header's name"))
}

#[cfg(test)]
mod tests;
