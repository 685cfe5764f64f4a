//! What both sides do with a request before they look where it goes.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderValue;
use http::request::Parts;
use http::uri::{Authority, Scheme};
use http::{Request, Version};

use super::authority::{self, InvalidAuthority};
use super::body::Source;
use super::deadline;
use super::errors::Style;
use super::exchange::Exchange;
use super::headers;
use super::interim::Interim;
use super::replay::Replay;
use super::server::Client;
use crate::balance::Endpoint;
use crate::inference::ModelRequest;
use crate::policy::Snapshot;
use crate::telemetry::Direction;
use crate::telemetry::trace::{self, Trace};

/// A request whose head is clean. Boxed once: what waits for an upstream holds a pointer, not half a kilobyte.
pub(crate) struct Arrived {
    pub(crate) head: Parts,
    pub(crate) authority: Authority,
    pub(crate) body: Replay,
    /// It wants to change the protocol.
    pub(crate) upgrade: bool,
    pub(crate) grpc: bool,
    /// The client's sidecar says that its client speaks HTTP/2, see [`headers::PRIOR_HTTP2`].
    pub(crate) prior_http2: bool,
    /// How long the caller is going to wait.
    pub(crate) timeout: Option<Duration>,
    /// The caller wants to know how often its request was sent.
    pub(crate) wants_attempts: bool,
    /// What it asks of a model, where its service has inference on.
    pub(crate) model: Option<Box<ModelRequest>>,
    /// `None`: it is not sampled.
    pub(crate) trace: Option<Rc<Trace>>,
    interim: Arc<Interim>,
}

impl Arrived {
    /// Takes a request in: cleans its head, gives it an id, and begins to count it. `certificate`: what the application is to
    /// be told of the caller.
    pub(crate) fn new(
        client: &Rc<Client>,
        snapshot: &Snapshot,
        request: Request<Source>,
        interim: Arc<Interim>,
        certificate: Option<&HeaderValue>,
    ) -> (Result<Box<Arrived>, InvalidAuthority>, Box<Exchange>) {
        let (mut head, source) = request.into_parts();
        let upgrade = headers::wanted_upgrade(&head.headers);
        let found = headers::clean_request(&mut head.headers, upgrade.as_ref());
        let mut rng = client.worker.rng.borrow_mut();
        headers::ensure_request_id(&mut head.headers, found, &mut *rng);
        let trace = snapshot.mesh.tracing.as_deref().and_then(|tracing| {
            // Who has a certificate has a sidecar, which has decided.
            let may_begin = certificate.is_none();
            let headers = &mut head.headers;
            trace::begin(tracing, found.traceparent, may_begin, headers, &mut *rng)
        });
        drop(rng);
        if client.direction == Direction::Inbound
            && let Some(number) = found.continuation
        {
            let number = HeaderValue::from(u16::from(number));
            head.headers.insert(headers::CONTINUATION, number);
        }
        if let Some(certificate) = certificate {
            let certificate = certificate.clone();
            head.headers.insert(headers::CLIENT_CERT, certificate);
        }

        let style = Style::of(&head.headers, head.uri.path(), None);
        let grpc = style == Style::Grpc;
        let timeout = if grpc {
            deadline::grpc_timeout(&head.headers)
        } else if found.timeout {
            deadline::http_timeout(&head.headers)
        } else {
            None
        };
        let body = Replay::new(source);
        let mut exchange = Exchange::begin(client, &head.method, style, body.clone());
        let protocol = match head.version {
            _ if upgrade.is_some() => "upgrade",
            _ if grpc => "grpc",
            Version::HTTP_2 => "h2",
            _ => "http/1.1",
        };
        exchange.set_trace(trace.clone());
        exchange.log_request(snapshot.mesh.access_log, protocol, &head);

        let arrived = authority::of(&head).map(|authority| {
            Box::new(Arrived {
                head,
                authority,
                body,
                upgrade: upgrade.is_some(),
                grpc,
                prior_http2: found.prior_http2,
                timeout,
                wants_attempts: found.attempts,
                model: None,
                trace,
                interim,
            })
        });
        (arrived, exchange)
    }

    /// Whether the client asks for TLS, as clients of plain proxies do with an absolute `https` URI, and this endpoint would get the
    /// request without. In HTTP/2 every request has a scheme, which says what the first client spoke: there it counts for what
    /// leaves the mesh.
    pub(crate) fn would_lose_tls(&self, endpoint: &Endpoint) -> bool {
        let outside = endpoint.outside.as_deref();
        let protected = endpoint.mtls || outside.is_some_and(|outside| outside.tls.is_some());
        !protected
            && self.head.uri.scheme() == Some(&Scheme::HTTPS)
            && (self.head.version < Version::HTTP_2 || outside.is_some())
    }

    /// Where responses before the response go. `None`: the client cannot take any.
    pub(crate) fn interim(&self) -> Option<&Arc<Interim>> {
        (self.head.version != Version::HTTP_10).then_some(&self.interim)
    }

    /// The same request with another body, for somebody who answers nobody.
    pub(crate) fn copy(&self, source: Source) -> Box<Arrived> {
        let (mut head, ()) = Request::new(()).into_parts();
        head.method = self.head.method.clone();
        head.uri = self.head.uri.clone();
        head.version = self.head.version;
        head.headers = self.head.headers.clone();
        Box::new(Arrived {
            head,
            authority: self.authority.clone(),
            body: Replay::new(source),
            upgrade: false,
            grpc: self.grpc,
            prior_http2: self.prior_http2,
            timeout: None,
            wants_attempts: false,
            model: None,
            trace: None,
            interim: Arc::clone(&self.interim),
        })
    }

    /// Keeps up to so many bytes of the body for another try.
    pub(crate) fn keep(&self, cap: usize) {
        let length = headers::content_length(&self.head.headers);
        self.body.keep(cap, length);
    }
}
