//! Makes HTTP/2 connections, one at a time for a place, and runs them.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use h2::client::{Builder, Connection};
use tokio::time::Instant;

use super::super::connect::connect;
use super::super::{Alpn, Failure, OwnedTarget, Place};
use super::connections::Http2;
use crate::error::Reason;
use crate::http::http2::{
    CONNECTION_WINDOW, FRAME_BUDGET, MAX_ERROR_RESETS, MAX_HEAD, Pinger, SEND_BUFFER, STREAM_WINDOW,
};
use crate::listener::{Gathered, Gathering, gather, jittered};
use crate::policy::KeepAlive;
use crate::runtime::Worker;
use crate::telemetry::Direction;
use crate::telemetry::metrics::{CloseCause, PooledConnection, Wire};
use crate::tls::{self, HandshakeFailure, TlsState};

/// Streams that may be opened before the peer has said how many it allows.
const FIRST_STREAMS: usize = 100;

/// Makes a connection and tells everybody who waits for it.
pub(super) async fn make(
    worker: Rc<Worker>,
    direction: Direction,
    target: OwnedTarget,
    identity: Option<Arc<TlsState>>,
    place: Rc<Place>,
) {
    let making = Making(place);
    let result = open(&worker, direction, &target, identity).await;
    making.end(result);
}

/// An attempt to connect. Whatever becomes of it, the next one is possible.
struct Making(Rc<Place>);

impl Making {
    fn end(&self, result: Result<Rc<Http2>, Failure>) {
        let place = &self.0;
        let mut shared = place.http2.borrow_mut();
        shared.connecting = false;
        shared.failures = match &result {
            Ok(_) => 0,
            Err(_) => shared.failures.saturating_add(1),
        };
        if let Ok(connection) = &result
            && !place.closed.get()
        {
            shared.connections.push(Rc::clone(connection));
        }
        let mut waiting = std::mem::take(&mut shared.waiting);
        drop(shared);
        // The oldest request first: what one connection refused would meet the same crowd on the next one otherwise, and the
        // one that h2 happens to tell last would be the last again.
        waiting.sort_by_key(|waiter| waiter.turn);
        for waiter in waiting {
            // Those that were given up meanwhile do not listen.
            let _ = waiter.tell.send(result.clone());
        }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if self.0.http2.borrow().connecting {
            self.end(Err(Failure::before(Reason::ConnectFailed)));
        }
    }
}

async fn open(
    worker: &Worker,
    direction: Direction,
    target: &OwnedTarget,
    identity: Option<Arc<TlsState>>,
) -> Result<Rc<Http2>, Failure> {
    let connected = Box::pin(connect(worker, target.as_target(), Alpn::Http2)).await?;
    let open = PooledConnection::open(&worker.shared.metrics, direction, Wire::Http2);
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
    let pool = &target.pool;
    let retire_at = pool.max_age.and_then(|max| {
        let age = jittered(max, &mut *worker.rng.borrow_mut());
        Instant::now().checked_add(age)
    });
    let ended = Rc::new(Cell::new(None));
    let shared = Rc::new(Http2 {
        send,
        traffic: gathering.traffic(),
        open: Cell::new(0),
        carried: Cell::new(0),
        retire_at,
        closed: Cell::new(false),
        ended: Rc::clone(&ended),
        refused: Cell::new(None),
        identity,
        peer: connected.peer,
        allowed_by: RefCell::new(allowed_by),
        idle_since: Cell::new(Instant::now()),
    });
    let driver = Driver {
        shared: Rc::downgrade(&shared),
        ended,
        keep_alive: pool.keep_alive,
        open,
    };
    tokio::task::spawn_local(driver.run(connection, gathering));
    Ok(shared)
}

/// Runs a connection to its end.
struct Driver {
    shared: std::rc::Weak<Http2>,
    ended: Rc<Cell<Option<CloseCause>>>,
    keep_alive: KeepAlive,
    open: PooledConnection,
}

impl Driver {
    async fn run(self, mut connection: Connection<Gathered, Bytes>, gathering: Gathering) {
        let pings = connection.ping_pong();
        let mut pinger = pings.map(|pings| Pinger::new(pings, self.keep_alive));
        let result = std::future::poll_fn(|cx| {
            if let Poll::Ready(result) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(Some(result));
            }
            gathering.poll(cx);
            let Some(pinger) = &mut pinger else {
                return Poll::Pending;
            };
            // Not in the pool any more: it lives for the streams that are left.
            let busy = self.shared.upgrade().is_none_or(|it| it.open.get() > 0);
            // Gone without a word. Dropping the connection tells its streams.
            pinger.poll(cx, gathering.heard(), busy).map(|()| None)
        })
        .await;
        let shared = self.shared.upgrade();
        let was_told = || shared.as_ref().is_some_and(|shared| shared.is_told_to_go());
        let cause = self.ended.get().unwrap_or_else(|| match result {
            None => CloseCause::KeepAlive,
            Some(_) if was_told() => CloseCause::GoAway,
            Some(_) => CloseCause::Peer,
        });
        self.open.ends(cause);
        if let Some(shared) = shared {
            shared.closed.set(true);
            shared.end(cause);
            if let Some(error) = gathering.take_error() {
                shared.refused.set(refusal(&error));
            }
        }
    }
}

/// The peer's alert that our certificate was refused, if that is what ended the connection.
fn refusal(error: &io::Error) -> Option<HandshakeFailure> {
    match tls::classify(error) {
        HandshakeFailure::Protocol => None,
        failure => Some(failure),
    }
}
