//! Sends a request to an endpoint of its backend, and to another one where that is safe or the policy says so.

use std::pin::pin;
use std::sync::Arc;

use http::header::HeaderValue;
use http::{HeaderMap, Response, StatusCode};
use tokio::time::Instant;

use super::call::Call;
use super::first_token::{LOST, first_token};
use super::moves::{self, Moves};
use super::retry::{self, Next, Retries};
use super::{admit, attempt, continuation, fallback, hedge, verdict};
use crate::balance::{Endpoint, InFlight};
use crate::error::Reason;
use crate::http::body::Source;
use crate::http::clock::Deadline;
use crate::http::exchange::Exchange;
use crate::http::headers;
use crate::http::response::ResponseBody;
use crate::inference::ModelStream;
use crate::policy::Fallback;
use crate::pool::Failure;
use crate::resilience::outlier::Fault;

/// What an endpoint answered.
pub(super) struct Answer {
    pub(super) response: Response<Source>,
    pub(super) in_flight: InFlight,
    /// Another sidecar sent it.
    pub(super) from_sidecar: bool,
    /// Who gives it, where somebody may have to go on with it.
    pub(super) served: Option<Arc<Endpoint>>,
}

/// Sends the request and answers the client.
pub(super) async fn send(call: Call<'_>, mut exchange: Box<Exchange>) -> Response<ResponseBody> {
    call.request.keep(retry::kept_bytes(call.rule));
    let result = reach(&call, &mut exchange).await;
    if fallback::is_wanted(&call, &result) {
        return Box::pin(fallback::run(call, exchange, result, None)).await;
    }
    finish(&call, exchange, result, None)
}

/// Gets an answer of the call's backend.
pub(super) async fn reach(call: &Call<'_>, exchange: &mut Exchange) -> Result<Answer, Reason> {
    if call.is_unknown_model() {
        return Err(Reason::UnknownModel);
    }
    let mut asked = admit::admit(call, exchange)?;
    let result = ask(call, exchange).await;
    if let Some(asked) = &mut asked
        && admit::is_refused(&result)
    {
        asked.refused();
    }
    result
}

async fn ask(call: &Call<'_>, exchange: &mut Exchange) -> Result<Answer, Reason> {
    let deadline = call.head_deadline(exchange);
    let result = {
        let trying = pin!(try_endpoints(call, exchange, deadline));
        Deadline::limit(deadline, trying).await
    };
    let mut answer = result.unwrap_or_else(Err)?;
    if call.rule.timeouts.first_byte.is_some() {
        let deadline = call.first_byte_deadline(exchange);
        let began = {
            let waiting = pin!(first_byte(&mut answer.response));
            Deadline::limit(deadline, waiting).await
        };
        if let Err(reason) = began.unwrap_or_else(Err) {
            answer.in_flight.failed();
            answer.in_flight.fault(Fault::Gateway);
            return Err(reason);
        }
    }
    Ok(answer)
}

/// Answers the client. `mark`: the fallback that the answer comes from.
pub(super) fn finish(
    call: &Call<'_>,
    mut exchange: Box<Exchange>,
    result: Result<Answer, Reason>,
    mark: Option<&Fallback>,
) -> Response<ResponseBody> {
    let attempts = exchange.attempts();
    let mut response = match result {
        Err(reason) => {
            let detail = call.describe(reason);
            exchange.fail(reason, &detail)
        }
        Ok(answer) => {
            call.request.body.seal();
            let Answer {
                mut response,
                in_flight,
                from_sidecar,
                served,
            } = answer;
            headers::clean_response(response.headers_mut(), from_sidecar);
            call.finish(response.headers_mut());
            if from_sidecar {
                exchange.note_reason(response.headers());
            }
            let (response, in_flight) =
                continuation::watch(call, &mut exchange, response, in_flight, served);
            let deadline = call.body_deadline(&exchange);
            let idle = call.rule.timeouts.stream_idle;
            exchange.answer(response, in_flight, idle, deadline)
        }
    };
    tell(call, attempts, mark, response.headers_mut());
    response
}

/// Tells the client how often its request was sent, if it may know, and which fallback answered.
pub(super) fn tell(
    call: &Call<'_>,
    attempts: u32,
    mark: Option<&Fallback>,
    headers: &mut HeaderMap,
) {
    if call.rule.recovery.expose_attempts || call.request.wants_attempts {
        headers.insert(headers::ATTEMPTS, HeaderValue::from(attempts));
    }
    if let Some(mark) = mark {
        headers.insert(headers::FALLBACK, mark.mark.clone());
        if let Some(model) = &mark.model {
            headers.insert(headers::FALLBACK_MODEL, model.mark.clone());
        }
    }
}

/// Whether the peer's sidecar has given the request up because its time is over.
fn is_too_late(response: &Response<Source>) -> bool {
    let word = response.headers().get(headers::REASON);
    word.is_some_and(|word| word == Reason::DeadlineExceeded.as_str())
}

/// Waits for the first piece of the body.
async fn first_byte(response: &mut Response<Source>) -> Result<(), Reason> {
    let body = response.body_mut();
    std::future::poll_fn(|cx| body.poll_peek(cx)).await;
    if body.is_broken() {
        return Err(Reason::UpstreamReset);
    }
    Ok(())
}

/// What came of sending to one endpoint.
pub(super) struct Tried {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) in_flight: InFlight,
    pub(super) result: Result<Response<Source>, Failure>,
}

async fn try_endpoints(
    call: &Call<'_>,
    exchange: &mut Exchange,
    deadline: Option<Deadline>,
) -> Result<Answer, Reason> {
    let end = deadline.map(|deadline| deadline.at);
    let mut retries = Retries::new(call, end);
    let mut tried = Vec::new();
    let mut moves = Moves::default();
    // Once: there may be no other endpoint.
    let mut chosen_again = false;
    loop {
        let Some(endpoint) = call.pick(&tried) else {
            return Err(call.nothing_to_pick());
        };
        if call.worker.is_own_outbound(endpoint.address) {
            return Err(Reason::LoopDetected);
        }
        if call.request.would_lose_tls(&endpoint) {
            return Err(Reason::ProtocolMismatch);
        }
        let Some(in_flight) = call.begin(&endpoint, exchange) else {
            continue;
        };
        if in_flight.is_late() && !std::mem::replace(&mut chosen_again, true) {
            continue;
        }
        exchange.log_attempt(endpoint.address, endpoint.identity.as_ref());
        let begun = Instant::now();
        let hedge = call.rule.recovery.hedge.as_ref();
        // Of two connections that changed their protocol one would have been opened for nothing.
        let hedge = hedge.filter(|hedge| {
            !call.request.upgrade && hedge.methods.contains(&call.request.head.method)
        });
        let Tried {
            endpoint,
            mut in_flight,
            mut result,
        } = match hedge {
            // Boxed: others need no room for it.
            Some(hedge) => {
                let first = (endpoint, in_flight);
                Box::pin(hedge::race(call, hedge, exchange, first, &mut tried)).await
            }
            None => {
                let end = call.end_to_tell(exchange, &endpoint);
                let result = attempt::try_one(call, &endpoint, None, end).await;
                Tried {
                    endpoint,
                    in_flight,
                    result,
                }
            }
        };
        if let Some(model) = &call.request.model
            && let Ok(response) = result
        {
            // Boxed: most services are not for models.
            result = Box::pin(first_token(call, model, response, begun, end)).await;
        }
        let from_sidecar = endpoint.mtls;
        let mut busy = None;
        let served = call
            .rule
            .recovery
            .continuation
            .as_ref()
            .map(|_| Arc::clone(&endpoint));
        let next = match &mut result {
            // The clock that it was told of is ours.
            Ok(response) if end.is_some() && from_sidecar && is_too_late(response) => {
                in_flight.failed();
                if call.is_policys_time() {
                    in_flight.fault(Fault::Gateway);
                }
                return Err(Reason::RequestTimeout);
            }
            Ok(response) => {
                verdict::response(response, from_sidecar, &mut in_flight);
                busy = moves::refused(response.headers(), from_sidecar);
                if busy.is_none() && !(from_sidecar && admit::is_rate_limited(response.headers())) {
                    judge(response, &mut in_flight);
                }
                call.affinity.answered(&endpoint);
                let unprocessed = from_sidecar && is_unprocessed(response);
                let lost = response.body().model().is_some_and(ModelStream::is_lost);
                if lost {
                    tried.push(endpoint);
                    let next = retries.after_failure(LOST, call.has_others(&tried));
                    if matches!(next, Next::Again(_)) {
                        in_flight.failed();
                        in_flight.fault(Fault::Gateway);
                    }
                    next
                } else if let Some(wait) = busy {
                    in_flight.failed_for(wait);
                    tried.push(endpoint);
                    let others = call.has_others(&tried);
                    match moves.next(&mut retries, others) {
                        Next::Stop if call.rule.retry.is_some() => {
                            busy = None;
                            retries.after_response(response, false, others)
                        }
                        next => next,
                    }
                } else if unprocessed || call.rule.retry.is_some() {
                    tried.push(endpoint);
                    let others = call.has_others(&tried);
                    retry::look_at_trailers(call, response).await;
                    retries.after_response(response, unprocessed, others)
                } else {
                    Next::Stop
                }
            }
            Err(_) if call.request.body.is_broken() => return Err(Reason::ClientGone),
            Err(failure) => {
                // Our own limits say nothing of the endpoint.
                if failure.reason != Reason::CircuitOpen {
                    in_flight.failed();
                    verdict::failure(failure, &mut in_flight);
                }
                tried.push(endpoint);
                let others = call.has_others(&tried);
                retries.after_failure(*failure, others)
            }
        };
        match next {
            Next::Again(pause) => {
                match (busy, result) {
                    (Some(wait), Ok(response)) => moves.keep(wait, response, in_flight),
                    // The response, if there was one, and its stream are given up before the pause.
                    (_, result) => drop((result, in_flight)),
                }
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
            }
            Next::Stop => {
                if let Some(why) = retries.refused {
                    exchange.log_not_retried(why.as_str());
                }
                return match result {
                    Ok(response) => {
                        let (response, in_flight) = moves.best(response, in_flight, from_sidecar);
                        Ok(Answer {
                            response,
                            in_flight,
                            from_sidecar,
                            served,
                        })
                    }
                    Err(failure) => Err(failure.reason),
                };
            }
        }
    }
}

/// What the response says of the endpoint.
pub(super) fn judge(response: &Response<Source>, in_flight: &mut InFlight) {
    match response.status() {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => match retry::retry_after(response.headers()) {
            Some(pause) => in_flight.failed_for(pause),
            None => in_flight.failed(),
        },
        _ => in_flight.first_byte(),
    }
}

/// Whether the peer's sidecar says that its application has not seen the request. Only a sidecar's word counts: it removes
/// the header from what its application says.
pub(super) fn is_unprocessed(response: &Response<Source>) -> bool {
    const UNPROCESSED: [Reason; 5] = [
        Reason::ConnectFailed,
        Reason::ConnectTimeout,
        Reason::NotReady,
        Reason::Draining,
        Reason::UnknownService,
    ];
    let word = response.headers().get(headers::REASON);
    word.is_some_and(|word| UNPROCESSED.iter().any(|reason| word == reason.as_str()))
}
