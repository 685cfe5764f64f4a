//! HTTP/2 towards upstreams: many requests at a time on a connection, on h2 itself.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Reason as Code, RecvStream};
use http::{Request, Response};
use http_body::Body;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::connect::{is_allowed, reason};
use super::{Alpn, Failure, HTTP2_IDLE, OwnedTarget, Path, Peer, Place, connect};
use crate::error::Reason;
use crate::http::body::Source;
use crate::http::http2::{
    CONNECTION_WINDOW, FRAME_BUDGET, MAX_ERROR_RESETS, MAX_HEAD, Pinger, SEND_BUFFER, STREAM_WINDOW,
};
use crate::http::interim::Interim;
use crate::http::pump::Pump;
use crate::http::replay::RequestBody;
use crate::identity::SpiffeId;
use crate::listener::{Gathered, Gathering, gather};
use crate::policy::Upstream;
use crate::runtime::Worker;
use crate::telemetry::Direction;
use crate::telemetry::metrics::{OpenConnection, Side, Wire};
use crate::tls::{self, HandshakeFailure, TlsState};

/// Most connections of a worker to one place. When all are full, requests wait in h2 for a stream.
const MAX_CONNECTIONS: usize = 16;

/// Streams that may be opened before the peer has said how many it allows.
const FIRST_STREAMS: usize = 100;

/// Connections of one place.
#[derive(Debug, Default)]
pub(super) struct Shared {
    connections: Vec<Rc<Http2>>,
    connecting: bool,
    /// Requests that wait for the connection that is being made.
    waiting: Vec<oneshot::Sender<Result<(), Failure>>>,
}

/// One connection.
struct Http2 {
    send: SendRequest<Bytes>,
    /// Streams of ours.
    open: Cell<usize>,
    closed: Cell<bool>,
    /// The handshake was over for us, and the peer refused us afterwards, as TLS 1.3 has it.
    refused: Cell<Option<HandshakeFailure>>,
    /// The identity that it was made with. `None`: plaintext.
    identity: Option<Arc<TlsState>>,
    /// Who is at the other end. `None`: plaintext.
    peer: Option<SpiffeId>,
    /// The description of the service that last said that the peer may serve it.
    /// Weak: a connection keeps no endpoint in the configuration.
    allowed_by: RefCell<Weak<Upstream>>,
    idle_since: Cell<Instant>,
}

impl std::fmt::Debug for Http2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http2")
            .field("open", &self.open)
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn sweep(&mut self, now: Instant) {
        self.connections.retain(|connection| {
            !connection.closed.get()
                && (connection.open.get() > 0
                    || now.duration_since(connection.idle_since.get()) < HTTP2_IDLE)
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.connections.is_empty() && !self.connecting
    }

    pub(super) fn is_connecting(&self) -> bool {
        self.connecting
    }

    /// The connection with the fewest streams that has room for another one, or that must take it all the same.
    fn choose(
        &mut self,
        identity: Option<&Arc<TlsState>>,
        peer: Option<&Peer<'_>>,
    ) -> Option<Rc<Http2>> {
        // A connection made with a certificate that was replaced, or to somebody who may no longer serve the service, ends
        // with its last stream.
        self.connections.retain(|connection| {
            !connection.closed.get()
                && connection.has_identity(identity)
                && connection.is_trusted(peer)
        });
        let best = self
            .connections
            .iter()
            .min_by_key(|connection| connection.open.get())?;
        let has_room = best.open.get() < best.send.current_max_send_streams();
        (has_room || self.connections.len() >= MAX_CONNECTIONS).then(|| Rc::clone(best))
    }
}

impl Http2 {
    fn has_identity(&self, identity: Option<&Arc<TlsState>>) -> bool {
        match (&self.identity, identity) {
            (Some(own), Some(current)) => Arc::ptr_eq(own, current),
            (None, None) => true,
            _ => false,
        }
    }
}

impl Http2 {
    /// Whether the peer may serve the service, as the configuration says it now.
    fn is_trusted(&self, peer: Option<&Peer<'_>>) -> bool {
        let (Some(id), Some(peer)) = (&self.peer, peer) else {
            return self.peer.is_none() && peer.is_none();
        };
        let mut allowed_by = self.allowed_by.borrow_mut();
        if allowed_by.as_ptr() == Arc::as_ptr(peer.upstream) {
            return true;
        }
        let allowed = is_allowed(id, peer);
        if allowed {
            *allowed_by = Arc::downgrade(peer.upstream);
        }
        allowed
    }
}

/// A stream's place on its connection, and the part of the request that is still being sent.
#[derive(Debug)]
pub(crate) struct Http2Lease {
    connection: Rc<Http2>,
    pump: Option<AbortHandle>,
}

impl Http2Lease {
    fn new(connection: Rc<Http2>) -> Http2Lease {
        connection.open.set(connection.open.get() + 1);
        Http2Lease {
            connection,
            pump: None,
        }
    }
}

impl Drop for Http2Lease {
    fn drop(&mut self) {
        let open = self.connection.open.get().saturating_sub(1);
        self.connection.open.set(open);
        if open == 0 {
            self.connection.idle_since.set(Instant::now());
        }
        if let Some(pump) = &self.pump {
            pump.abort();
        }
    }
}

/// Sends a request on a shared connection. `request` makes it when there is one.
pub(crate) async fn send(
    path: Path<'_>,
    request: impl FnOnce() -> Request<RequestBody>,
) -> Result<Response<Source>, Failure> {
    let place = path.worker.pool.place(path.target);
    place.used_at.set(Instant::now());
    let connection = acquire(path, &place).await?;
    let mut sending = begin(connection, request(), path.interim)?;
    let result = std::future::poll_fn(|cx| sending.poll(cx)).await;
    let Sending { lease, pump, .. } = sending;
    match result {
        Ok(response) => Ok(response.map(move |stream| into_source(stream, lease, pump))),
        Err(error) => Err(failure(&error, &lease.connection)),
    }
}

/// Hands a request to a connection.
fn begin<'a>(
    connection: Rc<Http2>,
    request: Request<RequestBody>,
    interim: Option<&'a Arc<Interim>>,
) -> Result<Sending<'a>, Failure> {
    let lease = Http2Lease::new(connection);
    let (head, body) = request.into_parts();
    let end = body.is_end_stream();
    let head = Request::from_parts(head, ());
    // A clone of its own: a stream that has to wait for its turn would block the next one's otherwise.
    let sent = lease.connection.send.clone().send_request(head, end);
    let (response, stream) = sent.map_err(|error| {
        tracing::debug!(%error, "request not sent");
        lease
            .connection
            .closed
            .set(error.is_io() || error.is_go_away());
        Failure::before(Reason::UpstreamReset)
    })?;
    Ok(Sending {
        response,
        pump: (!end).then(|| Box::new(Pump::new(body, stream))),
        interim,
        lease,
    })
}

/// A response's body; what is left of the request is sent beside it.
fn into_source(
    stream: RecvStream,
    mut lease: Http2Lease,
    pump: Option<Box<Pump<RequestBody>>>,
) -> Source {
    if let Some(pump) = pump
        && !stream.is_end_stream()
    {
        let task = tokio::task::spawn_local(async move {
            // A request that cannot be sent to its end is the response's matter.
            let _ = pump.await;
        });
        lease.pump = Some(task.abort_handle());
    }
    Source::http2(stream, Some(lease))
}

/// A request on its way, until the response's head is there.
struct Sending<'a> {
    response: ResponseFuture,
    pump: Option<Box<Pump<RequestBody>>>,
    interim: Option<&'a Arc<Interim>>,
    lease: Http2Lease,
}

impl Sending<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<RecvStream>, h2::Error>> {
        if let Some(pump) = &mut self.pump
            && Pin::new(pump).poll(cx).is_ready()
        {
            // Sent, or not to be sent: a server may answer before it has read everything, and say so by a reset.
            self.pump = None;
        }
        if let Some(interim) = self.interim {
            while let Poll::Ready(Some(Ok(response))) = self.response.poll_informational(cx) {
                interim.push(response.status(), response.headers());
            }
        } else {
            while let Poll::Ready(Some(Ok(_))) = self.response.poll_informational(cx) {}
        }
        Pin::new(&mut self.response).poll(cx)
    }
}

/// What went wrong, and whether the peer may have processed the request (RFC 9113, section 8.7).
fn failure(error: &h2::Error, connection: &Http2) -> Failure {
    if let Some(refused) = connection.refused.get() {
        // It never got past the handshake.
        return Failure::before(reason(refused));
    }
    let refused_stream =
        error.is_reset() && error.is_remote() && error.reason() == Some(Code::REFUSED_STREAM);
    // h2 gives this error to streams above the GOAWAY's last one only.
    let beyond_goaway = error.is_go_away() && error.is_remote();
    if beyond_goaway || error.is_io() {
        connection.closed.set(true);
    }
    Failure {
        reason: Reason::UpstreamReset,
        unprocessed: refused_stream || beyond_goaway,
        stale: false,
    }
}

/// A connection with room for a stream. One at a time is made for a place; who comes meanwhile waits for it.
async fn acquire(path: Path<'_>, place: &Rc<Place>) -> Result<Rc<Http2>, Failure> {
    let Path {
        worker,
        direction,
        target,
        ..
    } = path;
    loop {
        let made = {
            let identity = target.peer.map(|_| worker.shared.tls.load());
            let identity = match &identity {
                Some(guard) => Some(guard.as_ref().ok_or(Failure::before(Reason::NotReady))?),
                None => None,
            };
            let mut shared = place.http2.borrow_mut();
            if let Some(connection) = shared.choose(identity, target.peer.as_ref()) {
                return Ok(connection);
            }
            let (tell, told) = oneshot::channel();
            shared.waiting.push(tell);
            if !shared.connecting {
                shared.connecting = true;
                let making = make(
                    Rc::clone(worker),
                    direction,
                    target.detach(),
                    identity.cloned(),
                    Rc::clone(place),
                );
                // A task: the request that began it may be given up, others wait for it as well.
                tokio::task::spawn_local(making);
            }
            told
        };
        match made.await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => return Err(failure),
            Err(_) => return Err(Failure::before(Reason::ConnectFailed)),
        }
    }
}

/// Makes a connection and tells everybody who waits for it.
async fn make(
    worker: Rc<Worker>,
    direction: Direction,
    target: OwnedTarget,
    identity: Option<Arc<TlsState>>,
    place: Rc<Place>,
) {
    let result = open(&worker, direction, &target, identity).await;
    let mut shared = place.http2.borrow_mut();
    shared.connecting = false;
    let result = result.map(|connection| shared.connections.push(connection));
    let waiting = std::mem::take(&mut shared.waiting);
    drop(shared);
    for waiter in waiting {
        // Those that were given up meanwhile do not listen.
        let _ = waiter.send(result);
    }
}

async fn open(
    worker: &Worker,
    direction: Direction,
    target: &OwnedTarget,
    identity: Option<Arc<TlsState>>,
) -> Result<Rc<Http2>, Failure> {
    let connected = Box::pin(connect(worker, target.as_target(), Alpn::Http2)).await?;
    let open = worker
        .shared
        .metrics
        .connection(direction, Side::Upstream, Wire::Http2);
    let (stream, gathering) = gather(connected.stream);
    let (send, connection) = Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_max_send_streams(FIRST_STREAMS)
        .max_header_list_size(MAX_HEAD)
        .max_send_buffer_size(SEND_BUFFER)
        .max_local_error_reset_streams(Some(MAX_ERROR_RESETS))
        .data_frame_budget(FRAME_BUDGET)
        .enable_push(false)
        .handshake::<_, Bytes>(stream)
        .await
        .map_err(|_| Failure::before(Reason::ConnectFailed))?;
    let upstream = target.peer.as_ref().map(|peer| &peer.upstream);
    let allowed_by = upstream.map(Arc::downgrade).unwrap_or_default();
    let shared = Rc::new(Http2 {
        send,
        open: Cell::new(0),
        closed: Cell::new(false),
        refused: Cell::new(None),
        identity,
        peer: connected.peer,
        allowed_by: RefCell::new(allowed_by),
        idle_since: Cell::new(Instant::now()),
    });
    tokio::task::spawn_local(drive(connection, gathering, Rc::downgrade(&shared), open));
    Ok(shared)
}

/// Runs a connection to its end.
async fn drive(
    mut connection: h2::client::Connection<Gathered, Bytes>,
    gathering: Gathering,
    shared: std::rc::Weak<Http2>,
    open: OpenConnection,
) {
    let mut pinger = connection.ping_pong().map(Pinger::new);
    let result = std::future::poll_fn(|cx| {
        if let Poll::Ready(result) = Pin::new(&mut connection).poll(cx) {
            return Poll::Ready(result);
        }
        gathering.poll(cx);
        match &mut pinger {
            // Gone without a word. Dropping the connection tells its streams.
            Some(pinger) => pinger.poll(cx).map(Ok),
            None => Poll::Pending,
        }
    })
    .await;
    if let Some(shared) = shared.upgrade() {
        shared.closed.set(true);
        if let Err(error) = &result
            && let Some(error) = error.get_io()
        {
            shared.refused.set(refusal(error));
        }
    }
    drop(open);
}

/// The peer's alert that our certificate was refused, if that is what ended the connection.
fn refusal(error: &io::Error) -> Option<HandshakeFailure> {
    match tls::classify(error) {
        HandshakeFailure::Protocol => None,
        failure => Some(failure),
    }
}
