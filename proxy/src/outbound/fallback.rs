//! What answers where a backend fails: another one, or a response of our own.

use std::sync::Arc;

use http::Response;
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;

use super::call::Call;
use super::send::{self, Answer};
use super::upgrade;
use crate::error::Reason;
use crate::http::errors::Style;
use crate::http::exchange::Exchange;
use crate::http::headers;
use crate::http::response::ResponseBody;
use crate::inference::{ModelStream, Served};
use crate::policy::filters::DirectResponse;
use crate::policy::{Backend, Cause, Causes, Fallback, FallbackTo, Protocol};
use crate::resilience::outlier::Fault;
use crate::telemetry::metrics::RetryRefusal;

/// Whether the rule has a fallback for what has happened.
pub(super) fn is_wanted(call: &Call<'_>, result: &Result<Answer, Reason>) -> bool {
    let fallbacks = &call.rule.recovery.fallbacks;
    if fallbacks.is_empty() {
        return false;
    }
    let causes = causes(result);
    let wanted = |fallback: &Fallback| fallback.on.first_of_both(causes).is_some();
    fallbacks.iter().any(wanted) && !call.request.body.is_broken()
}

/// Tries the rule's fallbacks, each one at most once and in their order, until there is an answer that none of those left is
/// for. Nothing of a response has reached the client. `client_side`: the client's connection, where the request wants to change its
/// protocol.
pub(super) async fn run(
    first: Call<'_>,
    mut exchange: Box<Exchange>,
    mut result: Result<Answer, Reason>,
    client_side: Option<OnUpgrade>,
) -> Response<ResponseBody> {
    let mut call = first;
    let mut mark = None;
    let mut left = first.rule.recovery.fallbacks.iter();
    while let Some((fallback, cause)) = next(&call, &mut exchange, &mut left, &result) {
        fallback.metrics.used(cause);
        match &fallback.to {
            FallbackTo::Response(response) => {
                exchange.fall_back(&fallback.name, None);
                return reply(&call, exchange, fallback, response);
            }
            FallbackTo::Backend(backend) => {
                // What failed is not read any more, and takes no place at its service.
                give_up(result);
                exchange.release();
                exchange.fall_back(&fallback.name, Some(&backend.metrics));
                exchange.set_served(|| Served {
                    model: fallback.model.as_ref().map(|model| Arc::clone(&model.name)),
                    inference: backend.upstream.inference.clone(),
                });
                if backend.protocol == Protocol::Grpc {
                    exchange.set_style(Style::Grpc);
                }
                call = to(&first, fallback, backend);
                mark = Some(fallback);
                result = send::reach(&call, &mut exchange).await;
            }
        }
    }
    match client_side {
        Some(client_side) => upgrade::finish(&call, client_side, exchange, result, mark),
        None => send::finish(&call, exchange, result, mark),
    }
}

/// The next fallback for what has happened, and what that was.
fn next<'a>(
    call: &Call<'_>,
    exchange: &mut Exchange,
    left: &mut std::slice::Iter<'a, Fallback>,
    result: &Result<Answer, Reason>,
) -> Option<(&'a Fallback, Cause)> {
    if call.request.body.is_broken() {
        return None;
    }
    let causes = causes(result);
    for fallback in left {
        let Some(cause) = fallback.on.first_of_both(causes) else {
            continue;
        };
        if let FallbackTo::Backend(backend) = &fallback.to {
            let next = to(call, fallback, backend);
            if next.is_same(call) {
                // One of several backends or models of the rule: it has just failed.
                continue;
            }
            let why = if !call.request.body.can_repeat() {
                Some(RetryRefusal::BodyTooLarge)
            } else if !next.can_ask() {
                Some(RetryRefusal::ModelNotReplaced)
            } else {
                None
            };
            if let Some(why) = why {
                call.backend.metrics.retries.refused(why);
                exchange.log_not_retried(why.as_str());
                continue;
            }
        }
        return Some((fallback, cause));
    }
    None
}

/// The request on its way to a fallback's backend.
fn to<'a>(call: &Call<'a>, fallback: &'a Fallback, backend: &'a Backend) -> Call<'a> {
    Call {
        backend,
        since: Some(Instant::now()),
        model: fallback.model.as_ref(),
        ..*call
    }
}

/// What failed is the endpoint's fault where it is a stream without a token: nobody will look at its end.
fn give_up(result: Result<Answer, Reason>) {
    if let Ok(mut answer) = result
        && is_lost(&answer)
    {
        answer.in_flight.failed();
        answer.in_flight.fault(Fault::Gateway);
    }
}

/// Whether it is a stream that has no token, and will have none.
fn is_lost(answer: &Answer) -> bool {
    let stream = answer.response.body().model();
    stream.is_some_and(ModelStream::is_lost)
}

fn causes(result: &Result<Answer, Reason>) -> Causes {
    match result {
        Err(reason) => Causes::of_reason(*reason),
        Ok(answer) => {
            let status = answer.response.status();
            if status.is_success() {
                let lost = is_lost(answer).then_some(Cause::ModelError);
                return lost.into_iter().collect();
            }
            let word = answer.response.headers().get(headers::REASON);
            let word = word.filter(|_| answer.from_sidecar);
            let known = |word| Reason::ALL.into_iter().find(|each| word == each.as_str());
            Causes::of_response(status, word.and_then(known))
        }
    }
}

fn reply(
    call: &Call<'_>,
    exchange: Box<Exchange>,
    fallback: &Fallback,
    response: &DirectResponse,
) -> Response<ResponseBody> {
    let mut answer = response.response();
    let attempts = exchange.attempts();
    send::tell(call, attempts, Some(fallback), answer.headers_mut());
    exchange.reply(answer, None)
}
