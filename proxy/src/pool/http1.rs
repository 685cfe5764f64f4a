//! HTTP/1.1 towards upstreams: one request at a time on a connection, kept for the next one.
//!
//! A client of our own, for the sake of token streams: whoever wants a response's next bytes reads them from the socket
//! itself. hyper has a task for each connection, and a queue and two more wake-ups between the socket and the reader.

mod body;
mod chunked;
mod exchange;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod head;
mod request;
mod response;
mod socket;

use std::cell::Cell;
use std::rc::Rc;

use http::{Request, Response};
use tokio::time::Instant;

use super::connect::{Connected, connect_ahead};
use super::{Alpn, Failure, Path, Place, Target, connect};
use crate::error::Reason;
use crate::http::body::Source;
use crate::http::replay::RequestBody;
use crate::listener::{Stream, jittered};
use crate::policy::ConnectionPool;
use crate::runtime::Worker;
use crate::telemetry::Direction;
use crate::telemetry::metrics::{CloseCause, PooledConnection, Wire};

use body::End;
use exchange::{Answer, ExchangeError, exchange};
use head::Framing;
use request::Outgoing;
use response::{Connection, Sending};
use socket::{Counted, Socket};

pub(crate) use response::{Http1Response, ResponseError};

/// Idle connections, the one used last at the end.
#[derive(Debug, Default)]
pub(super) struct Idle {
    connections: Vec<IdleConnection>,
    /// Connections of the place, those in use among them.
    open: Rc<Cell<usize>>,
    /// One is being opened ahead of need.
    warming: bool,
    /// Attempts to do so that failed, one after the other.
    failures: u32,
}

#[derive(Debug)]
struct IdleConnection {
    socket: Socket,
    since: Instant,
}

impl Idle {
    fn take(&mut self, pool: &ConnectionPool) -> Option<Socket> {
        let now = Instant::now();
        // The last one is the one least likely to be closed by the other side in this very moment.
        while let Some(idle) = self.connections.pop() {
            if now.duration_since(idle.since) >= pool.http1_idle {
                idle.socket.ends(CloseCause::Idle);
                // All that are left are older.
                self.clear(CloseCause::Idle);
                return None;
            }
            if idle.socket.is_quiet() && !idle.socket.is_retired(now, pool) {
                return Some(idle.socket);
            }
        }
        None
    }

    fn put(&mut self, socket: Socket, pool: &ConnectionPool) {
        let now = Instant::now();
        if socket.is_retired(now, pool) {
            return;
        }
        if self.connections.len() >= pool.http1_max_idle {
            socket.ends(CloseCause::Idle);
            return;
        }
        self.connections.push(IdleConnection { socket, since: now });
    }

    pub(super) fn clear(&mut self, cause: CloseCause) {
        for idle in std::mem::take(&mut self.connections) {
            idle.socket.ends(cause);
        }
    }

    pub(super) fn sweep(&mut self, now: Instant, pool: &ConnectionPool) {
        self.connections.retain(|idle| {
            if now.duration_since(idle.since) >= pool.http1_idle {
                idle.socket.ends(CloseCause::Idle);
                return false;
            }
            idle.socket.is_quiet() && !idle.socket.is_retired(now, pool)
        });
        if self.connections.is_empty() {
            self.connections = Vec::new();
        }
    }

    /// Closes the connection that was idle for the longest time. `false`: there is none.
    pub(super) fn close_oldest(&mut self) -> bool {
        if self.connections.is_empty() {
            return false;
        }
        self.connections.remove(0).socket.ends(CloseCause::Idle);
        true
    }

    /// Whether a connection is to be opened ahead of need.
    pub(super) fn wants_warming(&self, pool: &ConnectionPool) -> bool {
        !self.warming && self.open.get() < pool.pre_warm.min(pool.http1_max_idle)
    }

    /// Attempts to open one ahead of need that failed, one after the other.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    pub(super) fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }
}

/// Where a connection goes when its response has come to its end.
#[derive(Debug)]
pub(crate) struct Http1Lease {
    place: Rc<Place>,
}

impl Http1Lease {
    fn give_back(self, socket: Socket) {
        if !self.place.closed.get() {
            let pool = self.place.pool.borrow();
            self.place.http1.borrow_mut().put(socket, &pool);
        }
    }
}

/// A connection that speaks another protocol from now on.
#[derive(Debug)]
pub(crate) struct Upgraded {
    pub(crate) stream: Stream,
    pub(crate) _open: PooledConnection,
}

/// A request with this is sent on a new connection. For one that could only begin because another one has ended: the connection of that
/// one is the next in the pool, and a server that closes it now would take the request with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewConnection;

/// Sends a request on a pooled connection, or on a new one.
pub(crate) async fn send(
    path: Path<'_>,
    request: impl FnOnce() -> Request<RequestBody>,
) -> Result<Response<Source>, Failure> {
    let place = path.worker.pool.place(path.target);
    place.used_at.set(Instant::now());
    let request = request();
    let wants_new = request.extensions().get::<NewConnection>().is_some();
    let mut outgoing = Outgoing::new(request, false);
    loop {
        let pooled = match wants_new {
            true => None,
            false => place.http1.borrow_mut().take(path.target.pool),
        };
        let is_reused = pooled.is_some();
        if is_reused {
            path.worker.pool.reused(path.direction, Wire::Http1);
        }
        let socket = match pooled {
            Some(socket) => socket,
            None => Box::pin(open(path, &place)).await?,
        };
        socket.carry();
        let error = match exchange(&socket, &mut outgoing, path.interim).await {
            Ok(answer) => {
                let lease = answer.head.keep_alive.then_some(Http1Lease { place });
                return Ok(into_response(answer, outgoing, socket, lease));
            }
            Err(error) => error,
        };
        tracing::debug!(%error, "no answer");
        let is_stale = is_reused && matches!(error, ExchangeError::Closed);
        if is_stale {
            // The others have been idle for longer: what closed this one may have closed them.
            place.http1.borrow_mut().clear(CloseCause::Peer);
            if !outgoing.has_begun() {
                continue;
            }
        }
        if !is_reused && matches!(error, ExchangeError::Closed) && !outgoing.has_begun() {
            // It was closed as soon as it was there.
            return Err(Failure::before(Reason::ConnectFailed));
        }
        return Err(failure(&error, &outgoing, is_stale));
    }
}

/// Sends a request that may turn its connection into something else, on a connection of its own.
pub(crate) async fn send_for_upgrade(
    path: Path<'_>,
    request: impl FnOnce() -> Request<RequestBody>,
) -> Result<Response<Source>, Failure> {
    let place = path.worker.pool.place(path.target);
    let socket = open(path, &place).await?;
    let mut outgoing = Outgoing::new(request(), true);
    match exchange(&socket, &mut outgoing, None).await {
        Ok(answer) if answer.head.framing == Framing::Upgrade => {
            let Answer { head, beyond, .. } = answer;
            let Some((mut stream, open)) = socket.into_stream() else {
                return Err(Failure {
                    reason: Reason::UpstreamReset,
                    unprocessed: false,
                    stale: false,
                });
            };
            stream.unread(beyond);
            let upgraded = Upgraded {
                stream,
                _open: open,
            };
            let source = Source::Upgraded(Box::new(upgraded));
            Ok(Response::from_parts(head.parts, source))
        }
        Ok(answer) => Ok(into_response(answer, outgoing, socket, None)),
        Err(error) => {
            tracing::debug!(%error, "no answer");
            Err(failure(&error, &outgoing, false))
        }
    }
}

fn failure(error: &ExchangeError, outgoing: &Outgoing, is_stale: bool) -> Failure {
    let is_closed = matches!(error, ExchangeError::Closed);
    Failure {
        reason: Reason::UpstreamReset,
        unprocessed: is_closed && !outgoing.has_begun(),
        stale: is_stale,
    }
}

fn into_response(
    answer: Answer,
    outgoing: Outgoing,
    socket: Socket,
    lease: Option<Http1Lease>,
) -> Response<Source> {
    let Answer {
        head,
        incoming,
        is_sent,
        ..
    } = answer;
    let Some(end) = incoming.end else {
        // A task: the server may want the rest before it says more, and a client may send it before it reads more.
        let sending = (!is_sent).then(|| Sending::start(outgoing, socket.clone()));
        let connection = Connection {
            socket,
            lease,
            sending,
        };
        let body = Http1Response::new(incoming, Some(connection));
        return Response::from_parts(head.parts, Source::Http1Response(Box::new(body)));
    };
    // All of it came with the head.
    if let Some(lease) = lease
        && is_sent
        && end == End::Clean
    {
        lease.give_back(socket);
    }
    let source = if incoming.trailers.is_none() {
        Source::whole(incoming.data)
    } else {
        Source::Http1Response(Box::new(Http1Response::new(incoming, None)))
    };
    Response::from_parts(head.parts, source)
}

/// A new connection.
async fn open(path: Path<'_>, place: &Place) -> Result<Socket, Failure> {
    let connected = connect(path.worker, *path.target, Alpn::Http1).await?;
    Ok(socket(path, place, connected))
}

fn socket(path: Path<'_>, place: &Place, connected: Connected) -> Socket {
    let metrics = &path.worker.shared.metrics;
    let open = PooledConnection::open(metrics, path.direction, Wire::Http1);
    let retire_at = path.target.pool.max_age.and_then(|max| {
        let age = jittered(max, &mut *path.worker.rng.borrow_mut());
        Instant::now().checked_add(age)
    });
    let counted = Counted::new(&place.http1.borrow().open);
    Socket::new(connected.stream, retire_at, open, counted)
}

/// Opens a connection ahead of need. It waits among the idle ones, and is closed with them.
pub(super) fn warm(worker: &Rc<Worker>, target: &Target<'_>, place: &Rc<Place>) {
    let warming = Warming::begin(place);
    let worker = Rc::clone(worker);
    let target = target.detach();
    tokio::task::spawn_local(async move {
        let target = target.as_target();
        let Ok(connected) = Box::pin(connect_ahead(&worker, target, Alpn::Http1)).await else {
            return;
        };
        let path = Path {
            worker: &worker,
            direction: Direction::Outbound,
            target: &target,
            interim: None,
        };
        let place = &warming.0;
        let socket = socket(path, place, connected);
        let mut idle = place.http1.borrow_mut();
        idle.failures = 0;
        if !place.closed.get() {
            idle.put(socket, target.pool);
        }
    });
}

/// An attempt to open a connection ahead of need. Whatever becomes of it, the next one is possible.
struct Warming(Rc<Place>);

impl Warming {
    fn begin(place: &Rc<Place>) -> Warming {
        let mut idle = place.http1.borrow_mut();
        idle.warming = true;
        // Until it has not failed.
        idle.failures = idle.failures.saturating_add(1);
        Warming(Rc::clone(place))
    }
}

impl Drop for Warming {
    fn drop(&mut self) {
        self.0.http1.borrow_mut().warming = false;
    }
}

#[cfg(test)]
mod tests;
