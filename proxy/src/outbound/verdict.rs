//! What the outcome of a request says of the endpoint, for outlier detection. Only its own faults count: a request that was
//! wrong, a limit that was reached or a caller that went away say nothing.

use http::{HeaderMap, Response, StatusCode};

use crate::balance::InFlight;
use crate::error::Reason;
use crate::http::headers;
use crate::pool::Failure;
use crate::resilience::outlier::Fault;

/// gRPC statuses that are the server's fault, as Envoy maps them to HTTP: UNKNOWN, INTERNAL and DATA_LOSS to 500,
/// DEADLINE_EXCEEDED to 504, UNAVAILABLE to 503.
const fn grpc_fault(status: u32) -> Option<Fault> {
    match status {
        2 | 13 | 15 => Some(Fault::Server),
        4 | 14 => Some(Fault::Gateway),
        _ => None,
    }
}

/// The response's head is here. `from_sidecar`: another sidecar sent it, whose word for the reason counts.
pub(super) fn response<B>(response: &Response<B>, from_sidecar: bool, in_flight: &mut InFlight) {
    let status = response.status();
    if status == StatusCode::TOO_MANY_REQUESTS {
        return in_flight.ignore();
    }
    if !status.is_server_error() {
        if headers::is_grpc(response.headers()) {
            trailers(response.headers(), in_flight);
        }
        return;
    }
    if from_sidecar
        && let Some(word) = response.headers().get(headers::REASON)
        && !is_fault(word.as_bytes())
    {
        return in_flight.ignore();
    }
    in_flight.fault(match status {
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            Fault::Gateway
        }
        // A method or a version that it does not have is the request's matter.
        StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED => {
            return in_flight.ignore();
        }
        _ => Fault::Server,
    });
}

/// The end of a gRPC response, or the head of one without a body.
pub(crate) fn trailers(trailers: &HeaderMap, in_flight: &mut InFlight) {
    let status = trailers
        .get("grpc-status")
        .and_then(|status| status.to_str().ok()?.parse().ok());
    if let Some(fault) = status.and_then(grpc_fault) {
        in_flight.fault(fault);
    }
}

/// There is no response.
pub(crate) fn failure(failure: &Failure, in_flight: &mut InFlight) {
    match failure.reason {
        Reason::ConnectFailed | Reason::ConnectTimeout | Reason::UpstreamUntrusted => {
            in_flight.fault(Fault::Connect);
        }
        // A connection that it had the right to close: idle, or to be replaced.
        _ if failure.stale || failure.unprocessed => in_flight.ignore(),
        Reason::UpstreamReset
        | Reason::PerTryTimeout
        | Reason::RequestTimeout
        | Reason::FirstByteTimeout
        | Reason::FirstTokenTimeout
        | Reason::ResponseHeadersTimeout => in_flight.fault(Fault::Gateway),
        _ => in_flight.ignore(),
    }
}

/// Whether what another sidecar says went wrong is the fault of what stands behind it. A sidecar that drains, or that limits
/// what it lets through, does what it should.
fn is_fault(word: &[u8]) -> bool {
    const FAULTS: [Reason; 8] = [
        Reason::ConnectFailed,
        Reason::ConnectTimeout,
        Reason::UpstreamReset,
        Reason::UpstreamTruncated,
        Reason::RequestTimeout,
        Reason::ResponseHeadersTimeout,
        Reason::UnknownService,
        Reason::NotReady,
    ];
    FAULTS
        .iter()
        .any(|reason| reason.as_str().as_bytes() == word)
}

#[cfg(test)]
mod tests;
