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

use std::rc::Rc;

use http::{Request, Response};
use tokio::time::Instant;

use super::{Alpn, Failure, Path, Place, connect};
use crate::error::Reason;
use crate::http::body::Source;
use crate::http::replay::RequestBody;
use crate::listener::{Stream, jittered};
use crate::policy::ConnectionPool;
use crate::telemetry::metrics::{CloseCause, PooledConnection, Wire};

use body::End;
use exchange::{Answer, ExchangeError, exchange};
use head::Framing;
use request::Outgoing;
use response::{Connection, Sending};
use socket::Socket;

pub(crate) use response::{Http1Response, ResponseError};

/// Idle connections, the one used last at the end.
#[derive(Debug, Default)]
pub(super) struct Idle {
    connections: Vec<IdleConnection>,
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

/// Sends a request on a pooled connection, or on a new one.
pub(crate) async fn send(
    path: Path<'_>,
    request: impl FnOnce() -> Request<RequestBody>,
) -> Result<Response<Source>, Failure> {
    let place = path.worker.pool.place(path.target);
    place.used_at.set(Instant::now());
    let mut outgoing = Outgoing::new(request(), false);
    loop {
        let pooled = place.http1.borrow_mut().take(path.target.pool);
        let is_reused = pooled.is_some();
        if is_reused {
            path.worker.pool.reused(path.direction, Wire::Http1);
        }
        let socket = match pooled {
            Some(socket) => socket,
            None => Box::pin(open(path)).await?,
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
        return Err(failure(&error, &outgoing, is_stale));
    }
}

/// Sends a request that may turn its connection into something else, on a connection of its own.
pub(crate) async fn send_for_upgrade(
    path: Path<'_>,
    request: impl FnOnce() -> Request<RequestBody>,
) -> Result<Response<Source>, Failure> {
    let socket = open(path).await?;
    let mut outgoing = Outgoing::new(request(), true);
    match exchange(&socket, &mut outgoing, None).await {
        Ok(answer) if answer.head.framing == Framing::Upgrade => {
            let Answer { head, beyond, .. } = answer;
            let Some((mut stream, open)) = socket.into_stream() else {
                return Err(Failure::before(Reason::UpstreamReset));
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
async fn open(path: Path<'_>) -> Result<Socket, Failure> {
    let connected = connect(path.worker, *path.target, Alpn::Http1).await?;
    let metrics = &path.worker.shared.metrics;
    let open = PooledConnection::open(metrics, path.direction, Wire::Http1);
    let retire_at = path.target.pool.max_age.and_then(|max| {
        let age = jittered(max, &mut *path.worker.rng.borrow_mut());
        Instant::now().checked_add(age)
    });
    Ok(Socket::new(connected.stream, retire_at, open))
}

#[cfg(test)]
mod tests;
