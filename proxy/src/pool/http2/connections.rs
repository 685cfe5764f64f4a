//! The HTTP/2 connections of one place, and which of them takes the next stream.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use crate::error::Reason;
use crate::identity::SpiffeId;
use crate::listener::Traffic;
use crate::policy::{ConnectionPool, Upstream};
use crate::pool::connect::{is_allowed, reason};
use crate::pool::{Failure, HTTP2_IDLE, Peer, Target};
use crate::telemetry::metrics::CloseCause;
use crate::tls::{HandshakeFailure, TlsState};

/// Streams that a client can open on a connection before it runs out of numbers (RFC 9113, section 5.1.1).
const STREAM_IDS: u64 = 1 << 30;

/// Connections of one place.
#[derive(Debug, Default)]
pub(in crate::pool) struct Shared {
    pub(super) connections: Vec<Rc<Http2>>,
    pub(super) connecting: bool,
    /// Attempts to connect that failed, one after the other.
    pub(super) failures: u32,
    /// Streams that may be open at a time, where the configuration says so, and how many that is.
    pub(super) room: Option<(usize, Arc<Semaphore>)>,
    /// Requests that wait for the connection that is being made.
    pub(super) waiting: Vec<Waiter>,
    /// Requests so far.
    turns: u64,
}

/// A request that waits for a connection.
#[derive(Debug)]
pub(super) struct Waiter {
    /// Its place among all that came here.
    pub(super) turn: u64,
    pub(super) tell: oneshot::Sender<Result<Rc<Http2>, Failure>>,
}

/// One connection.
pub(super) struct Http2 {
    pub(super) send: SendRequest<Bytes>,
    pub(super) traffic: Rc<Traffic>,
    /// Streams of ours.
    pub(super) open: Cell<usize>,
    /// Streams of ours over its life.
    pub(super) carried: Cell<u64>,
    /// `None`: it may become as old as it likes.
    pub(super) retire_at: Option<Instant>,
    pub(super) closed: Cell<bool>,
    /// Why we gave it up; also known to the task that runs it, which outlives this.
    pub(super) ended: Rc<Cell<Option<CloseCause>>>,
    /// The handshake was over for us, and the peer refused us afterwards, as TLS 1.3 has it.
    pub(super) refused: Cell<Option<HandshakeFailure>>,
    /// The identity that it was made with. `None`: plaintext.
    pub(super) identity: Option<Arc<TlsState>>,
    /// Who is at the other end. `None`: plaintext.
    pub(super) peer: Option<SpiffeId>,
    /// The description of the service that last said that the peer may serve it.
    /// Weak: a connection keeps no endpoint in the configuration.
    pub(super) allowed_by: RefCell<Weak<Upstream>>,
    pub(super) idle_since: Cell<Instant>,
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
    /// Closes connections that are idle for too long (all but those that stay open ahead of need), or too old.
    pub(in crate::pool) fn sweep(&mut self, now: Instant, pool: &ConnectionPool) {
        let mut spare = self.connections.len().saturating_sub(pool.pre_warm);
        self.connections.retain(|connection| {
            if connection.closed.get() || connection.is_retired(pool) {
                return false;
            }
            let idle = connection.open.get() == 0
                && now.duration_since(connection.idle_since.get()) >= HTTP2_IDLE;
            if idle && spare > 0 {
                spare -= 1;
                connection.end(CloseCause::Idle);
                return false;
            }
            true
        });
    }

    pub(in crate::pool) fn is_empty(&self) -> bool {
        self.connections.is_empty() && !self.connecting
    }

    /// Whether there is a connection that may take streams.
    pub(super) fn has_open(&self) -> bool {
        self.connections.iter().any(|it| !it.closed.get())
    }

    pub(in crate::pool) fn is_connecting(&self) -> bool {
        self.connecting
    }

    /// Gives all connections up; streams that are open go on.
    pub(in crate::pool) fn close(&mut self, cause: CloseCause) {
        for connection in self.connections.drain(..) {
            connection.end(cause);
        }
    }

    /// The next request's place among all that come here.
    pub(super) fn turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    /// The connection with the fewest streams that has room for another one, or that must take it all the same: because
    /// there may be no more of them, or (`crowd`) there cannot be.
    pub(super) fn choose(
        &mut self,
        target: &Target<'_>,
        identity: Option<&Arc<TlsState>>,
        crowd: bool,
    ) -> Option<Rc<Http2>> {
        let pool = target.pool;
        // A connection made with a certificate that was replaced, or to somebody who may no longer serve the service, ends
        // with its last stream.
        self.connections.retain(|connection| {
            if connection.closed.get() || connection.is_retired(pool) {
                return false;
            }
            let stays =
                connection.has_identity(identity) && connection.is_trusted(target.peer.as_ref());
            if !stays {
                connection.end(CloseCause::Identity);
            }
            stays
        });
        let best = self
            .connections
            .iter()
            .min_by_key(|connection| connection.open.get())?;
        let allowed = best.send.current_max_send_streams();
        let allowed = pool.http2_streams.map_or(allowed, |most| most.min(allowed));
        let has_room = best.open.get() < allowed;
        (has_room || crowd || self.connections.len() >= pool.http2_connections)
            .then(|| Rc::clone(best))
    }

    /// Whether a connection is to be opened ahead of need.
    pub(in crate::pool) fn wants_warming(&self, pool: &ConnectionPool) -> bool {
        !self.connecting && self.connections.len() < pool.pre_warm
    }

    /// Attempts to connect that failed, one after the other.
    pub(in crate::pool) fn failures(&self) -> u32 {
        self.failures
    }

    /// What limits the streams that are open at a time, where something does.
    pub(super) fn room(&mut self, pool: &ConnectionPool) -> Option<Arc<Semaphore>> {
        let streams = pool.http2_streams?;
        let wanted = streams.saturating_mul(pool.http2_connections);
        match &self.room {
            Some((size, room)) if *size == wanted => Some(Arc::clone(room)),
            // Streams that are open under the former limit do not count for the new one.
            _ => {
                let room = Arc::new(Semaphore::new(wanted.min(Semaphore::MAX_PERMITS)));
                self.room = Some((wanted, Arc::clone(&room)));
                Some(room)
            }
        }
    }
}

impl Http2 {
    /// Gives it up, for this reason if there was none yet.
    pub(super) fn end(&self, cause: CloseCause) {
        if self.ended.get().is_none() {
            self.ended.set(Some(cause));
        }
    }

    /// Whether the peer has said that it takes no more streams.
    pub(super) fn is_told_to_go(&self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        let state = self.send.clone().poll_ready(&mut context);
        matches!(state, Poll::Ready(Err(error)) if error.is_go_away() && error.is_remote())
    }

    /// What it means for a request that it broke before the request was handed to it.
    pub(super) fn why_closed(&self) -> Failure {
        Failure::before(match self.refused.get() {
            Some(refused) => reason(refused),
            None => Reason::ConnectFailed,
        })
    }

    /// Whether it is too old, or has carried all it may.
    fn is_retired(&self, pool: &ConnectionPool) -> bool {
        if self.retire_at.is_some_and(|at| at <= Instant::now()) {
            self.end(CloseCause::Age);
            return true;
        }
        let most = pool.max_requests.unwrap_or(STREAM_IDS).min(STREAM_IDS);
        if self.carried.get() >= most {
            self.end(CloseCause::Requests);
            return true;
        }
        false
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
