//! One request from its head to its end, wherever that is: counted once, logged once.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{HOST, HeaderName};
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::body::{BodyError, Source};
use super::clock::Deadline;
use super::errors::{self, Style};
use super::headers;
use super::pump::PumpBody;
use super::replay::Replay;
use super::server::Client;
use crate::balance::InFlight;
use crate::error::Reason;
use crate::identity::SpiffeId;
use crate::policy::AccessLogMode;
use crate::telemetry::access_log::{Entry, RequestLine};
use crate::telemetry::metrics::RequestMetrics;
use crate::telemetry::{Direction, Outcome};

/// Everything that is known of a request. It ends when this is dropped: with the response's body, or with the future that
/// was to answer it.
pub(crate) struct Exchange {
    client: Rc<Client>,
    metrics: Option<Arc<RequestMetrics>>,
    started: Instant,
    first_byte: Option<Duration>,
    status: Option<StatusCode>,
    reason: Option<Reason>,
    request: Replay,
    response_bytes: u64,
    in_flight: Option<InFlight>,
    log: Option<Box<Log>>,
    log_mode: Option<AccessLogMode>,
    head: bool,
    style: Style,
    /// The response was sent to its end.
    complete: bool,
    /// Bytes from the client on an upgraded connection.
    upgraded_bytes: Option<u64>,
}

/// What only the access log wants to know.
struct Log {
    line: RequestLine,
    protocol: &'static str,
    service: Arc<str>,
    route: Arc<str>,
    upstream: Option<SocketAddr>,
    peer: Option<SpiffeId>,
    attempts: u32,
    not_retried: Option<&'static str>,
}

impl Exchange {
    pub(crate) fn begin(
        client: &Rc<Client>,
        method: &Method,
        style: Style,
        request: Replay,
    ) -> Box<Exchange> {
        client.begin();
        Box::new(Exchange {
            client: Rc::clone(client),
            metrics: None,
            started: Instant::now(),
            first_byte: None,
            status: None,
            reason: None,
            request,
            response_bytes: 0,
            in_flight: None,
            log: None,
            log_mode: None,
            head: *method == Method::HEAD,
            style,
            complete: false,
            upgraded_bytes: None,
        })
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    pub(crate) fn set_style(&mut self, style: Style) {
        self.style = style;
    }

    /// Which kind of request it is, once that is known.
    pub(crate) fn set_metrics(&mut self, metrics: &Arc<RequestMetrics>) {
        metrics.begin();
        self.metrics = Some(Arc::clone(metrics));
    }

    /// Keeps what the access log needs, unless it is off. `mode`: the mesh's setting.
    pub(crate) fn log_request(
        &mut self,
        mode: Option<AccessLogMode>,
        protocol: &'static str,
        head: &Parts,
    ) {
        let worst = Outcome {
            reason: Some(Reason::UpstreamReset),
            ..Outcome::default()
        };
        self.log_mode = mode;
        if self.client.worker.shared.access_log.enabled(mode, &worst) {
            let nothing = &self.client.worker.nothing;
            self.log = Some(Box::new(Log {
                line: request_line(head),
                protocol,
                service: Arc::clone(nothing),
                route: Arc::clone(nothing),
                upstream: None,
                peer: None,
                attempts: 0,
                not_retried: None,
            }));
        }
    }

    pub(crate) fn log_route(&mut self, service: &Arc<str>, route: &Arc<str>) {
        if let Some(log) = &mut self.log {
            log.service = Arc::clone(service);
            log.route = Arc::clone(route);
        }
    }

    pub(crate) fn log_service(&mut self, service: &Arc<str>) {
        if let Some(log) = &mut self.log {
            log.service = Arc::clone(service);
        }
    }

    pub(crate) fn log_peer(&mut self, peer: Option<&SpiffeId>) {
        if let Some(log) = &mut self.log {
            log.peer = peer.cloned();
        }
    }

    /// `peer`: who the upstream announced to be.
    pub(crate) fn log_attempt(&mut self, upstream: SocketAddr, peer: Option<&SpiffeId>) {
        if let Some(log) = &mut self.log {
            log.upstream = Some(upstream);
            log.attempts += 1;
            if self.client.direction == Direction::Outbound {
                log.peer = peer.cloned();
            }
        }
    }

    pub(crate) fn log_not_retried(&mut self, why: &'static str) {
        if let Some(log) = &mut self.log {
            log.not_retried = Some(why);
        }
    }

    /// Whether the client's side broke.
    pub(crate) fn is_client_gone(&self) -> bool {
        self.request.is_broken()
    }

    /// Ends with an answer of our own.
    pub(crate) fn fail(
        mut self: Box<Self>,
        reason: Reason,
        detail: &str,
    ) -> Response<ResponseBody> {
        let reason = if self.is_client_gone() {
            Reason::ClientGone
        } else {
            reason
        };
        self.reason = Some(reason);
        let response = errors::reply(reason, self.style, detail);
        self.status = Some(if reason == Reason::ClientGone {
            reason.status()
        } else {
            response.status()
        });
        let (head, mut body) = response.into_parts();
        if self.head {
            body = Bytes::new();
        }
        Response::from_parts(
            head,
            ResponseBody {
                content: Content::Whole(body),
                clocks: Clocks::default(),
                exchange: Some(self),
            },
        )
    }

    /// Takes over the reason that another sidecar gave for its answer.
    pub(crate) fn note_reason(&mut self, answer: &HeaderMap) {
        if let Some(word) = answer.get(headers::REASON) {
            self.reason = Reason::ALL
                .into_iter()
                .find(|reason| word == reason.as_str());
        }
    }

    /// Ends with an upstream's answer.
    pub(crate) fn answer(
        mut self: Box<Self>,
        response: Response<Source>,
        in_flight: Option<InFlight>,
        idle: Option<Duration>,
        deadline: Option<Deadline>,
    ) -> Response<ResponseBody> {
        self.status = Some(response.status());
        self.first_byte = Some(self.started.elapsed());
        self.in_flight = in_flight;
        self.client.set_patience(idle);
        response.map(|source| ResponseBody {
            content: Content::Upstream(source),
            clocks: Clocks {
                idle,
                deadline,
                ..Clocks::default()
            },
            exchange: Some(self),
        })
    }

    /// An upgrade was accepted: the client got the upstream's head, and bytes follow.
    pub(crate) fn upgraded(&mut self, status: StatusCode, in_flight: Option<InFlight>) {
        self.status = Some(status);
        self.first_byte = Some(self.started.elapsed());
        self.in_flight = in_flight;
    }

    /// The upgraded connection has ended. To be dropped then.
    pub(crate) fn end_upgraded(&mut self, up: u64, down: u64, reason: Option<Reason>) {
        self.upgraded_bytes = Some(up);
        self.response_bytes = down;
        self.reason = reason;
        self.complete = true;
    }

    fn record(&self, log: Log, outcome: Outcome) {
        let access_log = &self.client.worker.shared.access_log;
        if !access_log.enabled(self.log_mode, &outcome) {
            return;
        }
        let now = SystemTime::now();
        access_log.record(Entry {
            time: now.checked_sub(outcome.duration).unwrap_or(now),
            direction: self.client.direction,
            request: Some(log.line),
            protocol: log.protocol,
            outcome,
            service: log.service,
            route: log.route,
            upstream: log.upstream,
            peer: log.peer,
            client: Some(self.client.address),
            attempts: log.attempts,
            not_retried: log.not_retried,
        });
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.complete && self.reason.is_none() {
            self.reason = Some(self.client.cut_reason().unwrap_or(Reason::ClientGone));
        }
        if self.status.is_none() && self.reason == Some(Reason::ClientGone) {
            self.status = Some(Reason::ClientGone.status());
        }
        let outcome = Outcome {
            status: self.status,
            reason: self.reason,
            duration: self.started.elapsed(),
            first_byte: self.first_byte,
            request_bytes: self.upgraded_bytes.unwrap_or_else(|| self.request.bytes()),
            response_bytes: self.response_bytes,
        };
        match &self.metrics {
            Some(metrics) => metrics.finish(&outcome),
            None => {
                let metrics = self.client.unknown_kind();
                metrics.begin();
                metrics.finish(&outcome);
            }
        }
        if let Some(log) = self.log.take() {
            self.record(*log, outcome);
        }
        if !self.request.is_sent() && !self.request.is_broken() {
            self.client.leave_unread();
        }
        self.client.end();
    }
}

/// What the client asked for. Clones share the bytes.
fn request_line(head: &Parts) -> RequestLine {
    let header = |name: &HeaderName| head.headers.get(name).cloned();
    RequestLine {
        method: head.method.clone(),
        uri: head.uri.clone(),
        host: match head.uri.authority() {
            Some(_) => None,
            None => header(&HOST),
        },
        request_id: header(&headers::REQUEST_ID),
        traceparent: header(&headers::TRACEPARENT),
    }
}

/// A response's body on its way to the client. The exchange ends with it.
pub(crate) struct ResponseBody {
    content: Content,
    clocks: Clocks,
    /// `None` where another task has it: an upgraded connection's.
    exchange: Option<Box<Exchange>>,
}

enum Content {
    /// Of our own.
    Whole(Bytes),
    Upstream(Source),
    /// It ended before its end; the error, until it was told.
    Cut(Option<BodyError>),
}

/// What runs while a response is on its way.
#[derive(Default)]
struct Clocks {
    /// No byte either way for so long.
    idle: Option<Duration>,
    deadline: Option<Deadline>,
    /// Made when the body has to be waited for: most responses come in one piece. It is not reset with each chunk, but
    /// looks at `moved_at` when it fires.
    timer: Option<Pin<Box<Sleep>>>,
    moved_at: Option<Instant>,
    /// Bytes of the request when the timer was set.
    request_bytes: u64,
}

impl Clocks {
    /// Ready when a clock has run out.
    fn poll(&mut self, request_bytes: impl Fn() -> u64, cx: &mut Context<'_>) -> Poll<Reason> {
        if self.idle.is_none() && self.deadline.is_none() {
            return Poll::Pending;
        }
        loop {
            if self.timer.is_none() {
                let now = Instant::now();
                self.moved_at = Some(now);
                self.request_bytes = request_bytes();
                let Some(next) = self.next(now) else {
                    return Poll::Pending;
                };
                self.timer = Some(Box::pin(sleep_until(next)));
            }
            let Some(timer) = &mut self.timer else {
                return Poll::Pending;
            };
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if let Some(deadline) = self.deadline
                && deadline.at <= now
            {
                return Poll::Ready(deadline.reason);
            }
            let bytes = request_bytes();
            if bytes != self.request_bytes {
                self.request_bytes = bytes;
                self.moved_at = Some(now);
            }
            let moved_at = self.moved_at.unwrap_or(now);
            if let Some(idle) = self.idle
                && now.saturating_duration_since(moved_at) >= idle
            {
                return Poll::Ready(Reason::StreamIdleTimeout);
            }
            match (self.next(moved_at), &mut self.timer) {
                (Some(next), Some(timer)) => timer.as_mut().reset(next),
                _ => return Poll::Pending,
            }
        }
    }

    fn next(&self, moved_at: Instant) -> Option<Instant> {
        let idle = self.idle.and_then(|idle| moved_at.checked_add(idle));
        match (idle, self.deadline) {
            (Some(idle), Some(deadline)) => Some(idle.min(deadline.at)),
            (idle, deadline) => idle.or(deadline.map(|deadline| deadline.at)),
        }
    }

    /// A chunk came.
    fn moved(&mut self) {
        if self.timer.is_some() && self.idle.is_some() {
            self.moved_at = Some(Instant::now());
        }
    }
}

impl ResponseBody {
    /// No body, and nothing that ends with it.
    pub(crate) fn none() -> ResponseBody {
        ResponseBody {
            content: Content::Whole(Bytes::new()),
            clocks: Clocks::default(),
            exchange: None,
        }
    }

    /// Gives the upstream up, and the error to the client's side in its next turn: servers write what they have between two
    /// turns, and drop it when they meet an error. What came before the error was meant for the client.
    fn cut<T>(&mut self, error: BodyError, cx: &Context<'_>) -> Poll<T> {
        self.content = Content::Cut(Some(error));
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let me = &mut *self;
        let Some(exchange) = &mut me.exchange else {
            return Poll::Ready(None);
        };
        exchange.client.take();
        let source = match &mut me.content {
            Content::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                if bytes.is_empty() {
                    return Poll::Ready(None);
                }
                exchange.response_bytes += bytes.len() as u64;
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            Content::Upstream(source) => source,
            Content::Cut(error) => return Poll::Ready(error.take().map(Err)),
        };
        match Pin::new(source).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    exchange.response_bytes += data.len() as u64;
                }
                me.clocks.moved();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                exchange.complete = true;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                exchange.broke(Reason::UpstreamTruncated);
                me.cut(error, cx)
            }
            Poll::Pending => {
                let request = &exchange.request;
                let bytes = || request.bytes();
                match me.clocks.poll(bytes, cx) {
                    Poll::Ready(reason) => {
                        exchange.broke(reason);
                        me.cut(BodyError::Clock(reason), cx)
                    }
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(bytes) => bytes.is_empty(),
            Content::Upstream(source) => source.is_end_stream(),
            // There is no end: nobody must take it for one.
            Content::Cut(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Upstream(source) => source.size_hint(),
            Content::Cut(_) => SizeHint::default(),
        }
    }
}

impl PumpBody for ResponseBody {
    fn patience(&self) -> Option<Duration> {
        self.clocks.idle
    }

    fn gave_up(&mut self) {
        if let Some(exchange) = &mut self.exchange {
            exchange.reason = Some(Reason::StreamIdleTimeout);
        }
    }
}

impl Exchange {
    /// The response ended before its end.
    fn broke(&mut self, reason: Reason) {
        let reason = if self.is_client_gone() {
            Reason::ClientGone
        } else {
            reason
        };
        self.reason = Some(reason);
        if reason != Reason::ClientGone
            && let Some(in_flight) = &mut self.in_flight
        {
            in_flight.failed();
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Some(exchange) = &mut self.exchange {
            // Servers do not ask for the end of a body that says it is at its end.
            exchange.complete |= match &self.content {
                Content::Whole(bytes) => bytes.is_empty(),
                Content::Upstream(source) => source.is_end_stream(),
                Content::Cut(_) => false,
            };
        }
    }
}
