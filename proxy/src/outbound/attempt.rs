//! One try: a request at one endpoint.

use std::pin::pin;

use http::header::HeaderValue;
use http::{Request, Response, Version};
use tokio::time::Instant;

use super::call::Call;
use super::outside;
use crate::balance::Endpoint;
use crate::error::Reason;
use crate::http::arrival::Arrived;
use crate::http::body::Source;
use crate::http::clock::Deadline;
use crate::http::headers;
use crate::http::replay::{RequestBody, Whole};
use crate::inference::engine::orca;
use crate::policy::Protocol;
use crate::pool::{self, Failure, Path, Target};
use crate::telemetry::Direction;
use crate::telemetry::trace::{TryEnd, Trying};

/// Sends to one endpoint, for as long as a try may take. `copy`: the body, where another try has the request's own. `end`: when
/// the caller stops waiting, if the endpoint is to be told.
pub(super) async fn try_one(
    call: &Call<'_>,
    endpoint: &Endpoint,
    copy: Option<&Whole>,
    end: Option<Instant>,
) -> Result<Response<Source>, Failure> {
    let now = Instant::now();
    let limit = Deadline::earlier(
        Deadline::after(now, call.rule.timeouts.per_try, Reason::PerTryTimeout),
        Deadline::after(now, call.first_token(), Reason::FirstTokenTimeout),
    );
    let trying = call.request.trace.as_ref().map(|it| it.try_at(endpoint));
    let mark = trying.as_ref().and_then(Trying::header);
    let sending = pin!(send_to(call, endpoint, copy, end, mark.as_ref()));
    let sent = Deadline::limit(limit, sending).await;
    let mut sent = sent.unwrap_or_else(|reason| {
        Err(Failure {
            reason,
            unprocessed: false,
            stale: false,
        })
    });
    if let Some(trying) = trying {
        trying.end(match &sent {
            Ok(response) => TryEnd::Answered(response.status()),
            Err(failure) => TryEnd::Failed(failure.reason),
        });
    }
    if let (Ok(response), Some(inference)) = (&mut sent, &call.backend.upstream.inference) {
        let counts = &call.worker.shared.metrics.load_reports;
        orca::take(inference, endpoint, counts, response.headers_mut());
    }
    sent
}

async fn send_to(
    call: &Call<'_>,
    endpoint: &Endpoint,
    copy: Option<&Whole>,
    end: Option<Instant>,
    mark: Option<&HeaderValue>,
) -> Result<Response<Source>, Failure> {
    let target = Target::endpoint(endpoint, call.backend);
    let request = call.request;
    let to = call.outside(endpoint);
    let http2 = endpoint.mtls || speaks_http2(request, call.backend.protocol);
    let path = Path {
        worker: call.worker,
        direction: Direction::Outbound,
        target: &target,
        // Of several at the same time, one speaks.
        interim: request
            .interim()
            .filter(|_| copy.is_none() && !request.upgrade),
    };
    let edited = call.edited();
    let body = || match &edited {
        Some(edited) => edited.body(),
        None => copy.map_or_else(|| request.body.body(), Whole::body),
    };
    let declared = |mut request: Request<RequestBody>| {
        if let Some(edited) = &edited {
            edited.declare(request.headers_mut());
        }
        if let Some(mark) = mark {
            let headers = request.headers_mut();
            headers.insert(headers::TRACEPARENT, mark.clone());
        }
        request
    };
    if request.upgrade {
        // The clock ends with the answer: an application would take it for one of the whole conversation.
        pool::send_for_upgrade(path, || declared(outside::http1(request, body(), None, to))).await
    } else if http2 {
        pool::send_http2(
            path,
            || {
                let mut head = declared(outside::http2(request, body(), end, to));
                if endpoint.mtls && is_prior_http2(request, call.backend.protocol) {
                    let yes = HeaderValue::from_static("1");
                    head.headers_mut().insert(headers::PRIOR_HTTP2, yes);
                }
                head
            },
            || copy.is_some() || request.body.can_repeat(),
        )
        .await
    } else {
        pool::send_http1(path, || declared(outside::http1(request, body(), end, to))).await
    }
}

/// Whether an endpoint without a sidecar is to be spoken to in HTTP/2.
pub(super) fn speaks_http2(request: &Arrived, protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Http2 | Protocol::Grpc)
        || request.grpc
        || is_prior_http2(request, protocol)
}

/// Whether the client's HTTP/2 says what the server speaks.
fn is_prior_http2(request: &Arrived, protocol: Protocol) -> bool {
    protocol == Protocol::Auto && request.head.version == Version::HTTP_2
}
