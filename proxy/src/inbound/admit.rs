//! Whether a request is let through to the application: rate limits by the caller's proven identity, and the concurrency.

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Response};
use tokio::time::Instant;

use super::budget;
use crate::admission::{Ask, Decision, Gate, Held, Refused, Report, Served, retry_after};
use crate::error::Reason;
use crate::http::arrival::Arrived;
use crate::http::clock::Deadline;
use crate::http::exchange::Exchange;
use crate::http::response::ResponseBody;
use crate::identity::SpiffeId;
use crate::policy::InboundPort;
use crate::policy::matching::RequestFacts;
use crate::telemetry::access_log::Turn;

/// A request that was let through.
pub(super) struct Admitted {
    pub(super) exchange: Box<Exchange>,
    /// What its response is to say of its rate limits.
    pub(super) report: Option<Report>,
    /// It has waited until another one had ended, in front of a batch.
    pub(super) queued: bool,
}

/// Lets a request through, perhaps after a wait, or answers it.
pub(super) async fn admit(
    port: &InboundPort,
    request: &Arrived,
    caller: Option<&SpiffeId>,
    mut exchange: Box<Exchange>,
) -> Result<Admitted, Response<ResponseBody>> {
    let mut report = None;
    if let Some(limits) = &port.rate_limits {
        let subject = budget::subject(port, request, caller);
        match limits.decide(&facts(port, request), &subject) {
            Decision::Allowed(allowed) => report = allowed,
            Decision::Refused(limit, report) => {
                let detail = format!(
                    "more than the limit {:?} of {} allows: {} in {:?}",
                    limit.name,
                    limit.policy,
                    limit.rate.requests(),
                    limit.rate.per()
                );
                return Err(exchange.fail_with(
                    Reason::RateLimited,
                    &detail,
                    |headers: &mut HeaderMap| {
                        report.write(headers);
                        headers.insert(RETRY_AFTER, HeaderValue::from(report.retry_after()));
                    },
                ));
            }
        }
        if !limits.budgets.is_empty() {
            let facts = facts(port, request);
            match budget::reserve(limits, &facts, &subject, request, &mut exchange) {
                Ok(of_tokens) => report = report.or(of_tokens),
                Err(refused) => return Err(refused.answer(exchange)),
            }
        }
    }
    let mut queued = false;
    if let Some(gate) = &port.gate
        && !(gate.is_by_batch() && is_free(request))
    {
        match enter(port, gate, request, caller, &mut exchange).await {
            Ok(served) => {
                queued = served.was_queued() && gate.is_by_batch();
                exchange.hold(Held::Served(served));
            }
            Err(Refused { limit, wait }) => {
                let detail = format!(
                    "the application of {} has as much to do as it can: {}",
                    port.service,
                    limit.as_str()
                );
                if let Some(wait) = wait {
                    return Err(exchange.fail_busy(&detail, wait));
                }
                let wait = retry_after(gate);
                return Err(exchange.fail_with(
                    Reason::Overloaded,
                    &detail,
                    |headers: &mut HeaderMap| {
                        headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs()));
                    },
                ));
            }
        }
    }
    Ok(Admitted {
        exchange,
        report,
        queued,
    })
}

async fn enter(
    port: &InboundPort,
    gate: &Arc<Gate>,
    request: &Arrived,
    caller: Option<&SpiffeId>,
    exchange: &mut Exchange,
) -> Result<Served, Refused> {
    let headers = &request.head.headers;
    let priority = gate.priority(|priorities| priorities.of(caller, headers));
    let deadline = Deadline::after(exchange.started(), request.timeout, Reason::Overloaded);
    let came = Instant::now();
    let mut ask = Ask {
        priority,
        deadline: deadline.map(|deadline| deadline.at),
        ..Ask::default()
    };
    if let Some((batch, _)) = gate.settings().batch() {
        ask.share = Some((batch.caller(caller), tokens(request)));
        ask.patience = patience(port, request);
    }
    let result = gate.enter(ask).await;
    let waited = came.elapsed();
    exchange.log_turn(Turn { waited, priority });
    result
}

/// Whether no engine generates anything for it: health, metrics and lists of models, which are not to wait for answers.
fn is_free(request: &Arrived) -> bool {
    request.head.method.is_safe() && !request.upgrade
}

/// Tokens that a request is taken for where it does not say how many it wants.
const USUAL_ANSWER: u32 = 256;

/// About how much work a request is: its prompt, and as long an answer as it allows.
fn tokens(request: &Arrived) -> u32 {
    let Some(model) = &request.model else {
        return USUAL_ANSWER;
    };
    let answer = model.max_tokens.unwrap_or(USUAL_ANSWER);
    let answers = answer.saturating_mul(model.choices.max(1));
    model.prompt_tokens.unwrap_or(0).saturating_add(answers)
}

/// How long the first token of a stream may take.
fn patience(port: &InboundPort, request: &Arrived) -> Option<Duration> {
    let first_token = port.inference.as_ref()?.streams.first_token?;
    request.model.as_ref()?.stream.then_some(first_token)
}

fn facts<'a>(port: &InboundPort, request: &'a Arrived) -> RequestFacts<'a> {
    RequestFacts {
        host: request.authority.host(),
        port: port.port,
        path: request.head.uri.path(),
        query: request.head.uri.query().unwrap_or_default(),
        method: &request.head.method,
        headers: &request.head.headers,
        model: request.model.as_ref().and_then(|model| model.name()),
    }
}
