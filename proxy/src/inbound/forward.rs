//! Requests from a peer to the application.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use http::header::HeaderValue;
use http::request::Parts;
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode, Version};

use super::{application, port};
use crate::error::Reason;
use crate::http::authority;
use crate::http::body::Source;
use crate::http::errors::Style;
use crate::http::exchange::{Exchange, ResponseBody};
use crate::http::headers;
use crate::http::interim::Interim;
use crate::http::replay::Replay;
use crate::http::server::{Client, Handler};
use crate::http::upgrade;
use crate::identity::SpiffeId;
use crate::outbound::request;
use crate::policy::{InboundPort, Protocol, Snapshot};
use crate::pool::{self, Failure};
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
}

impl Handler for Inbound {
    async fn handle(
        self: Rc<Self>,
        request: Request<Source>,
        interim: Arc<Interim>,
    ) -> Response<ResponseBody> {
        let worker = &self.client.worker;
        let snapshot = worker.shared.snapshot.load_full();
        let (mut head, source) = request.into_parts();
        let upgrade = headers::wanted_upgrade(&head.headers);
        let found = headers::clean_request(&mut head.headers, upgrade.as_ref());
        headers::ensure_request_id(&mut head.headers, found, &mut *worker.rng.borrow_mut());
        if let Some(certificate) = &self.certificate {
            head.headers
                .insert(headers::CLIENT_CERT, certificate.clone());
        }

        let style = Style::of(&head.headers, head.uri.path(), None);
        let body = Replay::new(source);
        let mut exchange = Exchange::begin(&self.client, &head.method, style, body.clone());
        let protocol = match (&upgrade, style) {
            (Some(_), _) => "upgrade",
            (None, Style::Grpc) => "grpc",
            _ if head.version == Version::HTTP_2 => "h2",
            _ => "http/1.1",
        };
        exchange.log_request(snapshot.mesh.access_log, protocol, &head);
        exchange.log_peer(self.peer.as_ref());

        let authority = match authority::of(&head) {
            Ok(authority) => authority,
            Err(error) => return exchange.fail(Reason::BadRequest, &error.to_string()),
        };
        let Some(resolved) = self.resolve(snapshot, &authority) else {
            let name = self.server_name.as_deref().unwrap_or(authority.as_str());
            return exchange.fail(
                Reason::UnknownService,
                &format!("{name:?} is not served here"),
            );
        };
        let port = &resolved.port;
        exchange.set_metrics(&resolved.metrics);
        exchange.log_service(&port.service);
        exchange.set_style(Style::of(
            &head.headers,
            head.uri.path(),
            Some(port.protocol),
        ));
        if head.method == Method::CONNECT {
            return exchange.fail(
                Reason::MethodNotSupported,
                "CONNECT goes to outbound listeners",
            );
        }
        if application::is_own(worker, port) {
            return exchange.fail(
                Reason::LoopDetected,
                "the application's address is a listener of this sidecar",
            );
        }
        let length = headers::content_length(&head.headers);
        body.keep(KEPT, length);
        exchange.log_attempt(port.application, None);
        let call = Call {
            worker,
            port,
            head,
            authority,
            body,
        };
        if upgrade.is_some() {
            return Box::pin(send_upgrade(call, exchange)).await;
        }
        send(call, &interim, exchange).await
    }

    fn client(&self) -> &Rc<Client> {
        &self.client
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
struct Call<'a> {
    worker: &'a Rc<Worker>,
    port: &'a InboundPort,
    head: Parts,
    authority: Authority,
    body: Replay,
}

async fn send(
    call: Call<'_>,
    interim: &Arc<Interim>,
    exchange: Box<Exchange>,
) -> Response<ResponseBody> {
    let interim = (call.head.version != Version::HTTP_10).then_some(interim);
    let http2 = matches!(call.port.protocol, Protocol::Http2 | Protocol::Grpc)
        || headers::is_grpc(&call.head.headers);
    let target = application::target(call.port);
    let mut tries = 0;
    let result = loop {
        tries += 1;
        let body = call.body.body();
        let result = if http2 {
            let request = request::http2(&call.head, &call.authority, body);
            pool::send_http2(call.worker, Direction::Inbound, target, request, interim).await
        } else {
            let request = request::http1(&call.head, &call.authority, body);
            pool::send_http1(call.worker, Direction::Inbound, target, request, interim).await
        };
        match result {
            Err(failure) if tries < STALE_TRIES && call.may_repeat(failure) => {}
            result => break result,
        }
    };
    match result {
        Ok(mut response) => {
            call.body.seal();
            headers::clean_response(response.headers_mut(), false);
            exchange.answer(response, None, call.port.stream_idle_timeout, None)
        }
        Err(failure) => {
            let detail = call.describe(failure.reason);
            exchange.fail(failure.reason, &detail)
        }
    }
}

impl Call<'_> {
    /// Whether a connection broke in a way that says nothing about the application: one that it closed while it was idle, or
    /// a stream that it did not take.
    fn may_repeat(&self, failure: Failure) -> bool {
        let untouched = failure.unprocessed
            || (failure.stale && (!self.body.is_sent() || self.head.method.is_idempotent()));
        failure.reason == Reason::UpstreamReset && untouched && self.body.can_repeat()
    }

    fn describe(&self, reason: Reason) -> String {
        let service = &self.port.service;
        let address = self.port.application;
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
            other => format!("the application of {service}: {}", other.as_str()),
        }
    }
}

/// A request that wants to change the protocol, on a connection of its own.
async fn send_upgrade(mut call: Call<'_>, exchange: Box<Exchange>) -> Response<ResponseBody> {
    let Some(client_side) = call.head.extensions.remove::<hyper::upgrade::OnUpgrade>() else {
        return exchange.fail(
            Reason::BadRequest,
            "this connection cannot change its protocol",
        );
    };
    let idle = call.port.stream_idle_timeout;
    let target = application::target(call.port);
    let opened = pool::open_for_upgrade(call.worker, Direction::Inbound, target).await;
    let mut send = match opened {
        Ok(send) => send,
        Err(failure) => {
            let detail = call.describe(failure.reason);
            return exchange.fail(failure.reason, &detail);
        }
    };
    let request = request::http1(&call.head, &call.authority, call.body.body());
    let mut response = match send.send_request(request).await {
        Ok(response) => response.map(|incoming| Source::http1(incoming, None)),
        Err(_) => {
            let detail = call.describe(Reason::UpstreamReset);
            return exchange.fail(Reason::UpstreamReset, &detail);
        }
    };
    call.body.seal();
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let server_side = upgrade::of_response(&mut response);
        let (head, _) = response.into_parts();
        return upgrade::join(exchange, head, client_side, server_side, None, idle);
    }
    headers::clean_response(response.headers_mut(), false);
    exchange.answer(response, None, idle, None)
}
