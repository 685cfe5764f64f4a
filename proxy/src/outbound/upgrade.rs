//! Requests that want to change the protocol (WebSocket): HTTP/1.1 from end to end, on connections of their own.

use std::pin::pin;
use std::sync::Arc;

use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;

use super::admit;
use super::call::Call;
use super::outside;
use super::retry::{Next, Retries};
use super::verdict;
use crate::balance::{Endpoint, InFlight};
use crate::error::Reason;
use crate::http::body::Source;
use crate::http::clock::Deadline;
use crate::http::exchange::Exchange;
use crate::http::response::ResponseBody;
use crate::http::{headers, upgrade};
use crate::pool::{self, Failure, Path, Target};
use crate::telemetry::Direction;

/// Sends the request; where the upstream agrees, the two connections become one.
pub(super) async fn send(
    call: Call<'_>,
    client_side: Option<OnUpgrade>,
    mut exchange: Box<Exchange>,
) -> Response<ResponseBody> {
    let Some(client_side) = client_side else {
        return exchange.fail(
            Reason::BadRequest,
            "this connection cannot change its protocol",
        );
    };
    if let Err(reason) = admit::admit(&call, &mut exchange) {
        return exchange.fail(reason, &call.describe(reason));
    }
    let deadline = call.head_deadline(&exchange);
    let result = {
        let trying = pin!(try_endpoints(&call, &mut exchange));
        Deadline::limit(deadline, trying).await
    };
    let (mut response, in_flight, from_sidecar) = match result {
        Ok(Ok(answer)) => answer,
        Ok(Err(reason)) | Err(reason) => {
            let detail = call.describe(reason);
            return exchange.fail(reason, &detail);
        }
    };
    call.request.body.seal();
    let idle = call.rule.timeouts.stream_idle;
    call.finish(response.headers_mut());
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
    let mut retries = Retries::new(call, None);
    let mut tried: Vec<Arc<Endpoint>> = Vec::new();
    loop {
        let Some(endpoint) = call.pick(&tried) else {
            return Err(call.nothing_to_pick());
        };
        if call.worker.is_own_outbound(endpoint.address) {
            return Err(Reason::LoopDetected);
        }
        let Some(mut in_flight) = call.begin(&endpoint, exchange) else {
            continue;
        };
        exchange.log_attempt(endpoint.address, endpoint.identity.as_ref());
        let failure = match try_one(call, &endpoint).await {
            Ok(response) => {
                verdict::response(&response, endpoint.mtls, &mut in_flight);
                in_flight.first_byte();
                call.affinity.answered(&endpoint);
                return Ok((response, in_flight, endpoint.mtls));
            }
            Err(failure) => failure,
        };
        if failure.reason != Reason::CircuitOpen {
            in_flight.failed();
            verdict::failure(&failure, &mut in_flight);
        }
        tried.push(endpoint);
        let others = call.has_others(&tried);
        match retries.after_failure(failure, others) {
            Next::Again(pause) => tokio::time::sleep(pause).await,
            Next::Stop => return Err(failure.reason),
        }
    }
}

async fn try_one(call: &Call<'_>, endpoint: &Endpoint) -> Result<Response<Source>, Failure> {
    let target = Target::endpoint(endpoint, call.backend);
    let path = Path {
        worker: call.worker,
        direction: Direction::Outbound,
        target: &target,
        interim: None,
    };
    pool::send_for_upgrade(path, || {
        let body = call.request.body.body();
        outside::http1(call.request, body, None, call.outside(endpoint))
    })
    .await
}
