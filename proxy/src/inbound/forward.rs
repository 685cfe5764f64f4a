//! Requests from a peer to the application.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use http::header::HeaderValue;
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;

use super::{admit, application, model, port};
use crate::admission::{Held, Report};
use crate::error::Reason;
use crate::http::arrival::Arrived;
use crate::http::body::Source;
use crate::http::clock::Deadline;
use crate::http::errors::Style;
use crate::http::exchange::Exchange;
use crate::http::headers;
use crate::http::interim::Interim;
use crate::http::replay::RequestBody;
use crate::http::response::ResponseBody;
use crate::http::server::{Client, Handler};
use crate::http::upgrade;
use crate::identity::SpiffeId;
use crate::inference::engine::{ask, orca};
use crate::inference::{Edited, stream};
use crate::outbound::request;
use crate::policy::{InboundPort, Protocol, Snapshot};
use crate::pool::{self, Failure, Path};
use crate::runtime::Worker;
use crate::telemetry::metrics::RequestMetrics;
use crate::telemetry::{Direction, Outcome};

/// Bytes of a request's body that are kept until the application answers, for the case that it closes a connection in the
/// moment it is used again. As on the outbound side.
const KEPT: usize = 64 * 1024;

/// Connections of the application that may turn out to be closed before one is made anew.
const STALE_TRIES: usize = 3;

/// Requests of one peer's connection.
pub(super) struct Inbound {
    client: Rc<Client>,
    /// `None`: plaintext.
    peer: Option<SpiffeId>,
    server_name: Option<Box<str>>,
    /// `x-forwarded-client-cert` for the application.
    certificate: Option<HeaderValue>,
    /// What the last request was for. Most connections ask for one thing, under one configuration.
    last: RefCell<Option<Resolved>>,
}

#[derive(Clone)]
struct Resolved {
    snapshot: Arc<Snapshot>,
    port: Arc<InboundPort>,
    metrics: Arc<RequestMetrics>,
}

impl Inbound {
    pub(super) fn new(
        client: Rc<Client>,
        peer: Option<SpiffeId>,
        server_name: Option<Box<str>>,
    ) -> Inbound {
        // A SPIFFE id has only characters that a header may have.
        let certificate = peer
            .as_ref()
            .and_then(|peer| HeaderValue::from_str(&format!("URI={peer}")).ok());
        Inbound {
            client,
            peer,
            server_name,
            certificate,
            last: RefCell::new(None),
        }
    }

    fn resolve(&self, snapshot: Arc<Snapshot>, authority: &Authority) -> Option<Resolved> {
        let mut last = self.last.borrow_mut();
        if let (Some(last), Some(_)) = (&*last, &self.server_name)
            && Arc::ptr_eq(&last.snapshot, &snapshot)
        {
            return Some(last.clone());
        }
        let port = match &self.server_name {
            Some(name) => port::by_server_name(&snapshot, name),
            None => port::by_host(&snapshot, authority.host(), authority.port_u16()),
        };
        let port = Arc::clone(port?);
        let metrics = match &*last {
            Some(last) if last.port.service == port.service => Arc::clone(&last.metrics),
            _ => {
                let peer = self.peer.as_ref().map_or("", SpiffeId::as_str);
                let metrics = &self.client.worker.shared.metrics;
                metrics.request(Direction::Inbound, &port.service, "", peer)
            }
        };
        let resolved = Resolved {
            snapshot,
            port,
            metrics,
        };
        *last = Some(resolved.clone());
        Some(resolved)
    }

    /// Finds out what the request is for.
    fn begin(
        &self,
        snapshot: Arc<Snapshot>,
        mut request: Box<Arrived>,
        exchange: &mut Exchange,
    ) -> Result<Call, (Reason, String)> {
        let Some(resolved) = self.resolve(snapshot, &request.authority) else {
            let name = self.server_name.as_deref();
            let name = name.unwrap_or(request.authority.as_str());
            return Err((
                Reason::UnknownService,
                format!("{name:?} is not served here"),
            ));
        };
        let port = resolved.port;
        exchange.set_metrics(&resolved.metrics);
        exchange.log_service(&port.service);
        if port.protocol == Protocol::Grpc {
            exchange.set_style(Style::Grpc);
        }
        if request.head.method == Method::CONNECT {
            let detail = "CONNECT goes to outbound listeners";
            return Err((Reason::MethodNotSupported, detail.into()));
        }
        if application::is_own(&self.client.worker, &port) {
            let detail = "the application's address is a listener of this sidecar";
            return Err((Reason::LoopDetected, detail.into()));
        }
        exchange.log_attempt(port.application.clone(), None);
        request.keep(KEPT);
        if self.peer.is_none() {
            // No sidecar speaks for this client, which would have to tell the truth.
            request.prior_http2 = request.head.version == Version::HTTP_2;
        }
        let client_side = if request.upgrade {
            request.head.extensions.remove::<OnUpgrade>()
        } else {
            None
        };
        Ok(Call {
            port,
            request,
            client_side,
            report: None,
            edited: None,
            queued: false,
        })
    }
}

impl Handler for Inbound {
    fn handle(
        self: Rc<Self>,
        request: Request<Source>,
        interim: Arc<Interim>,
    ) -> impl Future<Output = Response<ResponseBody>> + 'static {
        let snapshot = self.client.worker.shared.snapshot.load_full();
        let certificate = self.certificate.as_ref();
        let (arrived, mut exchange) =
            Arrived::new(&self.client, &snapshot, request, interim, certificate);
        exchange.log_peer(self.peer.as_ref());
        let begun = match arrived {
            Ok(arrived) => self.begin(snapshot, arrived, &mut exchange),
            Err(error) => Err((Reason::BadRequest, error.to_string())),
        };
        respond(self, begun, exchange)
    }

    fn client(&self) -> &Rc<Client> {
        &self.client
    }

    fn max_age(&self) -> Option<std::time::Duration> {
        let name = self.server_name.as_deref()?;
        let snapshot = self.client.worker.shared.snapshot.load();
        port::by_server_name(&snapshot, name)?.pool.max_age
    }

    fn refused(&self, reason: Reason) {
        let metrics = self.client.unknown_kind();
        metrics.begin();
        metrics.finish(&Outcome {
            status: Some(reason.status()),
            reason: Some(reason),
            ..Outcome::default()
        });
    }
}

/// A request on its way to the application.
struct Call {
    port: Arc<InboundPort>,
    request: Box<Arrived>,
    client_side: Option<OnUpgrade>,
    /// What the response is to say of rate limits.
    report: Option<Report>,
    /// What is sent in place of the caller's body.
    edited: Option<Edited>,
    /// It has waited for another one's end.
    queued: bool,
}

/// From the request to the response's head, which says how much the model server has to do.
async fn respond(
    inbound: Rc<Inbound>,
    begun: Result<Call, (Reason, String)>,
    exchange: Box<Exchange>,
) -> Response<ResponseBody> {
    let port = match &begun {
        Ok(call) if call.port.signals.is_some() => Some(Arc::clone(&call.port)),
        _ => None,
    };
    let to_peer = inbound.peer.is_some();
    let mut response = answer(inbound, begun, exchange).await;
    if let Some(port) = port
        && response.status() != StatusCode::SWITCHING_PROTOCOLS
    {
        orca::stamp(&port, to_peer, response.headers_mut());
    }
    response
}

async fn answer(
    inbound: Rc<Inbound>,
    begun: Result<Call, (Reason, String)>,
    exchange: Box<Exchange>,
) -> Response<ResponseBody> {
    let worker = &inbound.client.worker;
    match begun {
        Err((reason, detail)) => exchange.fail(reason, &detail),
        Ok(call)
            if inbound.peer.is_some()
                && call.port.signals.is_some()
                && ask::is_question(&call.request.head) =>
        {
            let mut exchange = exchange;
            exchange.unheard();
            exchange.reply(ask::answer(), None)
        }
        Ok(mut call) => {
            let mut exchange = exchange;
            if let Some(inference) = &call.port.inference {
                let caller = inbound.peer.as_ref();
                // Boxed: most services are not for models.
                let preparing = Box::pin(model::prepare(
                    worker,
                    inference,
                    caller,
                    &mut call.request,
                    &mut exchange,
                ));
                match preparing.await {
                    Ok(edited) => call.edited = edited,
                    Err((reason, detail)) => return exchange.fail(reason, &detail),
                }
            }
            let exchange = if call.port.gate.is_some() || call.port.rate_limits.is_some() {
                let caller = inbound.peer.as_ref();
                // Boxed: it may wait, and most ports have no limits.
                let admitting = Box::pin(admit::admit(&call.port, &call.request, caller, exchange));
                match admitting.await {
                    Ok(admitted) => {
                        call.report = admitted.report;
                        call.queued = admitted.queued;
                        admitted.exchange
                    }
                    Err(refused) => return refused,
                }
            } else {
                exchange
            };
            let mut exchange = exchange;
            if call.port.gate.is_none()
                && let Some(signals) = &call.port.signals
            {
                exchange.hold(Held::AtModel(signals.begin()));
            }
            if call.request.upgrade {
                return Box::pin(send_upgrade(worker, call, exchange)).await;
            }
            send(worker, &call, exchange).await
        }
    }
}

async fn send(worker: &Rc<Worker>, call: &Call, exchange: Box<Exchange>) -> Response<ResponseBody> {
    let request = &*call.request;
    let http2 = matches!(call.port.protocol, Protocol::Http2 | Protocol::Grpc)
        || request.grpc
        || (call.port.protocol == Protocol::Auto && request.prior_http2);
    let target = application::target(&call.port);
    let path = Path {
        worker,
        direction: Direction::Inbound,
        target: &target,
        interim: request.interim(),
    };
    let started = exchange.started();
    let deadline = Deadline::after(started, request.timeout, Reason::DeadlineExceeded);
    let end = deadline.map(|deadline| deadline.at);
    let body = || match &call.edited {
        Some(edited) => edited.body(),
        None => request.body.body(),
    };
    let declared = |mut request: Request<RequestBody>| {
        if let Some(edited) = &call.edited {
            edited.declare(request.headers_mut());
        }
        if call.queued {
            request.extensions_mut().insert(pool::NewConnection);
        }
        request
    };
    exchange.sends_tokens();
    let result = {
        let sending = pin!(async {
            let mut tries = 0;
            loop {
                tries += 1;
                let result = if http2 {
                    pool::send_http2(
                        path,
                        || declared(request::http2(request, body(), end)),
                        || request.body.can_repeat(),
                    )
                    .await
                } else {
                    pool::send_http1(path, || declared(request::http1(request, body(), end))).await
                };
                match result {
                    Err(failure) if tries < STALE_TRIES && call.may_repeat(failure) => {}
                    result => break result,
                }
            }
        });
        Deadline::limit(deadline, sending).await
    };
    match result {
        Ok(Ok(mut response)) => {
            request.body.seal();
            headers::clean_response(response.headers_mut(), false);
            if let Some(model) = &request.model {
                response = stream::watch(model, response);
                if let Some(meter) = exchange.meter() {
                    stream::meter(meter, model, &mut response);
                }
            }
            if let Some(report) = &call.report {
                report.write(response.headers_mut());
            }
            exchange.answer(response, None, call.port.stream_idle_timeout, deadline)
        }
        Ok(Err(Failure { reason, .. })) | Err(reason) => {
            let detail = call.describe(reason);
            exchange.fail(reason, &detail)
        }
    }
}

impl Call {
    /// Whether a connection broke in a way that says nothing about the application: one that it closed while it was idle, or
    /// a stream that it did not take.
    fn may_repeat(&self, failure: Failure) -> bool {
        let untouched = failure.unprocessed
            || (failure.stale
                && (!self.request.body.is_sent() || self.request.head.method.is_idempotent()));
        failure.reason == Reason::UpstreamReset && untouched && self.request.body.can_repeat()
    }

    fn describe(&self, reason: Reason) -> String {
        let service = &self.port.service;
        let address = &self.port.application;
        match reason {
            Reason::ConnectFailed => {
                format!("the application of {service} does not accept connections on {address}")
            }
            Reason::ConnectTimeout => {
                format!("no connection to the application of {service} on {address} in time")
            }
            Reason::UpstreamReset => {
                format!("the application of {service} broke the connection before it answered")
            }
            Reason::DeadlineExceeded => {
                format!("the application of {service} did not answer within the caller's time")
            }
            other => format!("the application of {service}: {}", other.as_str()),
        }
    }
}

/// A request that wants to change the protocol, on a connection of its own.
async fn send_upgrade(
    worker: &Rc<Worker>,
    call: Call,
    exchange: Box<Exchange>,
) -> Response<ResponseBody> {
    let idle = call.port.stream_idle_timeout;
    let target = application::target(&call.port);
    let path = Path {
        worker,
        direction: Direction::Inbound,
        target: &target,
        interim: None,
    };
    // It is about the answer; what is said after that has clocks of its own.
    let timeout = call.request.timeout;
    let deadline = Deadline::after(exchange.started(), timeout, Reason::DeadlineExceeded);
    let sent = {
        let sending = pin!(pool::send_for_upgrade(path, || {
            request::http1(&call.request, call.request.body.body(), None)
        }));
        Deadline::limit(deadline, sending).await
    };
    let mut response = match sent {
        Ok(Ok(response)) => response,
        Ok(Err(Failure { reason, .. })) | Err(reason) => {
            let detail = call.describe(reason);
            return exchange.fail(reason, &detail);
        }
    };
    call.request.body.seal();
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        headers::clean_response(response.headers_mut(), false);
        return exchange.answer(response, None, idle, deadline);
    }
    let Some(client_side) = call.client_side else {
        return exchange.fail(
            Reason::BadRequest,
            "this connection cannot change its protocol",
        );
    };
    let server_side = upgrade::of_response(&mut response);
    let (head, _) = response.into_parts();
    upgrade::join(exchange, head, client_side, server_side, None, idle)
}
