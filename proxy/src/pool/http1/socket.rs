//! A connection's socket, and the buffer that all of a worker's connections read with.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::listener::Stream;
use crate::policy::ConnectionPool;
use crate::telemetry::metrics::{CloseCause, PooledConnection};

/// Most bytes of one read.
const READ: usize = 32 * 1024;

thread_local! {
    /// What is read is either passed on at once or a part of a head: a thousand streams that wait for their next token need
    /// no thousand buffers, and this one stays in the cache.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

/// A connection to a server. Clones are the same connection, closed with the last of them.
#[derive(Clone, Debug)]
pub(super) struct Socket(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    stream: RefCell<Stream>,
    /// Requests begun on it.
    carried: Cell<u64>,
    /// `None`: it may become as old as it likes.
    retire_at: Option<Instant>,
    open: PooledConnection,
    _counted: Counted,
}

/// A connection among those of its place, as long as it is open.
#[derive(Debug)]
pub(super) struct Counted(Rc<Cell<usize>>);

impl Counted {
    pub(super) fn new(open: &Rc<Cell<usize>>) -> Counted {
        open.set(open.get() + 1);
        Counted(Rc::clone(open))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Socket {
    /// `retire_at`: when it is too old for another request.
    pub(super) fn new(
        stream: Stream,
        retire_at: Option<Instant>,
        open: PooledConnection,
        counted: Counted,
    ) -> Socket {
        Socket(Rc::new(Inner {
            stream: RefCell::new(stream),
            carried: Cell::new(0),
            retire_at,
            open,
            _counted: counted,
        }))
    }

    /// Reads what there is and shows it to `see`: nothing at the end of the connection.
    pub(super) fn poll_read<T>(
        &self,
        cx: &mut Context<'_>,
        see: impl FnOnce(&[u8]) -> T,
    ) -> Poll<io::Result<T>> {
        BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            let mut stream = self.0.stream.borrow_mut();
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer))?;
            drop(stream);
            Poll::Ready(Ok(see(buffer.filled())))
        })
    }

    /// Writes the one, then the other; says how much.
    pub(super) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut stream = self.0.stream.borrow_mut();
        let stream = Pin::new(&mut *stream);
        let count = if second.is_empty() {
            ready!(stream.poll_write(cx, first))?
        } else if first.is_empty() {
            ready!(stream.poll_write(cx, second))?
        } else {
            let both = [IoSlice::new(first), IoSlice::new(second)];
            ready!(stream.poll_write_vectored(cx, &both))?
        };
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        Poll::Ready(Ok(count))
    }

    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.stream.borrow_mut()).poll_flush(cx)
    }

    /// Whether the server has neither closed the connection nor said anything, as far as the runtime knows. To be asked
    /// between two requests, when nobody waits for it.
    pub(super) fn is_quiet(&self) -> bool {
        let mut nobody = Context::from_waker(Waker::noop());
        self.poll_read(&mut nobody, |_| ()).is_pending()
    }

    /// A request begins on it.
    pub(super) fn carry(&self) {
        self.0.carried.set(self.0.carried.get() + 1);
    }

    /// Whether it may have another request, as far as its age and what it has carried go.
    pub(super) fn is_retired(&self, now: Instant, pool: &ConnectionPool) -> bool {
        if self.0.retire_at.is_some_and(|at| at <= now) {
            self.ends(CloseCause::Age);
            return true;
        }
        let carried = self.0.carried.get();
        if pool.max_requests.is_some_and(|most| carried >= most) {
            self.ends(CloseCause::Requests);
            return true;
        }
        false
    }

    /// Why it is going to be closed.
    pub(super) fn ends(&self, cause: CloseCause) {
        self.0.open.ends(cause);
    }

    /// Takes the connection apart. `None`: somebody else uses it as well.
    pub(super) fn into_stream(self) -> Option<(Stream, PooledConnection)> {
        let inner = Rc::try_unwrap(self.0).ok()?;
        Some((inner.stream.into_inner(), inner.open))
    }
}
