//! Sends a request to an endpoint of its backend, and to another one where that is safe or the policy says so.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, Response, StatusCode, Version};

use super::affinity::Affinity;
use super::outside;
use super::retry::{self, Next, Retries};
use super::verdict;
use crate::balance::{Endpoint, InFlight};
use crate::error::Reason;
use crate::http::arrival::Arrived;
use crate::http::body::Source;
use crate::http::clock::{self, Deadline};
use crate::http::exchange::Exchange;
use crate::http::headers;
use crate::http::response::ResponseBody;
use crate::policy::{Backend, Protocol, Rule, Upstream};
use crate::pool::{self, Failure, Path, Target};
use crate::runtime::Worker;
use crate::telemetry::Direction;

/// A request on its way to a backend.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) rule: &'a Rule,
    pub(super) backend: &'a Backend,
    pub(super) request: &'a Arrived,
    pub(super) affinity: &'a Affinity,
}

impl Call<'_> {
    /// The request clock: the policy's, or the caller's if that is shorter.
    pub(super) fn request_deadline(&self, exchange: &Exchange) -> Option<Deadline> {
        let policy = self.rule.timeouts.request;
        let caller = if self.request.grpc {
            clock::grpc_timeout(&self.request.head.headers)
        } else {
            None
        };
        let after = match (policy, caller) {
            (Some(policy), Some(caller)) => Some(policy.min(caller)),
            (policy, caller) => policy.or(caller),
        };
        Deadline::after(exchange.started(), after, Reason::RequestTimeout)
    }

    /// Until the response's head must be there, over all tries.
    pub(super) fn head_deadline(&self, exchange: &Exchange) -> Option<Deadline> {
        Deadline::earlier(
            self.request_deadline(exchange),
            Deadline::after(
                exchange.started(),
                self.rule.timeouts.response_headers,
                Reason::ResponseHeadersTimeout,
            ),
        )
    }

    /// An endpoint for the next try.
    pub(super) fn pick(&self, tried: &[Arc<Endpoint>]) -> Option<Arc<Endpoint>> {
        let endpoints = &self.backend.endpoints;
        if let Some(same) = self.affinity.same(endpoints, tried) {
            return Some(same);
        }
        let key = self.affinity.key(endpoints, self.worker, self.request);
        let mut rng = self.worker.rng.borrow_mut();
        endpoints.pick_by(key, &mut *rng, tried)
    }

    /// Tells the client by what it is known from now on.
    pub(super) fn finish(&self, headers: &mut HeaderMap) {
        let endpoints = &self.backend.endpoints;
        self.affinity.finish(self.rule, endpoints, headers);
    }

    /// Begins a try at an endpoint. `None`: it has as many requests as it may have.
    pub(super) fn begin(&self, endpoint: &Arc<Endpoint>, exchange: &Exchange) -> Option<InFlight> {
        let mut in_flight = endpoint.try_begin()?;
        // The policy's clocks: the caller's own may be shorter than any endpoint could keep.
        in_flight.answer_by(|| {
            let timeouts = &self.rule.timeouts;
            let clocks = [timeouts.request, timeouts.response_headers];
            exchange
                .started()
                .checked_add(clocks.into_iter().flatten().min()?)
        });
        Some(in_flight)
    }

    /// Whether there is an endpoint that was not tried and would be chosen.
    pub(super) fn has_others(&self, tried: &[Arc<Endpoint>]) -> bool {
        self.backend.endpoints.has_untried(tried)
    }

    /// What the endpoint's server is told of the request, where it is outside the mesh.
    pub(super) fn outside<'e>(&'e self, endpoint: &'e Endpoint) -> Option<outside::To<'e>> {
        Some(outside::To {
            outside: endpoint.outside.as_deref()?,
            service: &self.backend.upstream.service,
        })
    }

    /// Why there was no endpoint for a try.
    pub(super) fn nothing_to_pick(&self) -> Reason {
        if self.backend.endpoints.is_full() {
            Reason::CircuitOpen
        } else {
            let upstream = &self.backend.upstream;
            upstream.why_none().unwrap_or(Reason::NoEndpoints)
        }
    }

    pub(super) fn describe(&self, reason: Reason) -> String {
        let service = &self.backend.upstream.service;
        let port = self.backend.port;
        match reason {
            Reason::NoEndpoints => {
                format!("{service} port {port} has no endpoint that takes requests")
            }
            Reason::ConnectFailed => {
                format!("no endpoint of {service} port {port} accepted a connection")
            }
            Reason::ConnectTimeout => format!("no connection to {service} port {port} in time"),
            Reason::UpstreamUntrusted => {
                format!(
                    "the server reached as {service} port {port} did not prove that it may serve it"
                )
            }
            Reason::UpstreamReset => format!("{service} broke the connection before it answered"),
            Reason::RequestTimeout => format!("{service} did not answer within the request's time"),
            Reason::PerTryTimeout => format!("{service} did not answer within the time of a try"),
            Reason::ResponseHeadersTimeout => {
                format!("{service} did not begin to answer within the response-headers time")
            }
            Reason::NotReady => "the sidecar has no identity yet".into(),
            Reason::LoopDetected => {
                format!("an endpoint of {service} is one of this sidecar's own listeners")
            }
            Reason::DnsFailed => dns_failed(&self.backend.upstream),
            Reason::ClientGone => "the client went away".into(),
            Reason::UpgradeFailed => format!("{service} did not complete the change of protocol"),
            other => format!("{service}: {}", other.as_str()),
        }
    }
}

/// Which names have no address, and why.
fn dns_failed(upstream: &Upstream) -> String {
    let troubles = upstream.names.iter().filter_map(|name| {
        let (trouble, _) = name.standing().trouble.clone()?;
        Some(format!("{}: {trouble}", name.host))
    });
    troubles.collect::<Vec<_>>().join("; ")
}

/// What an endpoint answered.
struct Answer {
    response: Response<Source>,
    in_flight: InFlight,
    /// Another sidecar sent it.
    from_sidecar: bool,
}

/// Sends the request and answers the client.
pub(super) async fn send(call: Call<'_>, mut exchange: Box<Exchange>) -> Response<ResponseBody> {
    call.request.keep(retry::kept_bytes(call.rule));
    let deadline = call.head_deadline(&exchange);
    let result = {
        let trying = pin!(try_endpoints(&call, &mut exchange));
        Deadline::limit(deadline, trying).await
    };
    let answer = match result {
        Ok(Ok(answer)) => answer,
        Ok(Err(reason)) | Err(reason) => {
            let detail = call.describe(reason);
            return exchange.fail(reason, &detail);
        }
    };
    call.request.body.seal();
    let Answer {
        mut response,
        in_flight,
        from_sidecar,
    } = answer;
    headers::clean_response(response.headers_mut(), from_sidecar);
    call.finish(response.headers_mut());
    if from_sidecar {
        exchange.note_reason(response.headers());
    }
    let deadline = call.request_deadline(&exchange);
    exchange.answer(
        response,
        Some(in_flight),
        call.rule.timeouts.stream_idle,
        deadline,
    )
}

async fn try_endpoints(call: &Call<'_>, exchange: &mut Exchange) -> Result<Answer, Reason> {
    let metrics = &call.backend.metrics;
    let mut retries = Retries::new(call.worker, call.rule, metrics, &call.request.head.method);
    let mut tried = Vec::new();
    // Once: there may be no other endpoint.
    let mut chosen_again = false;
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
        if in_flight.is_late() && !std::mem::replace(&mut chosen_again, true) {
            continue;
        }
        exchange.log_attempt(endpoint.address, endpoint.identity.as_ref());
        let per_try = call.rule.timeouts.per_try;
        let limit = per_try.and_then(|per_try| {
            Deadline::after(
                tokio::time::Instant::now(),
                Some(per_try),
                Reason::PerTryTimeout,
            )
        });
        let tried_one = {
            let trying = pin!(try_one(call, &endpoint));
            Deadline::limit(limit, trying).await
        };
        let result = match tried_one {
            Ok(result) => result,
            Err(reason) => Err(Failure {
                reason,
                unprocessed: false,
                stale: false,
            }),
        };
        let from_sidecar = endpoint.mtls;
        let next = match &result {
            Ok(response) => {
                verdict::response(response, from_sidecar, &mut in_flight);
                judge(response, &mut in_flight);
                call.affinity.answered(&endpoint);
                let unprocessed = from_sidecar && is_unprocessed(response);
                if unprocessed || call.rule.retry.is_some() {
                    tried.push(endpoint);
                    let others = call.has_others(&tried);
                    retries.after_response(response, unprocessed, &call.request.body, others)
                } else {
                    Next::Stop
                }
            }
            Err(_) if call.request.body.is_broken() => return Err(Reason::ClientGone),
            Err(failure) => {
                in_flight.failed();
                verdict::failure(failure, &mut in_flight);
                tried.push(endpoint);
                let others = call.has_others(&tried);
                retries.after_failure(*failure, &call.request.body, others)
            }
        };
        match next {
            Next::Again(pause) => {
                // The response, if there was one, and its stream are given up before the pause.
                drop((result, in_flight));
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
            }
            Next::Stop => {
                if let Some(why) = retries.refused {
                    exchange.log_not_retried(why.as_str());
                }
                return match result {
                    Ok(response) => Ok(Answer {
                        response,
                        in_flight,
                        from_sidecar,
                    }),
                    Err(failure) => Err(failure.reason),
                };
            }
        }
    }
}

async fn try_one(call: &Call<'_>, endpoint: &Endpoint) -> Result<Response<Source>, Failure> {
    let target = Target::endpoint(endpoint, call.backend);
    let request = call.request;
    let to = call.outside(endpoint);
    let http2 = endpoint.mtls
        || matches!(call.backend.protocol, Protocol::Http2 | Protocol::Grpc)
        || request.grpc
        || (call.backend.protocol == Protocol::Auto && request.head.version == Version::HTTP_2);
    let path = Path {
        worker: call.worker,
        direction: Direction::Outbound,
        target: &target,
        interim: request.interim(),
    };
    if http2 {
        pool::send_http2(
            path,
            || outside::http2(request, to),
            || request.body.can_repeat(),
        )
        .await
    } else {
        pool::send_http1(path, || outside::http1(request, to)).await
    }
}

/// What the response says of the endpoint.
fn judge(response: &Response<Source>, in_flight: &mut InFlight) {
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
fn is_unprocessed(response: &Response<Source>) -> bool {
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
