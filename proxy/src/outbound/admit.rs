//! Whether a service's limits let a request through, on the caller's side.

use http::{HeaderMap, Response, StatusCode};

use super::call::Call;
use super::send::Answer;
use crate::admission::{Asked, Counted, Held};
use crate::error::Reason;
use crate::http::body::Source;
use crate::http::exchange::Exchange;
use crate::http::headers;

/// Takes a place among the requests to the service, which the exchange holds until its end. `Ok(None)`: nothing is to be
/// told of how it ends.
pub(super) fn admit(call: &Call<'_>, exchange: &mut Exchange) -> Result<Option<Asked>, Reason> {
    let Some(limits) = &call.backend.upstream.limits else {
        return Ok(None);
    };
    let asked = match &limits.throttle {
        None => None,
        Some(throttle) => match throttle.ask(&mut *call.worker.rng.borrow_mut()) {
            Some(asked) => Some(asked),
            None => {
                limits.refusals.count(crate::admission::Limit::Throttling);
                return Err(Reason::Throttled);
            }
        },
    };
    let permit = limits.enter(Counted::Requests).ok_or(Reason::CircuitOpen)?;
    exchange.hold(Held::Request(permit));
    Ok(asked)
}

/// Whether the service has refused a request, or has not answered it at all.
pub(super) fn is_refused(result: &Result<Answer, Reason>) -> bool {
    match result {
        Ok(answer) => is_refusal(&answer.response),
        // Of these it knows nothing.
        Err(
            Reason::ClientGone
            | Reason::CircuitOpen
            | Reason::NotReady
            | Reason::LoopDetected
            | Reason::ProtocolMismatch,
        ) => false,
        Err(_) => true,
    }
}

/// Whether a service says by its response that it takes no more for now. For gRPC, by a response without content.
fn is_refusal(response: &Response<Source>) -> bool {
    const RESOURCE_EXHAUSTED: &str = "8";
    const UNAVAILABLE: &str = "14";
    match response.status() {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => true,
        StatusCode::OK => response
            .headers()
            .get("grpc-status")
            .is_some_and(|code| code == RESOURCE_EXHAUSTED || code == UNAVAILABLE),
        _ => false,
    }
}

/// Whether a peer's sidecar says that the caller has sent more than it may: nothing is wrong with the endpoint, and nothing is
/// known of its latency. Only a sidecar's word counts: it removes the header from what its application says.
pub(super) fn is_rate_limited(answer: &HeaderMap) -> bool {
    answer.get(headers::REASON).is_some_and(|word| {
        word == Reason::RateLimited.as_str() || word == Reason::TokenBudget.as_str()
    })
}
