//! Requests that want to change the protocol (WebSocket): HTTP/1.1 from end to end, on connections of their own.

use std::sync::Arc;

use http::{Request, Response, StatusCode};

use super::request;
use super::retry::{Next, Retries};
use super::send::Call;
use crate::balance::{Endpoint, InFlight};
use crate::error::Reason;
use crate::http::body::Source;
use crate::http::clock::Deadline;
use crate::http::exchange::{Exchange, ResponseBody};
use crate::http::replay::RequestBody;
use crate::http::{headers, upgrade};
use crate::pool::{self, Failure, Target};
use crate::telemetry::Direction;

/// Sends the request; where the upstream agrees, the two connections become one.
pub(super) async fn send(
    mut call: Call<'_>,
    mut exchange: Box<Exchange>,
) -> Response<ResponseBody> {
    let Some(client_side) = call.head.extensions.remove::<hyper::upgrade::OnUpgrade>() else {
        return exchange.fail(
            Reason::BadRequest,
            "this connection cannot change its protocol",
        );
    };
    let deadline = call.head_deadline(&exchange);
    let trying = try_endpoints(&call, &mut exchange);
    let (mut response, in_flight, from_sidecar) = match Deadline::limit(deadline, trying).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(reason)) | Err(reason) => {
            let detail = call.describe(reason);
            return exchange.fail(reason, &detail);
        }
    };
    call.body.seal();
    let idle = call.rule.timeouts.stream_idle;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let server_side = upgrade::of_response(&mut response);
        let (head, _) = response.into_parts();
        return upgrade::join(
            exchange,
            head,
            client_side,
            server_side,
            Some(in_flight),
            idle,
        );
    }
    // A plain answer: the upstream does not want to.
    headers::clean_response(response.headers_mut(), from_sidecar);
    let deadline = call.request_deadline(&exchange);
    exchange.answer(response, Some(in_flight), idle, deadline)
}

async fn try_endpoints(
    call: &Call<'_>,
    exchange: &mut Exchange,
) -> Result<(Response<Source>, InFlight, bool), Reason> {
    let metrics = &call.backend.metrics;
    let mut retries = Retries::new(call.worker, call.rule, metrics, &call.head.method);
    let mut tried: Vec<Arc<Endpoint>> = Vec::new();
    loop {
        let Some(endpoint) = call.pick(&tried) else {
            return Err(Reason::NoEndpoints);
        };
        if call.worker.is_own_outbound(endpoint.address) {
            return Err(Reason::LoopDetected);
        }
        exchange.log_attempt(endpoint.address, endpoint.identity.as_ref());
        let mut in_flight = endpoint.begin();
        let failure = match try_one(call, &endpoint).await {
            Ok(response) => {
                in_flight.first_byte();
                return Ok((response, in_flight, endpoint.mtls));
            }
            Err(failure) => failure,
        };
        in_flight.failed();
        tried.push(endpoint);
        let others = call.has_others(&tried);
        match retries.after_failure(failure, &call.body, others) {
            Next::Again(pause) => tokio::time::sleep(pause).await,
            Next::Stop => return Err(failure.reason),
        }
    }
}

async fn try_one(call: &Call<'_>, endpoint: &Endpoint) -> Result<Response<Source>, Failure> {
    let target = Target::endpoint(endpoint, call.backend);
    let mut send = pool::open_for_upgrade(call.worker, Direction::Outbound, target).await?;
    let request: Request<RequestBody> =
        request::http1(&call.head, &call.authority, call.body.body());
    match send.send_request(request).await {
        Ok(response) => Ok(response.map(|incoming| Source::http1(incoming, None))),
        Err(_) => Err(Failure {
            reason: Reason::UpstreamReset,
            unprocessed: false,
            stale: false,
        }),
    }
}
