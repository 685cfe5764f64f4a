//! Limits and rate limits in words.

use outrigger_control_plane::model::{
    BatchLimit, CountedTokens, Limits, RateLimit, RateLimitReport, RateLimitSpec, Resource,
    TokenScope,
};

use super::route::condition_words;
use super::sheet::Sheet;
use crate::commands::get::word;

/// The lines about `spec.limits` of a service; none where nothing is limited.
pub fn limits(limits: &Limits) -> Option<String> {
    let mut lines = Vec::new();
    let list = |set: &[(&str, Option<u32>)]| {
        let set = set
            .iter()
            .filter_map(|(name, limit)| Some(format!("{name} {}", (*limit)?)));
        set.collect::<Vec<_>>().join(", ")
    };
    let service = list(&[
        ("connections", limits.connections),
        ("pending", limits.pending),
        ("requests", limits.requests),
        ("retries", limits.retries),
    ]);
    if !service.is_empty() {
        lines.push(format!("each caller: {service}"));
    }
    let endpoint = list(&[
        ("connections", limits.endpoint.connections),
        ("requests", limits.endpoint.requests),
    ]);
    if !endpoint.is_empty() {
        lines.push(format!("each caller, to each endpoint: {endpoint}"));
    }
    if let Some(throttling) = limits.throttling {
        lines.push(format!(
            "callers send at most {} requests for each 100 that were accepted in the last {}",
            throttling.ratio_percent(),
            throttling.window()
        ));
    }
    let concurrency = match (limits.concurrency, limits.adaptive, limits.batch) {
        (Some(fixed), ..) => Some(format!("{fixed} requests at a time")),
        (None, None, Some(batch)) => Some(batch_words(batch)),
        (None, Some(adaptive), _) => Some(format!(
            "{} to {} requests at a time, by {}",
            adaptive.min_limit(),
            adaptive.max_limit(),
            word(&adaptive.algorithm.unwrap_or_default())
        )),
        (None, None, None) => None,
    };
    if let Some(concurrency) = concurrency {
        lines.push(format!("each endpoint: {concurrency}"));
        lines.push(match limits.queue {
            queue if limits.batch.is_some() => {
                let queue = queue.unwrap_or_default().of_batch();
                format!(
                    "queue of {}, fair by caller; refused at once where the expected wait is above {}",
                    queue.max_length(),
                    queue.max_wait()
                )
            }
            None => "no queue: what is above is refused".to_owned(),
            Some(queue) => format!(
                "queue of {}, waits up to {} (target {}, interval {})",
                queue.max_length(),
                queue.max_wait(),
                queue.target(),
                queue.interval()
            ),
        });
    }
    if let Some(priorities) = &limits.priorities {
        lines.push(format!(
            "priority from {}; {} % for critical requests only",
            priorities.header(),
            priorities.reserved_percent()
        ));
        for caller in &priorities.callers {
            let who = if caller.identities.is_empty() {
                "everybody".to_owned()
            } else {
                caller.identities.join(", ")
            };
            let highest = match caller.highest {
                Some(highest) if highest != caller.priority => {
                    format!(", {} if asked for", word(&highest))
                }
                _ => String::new(),
            };
            lines.push(format!("  {who}: {}{highest}", word(&caller.priority)));
        }
    }
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn batch_words(batch: BatchLimit) -> String {
    let size = match (batch.size, batch.learn.unwrap_or_default()) {
        (Some(size), _) => format!("a batch of {size}"),
        (None, learn) => format!(
            "the model server's batch as it is learnt ({} until then, {} at most)",
            learn.start(),
            learn.max()
        ),
    };
    format!("{size} and {} % more at a time", batch.head_room_percent())
}

/// A `RateLimit`.
pub fn rate_limit(spec: &RateLimitSpec, own: &str, sheet: &mut Sheet) {
    let targets: Vec<String> = spec
        .target_refs
        .iter()
        .map(|target| format!("service {own}/{}", target.name))
        .collect();
    sheet.field("For", targets.join("\n"));
    sheet.field(
        "Report",
        match spec.report.unwrap_or_default() {
            RateLimitReport::Refused => "when a request was refused",
            RateLimitReport::Always => "with every response",
        },
    );
    for limit in &spec.limits {
        sheet.section(&format!("Limit \"{}\"", limit.name));
        for line in limit_lines(limit) {
            sheet.line(line);
        }
    }
}

fn limit_lines(limit: &RateLimit) -> Vec<String> {
    let mut lines = Vec::new();
    for (index, condition) in limit.matches.iter().enumerate() {
        let label = if index == 0 { "when" } else { "or" };
        lines.push(format!("{label:<10}{}", condition_words(condition)));
    }
    if limit.matches.is_empty() {
        lines.push(format!("{:<10}always", "when"));
    }
    match limit.tokens {
        Some(tokens) => lines.extend(token_lines(tokens, limit)),
        None => lines.push(format!(
            "{:<10}{} requests in {}, {} at once, at each endpoint",
            "allows",
            limit.requests.unwrap_or_default(),
            limit.per,
            limit.burst()
        )),
    }
    let key = if limit.key.is_empty() {
        "all requests together".to_owned()
    } else {
        format!(
            "each {} (up to {}; further ones share)",
            limit.key.join(" + "),
            limit.max_keys()
        )
    };
    lines.push(format!("{:<10}{key}", "counts"));
    lines
}

fn token_lines(tokens: u64, limit: &RateLimit) -> [String; 3] {
    let kind = match limit.count.unwrap_or_default() {
        CountedTokens::Input => "tokens of prompts",
        CountedTokens::Output => "tokens of answers",
        CountedTokens::Total => "tokens",
    };
    let scope = match limit.scope.unwrap_or_default() {
        TokenScope::Mesh => format!(
            "by all sidecars of the service; each may give {} away before the control plane has answered",
            limit.advance()
        ),
        TokenScope::Sidecar => "at each endpoint".to_owned(),
    };
    let end = if limit.hard_limit.unwrap_or_default() {
        "streams are ended where the tokens are"
    } else {
        "streams go on, and what they take too much is counted"
    };
    [
        format!("{:<10}{tokens} {kind} in {}", "allows", limit.per),
        format!("{:<10}{scope}", "shared"),
        format!(
            "{:<10}{} for an answer without a maximum; {end}",
            "reserves",
            limit.default_max_tokens()
        ),
    ]
}

/// The rate limits for a service, by name.
pub fn rate_limits_of<'a>(
    service: &'a Resource,
    all: &'a [Resource],
) -> impl Iterator<Item = String> + 'a {
    all.iter().filter_map(|resource| {
        let spec = resource.as_rate_limit()?;
        let is_for = resource.metadata.namespace == service.metadata.namespace
            && spec
                .target_refs
                .iter()
                .any(|target| target.name == service.metadata.name);
        let limits: Vec<String> = spec.limits.iter().map(short).collect();
        is_for.then(|| format!("{} ({})", resource.key(), limits.join(", ")))
    })
}

/// `per-caller 100/1m`.
pub fn short(limit: &RateLimit) -> String {
    match limit.tokens {
        Some(tokens) => format!("{} {tokens} tokens/{}", limit.name, limit.per),
        None => format!(
            "{} {}/{}",
            limit.name,
            limit.requests.unwrap_or_default(),
            limit.per
        ),
    }
}
