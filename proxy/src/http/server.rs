//! What both HTTP servers need of whoever answers the requests.

use std::cell::Cell;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};

use super::body::Source;
use super::interim::Interim;
use super::response::ResponseBody;
use super::{http1, http2};
use crate::error::Reason;
use crate::listener::{Connection, Stream};
use crate::runtime::Worker;
use crate::telemetry::Direction;
use crate::telemetry::metrics::{OpenConnection, RequestMetrics, Side, Wire};

/// Answers requests.
pub(crate) trait Handler: 'static {
    /// Answers one request. Dropping the future gives the request up.
    fn handle(
        self: Rc<Self>,
        request: Request<Source>,
        interim: Arc<Interim>,
    ) -> impl Future<Output = Response<ResponseBody>> + 'static;

    /// The connection that the requests come from.
    fn client(&self) -> &Rc<Client>;

    /// After which the connection takes no new request.
    fn max_age(&self) -> Option<Duration> {
        None
    }

    /// A request's head was refused before it was a request.
    fn refused(&self, reason: Reason);
}

/// Serves a connection to its end, in a task of its own: one that would only wait for the other would be one more piece of
/// cold memory for each piece of a stream.
pub(crate) fn spawn<H: Handler>(wire: Wire, stream: Stream, handler: Rc<H>) {
    match wire {
        Wire::Http2 => tokio::task::spawn_local(http2::serve(stream, handler)),
        Wire::Http1 | Wire::Tcp => tokio::task::spawn_local(http1::serve(stream, handler)),
    };
}

/// A connection from a client, and what goes on on it.
pub(crate) struct Client {
    pub(crate) worker: Rc<Worker>,
    pub(crate) connection: Connection,
    pub(crate) address: SocketAddr,
    pub(crate) direction: Direction,
    /// Requests under way.
    active: Cell<usize>,
    /// Requests begun.
    begun: Cell<u64>,
    /// Why we close the connection; `None`: we do not.
    cut: Cell<Option<Reason>>,
    /// How often the body of a response was asked for more, and how long it may be between two times.
    taken: Cell<u64>,
    /// A request was answered before it was read.
    unread: Cell<bool>,
    patience: Cell<Option<Duration>>,
    _open: OpenConnection,
}

impl Client {
    pub(crate) fn new(
        worker: &Rc<Worker>,
        address: SocketAddr,
        direction: Direction,
        wire: Wire,
    ) -> Rc<Client> {
        Rc::new(Client {
            worker: Rc::clone(worker),
            connection: Connection::open(worker),
            address,
            direction,
            active: Cell::new(0),
            begun: Cell::new(0),
            cut: Cell::new(None),
            taken: Cell::new(0),
            unread: Cell::new(false),
            patience: Cell::new(None),
            _open: worker
                .shared
                .metrics
                .connection(direction, Side::Downstream, wire),
        })
    }

    pub(crate) fn begin(&self) {
        self.active.set(self.active.get() + 1);
        self.begun.set(self.begun.get() + 1);
    }

    pub(crate) fn end(&self) {
        self.active.set(self.active.get().saturating_sub(1));
        self.patience.set(None);
    }

    /// A response is on its way, and its reader may take so long for each piece. For connections with one request at a time.
    pub(crate) fn set_patience(&self, patience: Option<Duration>) {
        self.patience.set(patience);
    }

    pub(crate) fn patience(&self) -> Option<Duration> {
        self.patience.get()
    }

    /// The response's body was asked for more: what came before is written, or buffered.
    pub(crate) fn take(&self) {
        self.taken.set(self.taken.get() + 1);
    }

    pub(crate) fn taken(&self) -> u64 {
        self.taken.get()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.active.get() == 0
    }

    pub(crate) fn begun(&self) -> u64 {
        self.begun.get()
    }

    /// A request was answered before it was read.
    pub(crate) fn leave_unread(&self) {
        self.unread.set(true);
    }

    pub(crate) fn left_unread(&self) -> bool {
        self.unread.get()
    }

    /// What requests count as before it is known what they are for.
    pub(crate) fn unknown_kind(&self) -> &Arc<RequestMetrics> {
        match self.direction {
            Direction::Outbound => &self.worker.unrouted,
            Direction::Inbound => &self.worker.unserved,
        }
    }

    pub(crate) fn cut(&self, reason: Reason) {
        self.cut.set(Some(reason));
    }

    pub(crate) fn cut_reason(&self) -> Option<Reason> {
        self.cut.get()
    }
}
