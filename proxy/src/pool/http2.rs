//! HTTP/2 towards upstreams: many requests at a time on a connection, on h2 itself.

mod connections;
mod open;

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use h2::client::ResponseFuture;
use h2::{Reason as Code, RecvStream};
use http::{Request, Response};
use http_body::Body;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

pub(super) use connections::Shared;

use super::{Failure, Path, Place, Target};
use crate::error::Reason;
use crate::http::body::Source;
use crate::http::interim::Interim;
use crate::http::pump::Pump;
use crate::http::replay::RequestBody;
use crate::listener::Moment;
use crate::runtime::Worker;
use crate::telemetry::Direction;
use crate::telemetry::metrics::{CloseCause, Waiting, Wire};
use connections::{Http2, Waiter};

/// How often a request is sent again because connections took no more streams when it came: each time on a new one, which
/// takes some of those that wait before it is told to go as well.
const MAX_MOVES: usize = 16;

/// A stream's place on its connection, and the part of the request that is still being sent.
#[derive(Debug)]
pub(crate) struct Http2Lease {
    connection: Rc<Http2>,
    pump: Option<AbortHandle>,
    /// `None`: nothing limits the streams but the peer.
    room: Option<OwnedSemaphorePermit>,
}

impl Http2Lease {
    fn new(connection: Rc<Http2>, room: Option<OwnedSemaphorePermit>) -> Http2Lease {
        connection.open.set(connection.open.get() + 1);
        connection.carried.set(connection.carried.get() + 1);
        Http2Lease {
            connection,
            pump: None,
            room,
        }
    }

    /// For another connection.
    fn give_up_room(&mut self) -> Option<OwnedSemaphorePermit> {
        self.room.take()
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

/// Sends a request on a shared connection. `request` makes it when there is one, and once more where the connection that
/// had it takes no new streams: `can_repeat` says whether that is possible.
pub(crate) async fn send(
    path: Path<'_>,
    request: impl Fn() -> Request<RequestBody>,
    can_repeat: impl Fn() -> bool,
) -> Result<Response<Source>, Failure> {
    let place = path.worker.pool.place(path.target);
    place.used_at.set(Instant::now());
    let room = {
        let room = place.http2.borrow_mut().room(path.target.pool);
        match room {
            Some(room) => Some(wait_for_room(path, room).await?),
            None => None,
        }
    };
    let mut room = room;
    let turn = place.http2.borrow_mut().turn();
    let mut moves = 0;
    loop {
        let connection = acquire(path, &place, turn).await?;
        if connection.carried.get() > 0 {
            path.worker.pool.reused(path.direction, Wire::Http2);
        }
        let failure = match begin(connection, request(), path.interim, room.take()) {
            Ok(mut sending) => {
                let result = std::future::poll_fn(|cx| sending.poll(cx)).await;
                let Sending {
                    mut lease,
                    pump,
                    start,
                    ..
                } = sending;
                match result {
                    Ok(response) => {
                        return Ok(response.map(move |stream| into_source(stream, lease, pump)));
                    }
                    Err(error) => {
                        room = lease.give_up_room();
                        failure(&error, &lease.connection, start)
                    }
                }
            }
            Err((failure, kept)) => {
                room = kept;
                failure
            }
        };
        // A peer that goes away says what it has not touched, and keeps nobody else from taking it.
        if !(failure.moved && moves < MAX_MOVES && can_repeat()) {
            return Err(failure.failure);
        }
        moves += 1;
    }
}

/// How a request was sent, for the case that there is no answer.
#[derive(Clone, Copy)]
struct Start {
    at: Moment,
    /// Others had the connection before.
    reused: bool,
    /// All of the request was handed over.
    is_sent: bool,
}

/// A [`Failure`], and whether the connection as a whole refused the stream: another one may take it.
struct Broken {
    failure: Failure,
    moved: bool,
}

async fn wait_for_room(
    path: Path<'_>,
    room: Arc<Semaphore>,
) -> Result<OwnedSemaphorePermit, Failure> {
    if let Ok(permit) = Arc::clone(&room).try_acquire_owned() {
        return Ok(permit);
    }
    let _waiting = Waiting::begin(&path.worker.shared.metrics, path.direction);
    let permit = room.acquire_owned().await;
    // Nobody closes it.
    permit.map_err(|_| Failure::before(Reason::ConnectFailed))
}

/// Hands a request to a connection.
fn begin<'a>(
    connection: Rc<Http2>,
    request: Request<RequestBody>,
    interim: Option<&'a Arc<Interim>>,
    room: Option<OwnedSemaphorePermit>,
) -> Result<Sending<'a>, (Broken, Option<OwnedSemaphorePermit>)> {
    let start = Start {
        at: connection.traffic.now(),
        reused: connection.carried.get() > 0,
        is_sent: false,
    };
    let mut lease = Http2Lease::new(connection, room);
    let (head, body) = request.into_parts();
    let end = body.is_end_stream();
    let head = Request::from_parts(head, ());
    // A clone of its own: a stream that has to wait for its turn would block the next one's otherwise.
    let sent = lease.connection.send.clone().send_request(head, end);
    match sent {
        Ok((response, stream)) => Ok(Sending {
            response,
            pump: (!end).then(|| Box::new(Pump::new(body, stream))),
            start: Start {
                is_sent: end,
                ..start
            },
            interim,
            lease,
        }),
        Err(error) => {
            tracing::debug!(%error, "request not sent");
            Err((
                not_begun(&error, &lease.connection, start),
                lease.give_up_room(),
            ))
        }
    }
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
    start: Start,
    interim: Option<&'a Arc<Interim>>,
    lease: Http2Lease,
}

impl Sending<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<RecvStream>, h2::Error>> {
        if let Some(pump) = &mut self.pump
            && let Poll::Ready(pumped) = Pin::new(pump).poll(cx)
        {
            self.start.is_sent = pumped.is_ok();
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

/// What it means that the connection took no stream.
fn not_begun(error: &h2::Error, connection: &Http2, start: Start) -> Broken {
    let told_to_go = error.is_go_away() && error.is_remote();
    if told_to_go {
        connection.end(CloseCause::GoAway);
    }
    let is_over = error.is_io() || error.is_go_away();
    if is_over {
        connection.closed.set(true);
    }
    let moved = told_to_go || is_over && start.reused;
    Broken {
        failure: if is_over && !moved {
            connection.why_closed()
        } else {
            Failure::before(Reason::UpstreamReset)
        },
        moved,
    }
}

/// What went wrong, and whether the peer may have processed the request (RFC 9113, section 8.7).
fn failure(error: &h2::Error, connection: &Http2, start: Start) -> Broken {
    if connection.refused.get().is_some() {
        // It never got past the handshake.
        return Broken {
            failure: connection.why_closed(),
            moved: false,
        };
    }
    let refused_stream =
        error.is_reset() && error.is_remote() && error.reason() == Some(Code::REFUSED_STREAM);
    // h2 gives this error to streams above the GOAWAY's last one only.
    let beyond_goaway = error.is_go_away() && error.is_remote();
    let broke = error.is_io();
    if beyond_goaway || broke {
        connection.closed.set(true);
    }
    if beyond_goaway {
        connection.end(CloseCause::GoAway);
    }
    // It broke while h2 still had all of the request.
    let unsent = broke && !connection.traffic.has_said(&start.at);
    if unsent && !start.reused {
        return Broken {
            failure: connection.why_closed(),
            moved: false,
        };
    }
    Broken {
        failure: Failure {
            reason: Reason::UpstreamReset,
            unprocessed: refused_stream || beyond_goaway || unsent,
            stale: broke && is_stale(connection, start),
        },
        moved: beyond_goaway || unsent,
    }
}

/// Whether a connection that broke was most likely closed in the moment that the request was sent: it was used before, and the
/// peer has said nothing since; or the peer had said that it goes, and got all of the request, which leaves it to the method
/// whether it may be sent again. Silence until we gave up is no such thing: the peer hangs.
fn is_stale(connection: &Http2, start: Start) -> bool {
    if connection.ended.get() == Some(CloseCause::KeepAlive) {
        return false;
    }
    let silent = start.reused && !connection.traffic.has_heard(&start.at);
    silent || start.is_sent && connection.is_told_to_go()
}

/// A connection with room for a stream. One at a time is made for a place; who comes meanwhile waits for it. `turn`: the
/// request's place among those that wait.
async fn acquire(path: Path<'_>, place: &Rc<Place>, turn: u64) -> Result<Rc<Http2>, Failure> {
    let Path {
        worker,
        direction,
        target,
        ..
    } = path;
    let mut crowd = false;
    loop {
        let waiting;
        let made = {
            let identity = target.peer.map(|_| worker.shared.tls.load());
            let identity = match &identity {
                Some(guard) => Some(guard.as_ref().ok_or(Failure::before(Reason::NotReady))?),
                None => None,
            };
            let mut shared = place.http2.borrow_mut();
            if let Some(connection) = shared.choose(target, identity, crowd) {
                return Ok(connection);
            }
            waiting = target.wait()?;
            let (tell, told) = oneshot::channel();
            shared.waiting.push(Waiter { turn, tell });
            if !shared.connecting {
                shared.connecting = true;
                let making = open::make(
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
        let counted = Waiting::begin(&worker.shared.metrics, direction);
        let made = made.await;
        drop((counted, waiting));
        let failure = match made {
            // Or others would be made for as long as the peer accepts them and closes them again.
            Ok(Ok(connection)) if connection.closed.get() => connection.why_closed(),
            // It is nobody else's, and the next one would not be kept either.
            Ok(Ok(connection)) if place.closed.get() => return Ok(connection),
            Ok(Ok(_)) => continue,
            Ok(Err(failure)) => failure,
            Err(_) => Failure::before(Reason::ConnectFailed),
        };
        // There is none with room and there will be none: those that are there have to do, if there are any.
        if crowd || !place.http2.borrow().has_open() {
            return Err(failure);
        }
        crowd = true;
    }
}

/// Opens a connection ahead of need.
pub(super) fn warm(worker: &Rc<Worker>, target: &Target<'_>, place: &Rc<Place>) {
    let identity = match target.peer {
        Some(_) => match worker.shared.tls.load_full() {
            Some(identity) => Some(identity),
            None => return,
        },
        None => None,
    };
    place.http2.borrow_mut().connecting = true;
    let making = open::make(
        Rc::clone(worker),
        Direction::Outbound,
        target.detach(),
        identity,
        Rc::clone(place),
    );
    tokio::task::spawn_local(making);
}
