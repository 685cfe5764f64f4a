//! One write for all that an HTTP/2 connection has to say in one turn of its task.
//!
//! h2 writes and flushes each larger DATA frame by itself. Under load a connection between two sidecars has dozens of them
//! to send at a time, and each write is a TLS record and a system call, the most expensive thing on the request's path. So a
//! flush of h2's only gathers, and the task that drives the connection writes ([`Gathering::poll`]) once h2 has nothing
//! more to do: nothing waits longer than this turn.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Stream;

/// Bytes gathered before they are written though there is more: two full frames, or two TLS records.
const LIMIT: usize = 32 * 1024;

/// What a quiet connection keeps of its buffer.
const KEPT: usize = 4 * 1024;

/// Reads after a write that failed: what the peer said before it left is in the kernel still, and may be that it has answered,
/// or what it has not touched. At 16 KiB or so a read, more than a socket's buffer has.
const LAST_WORDS: u32 = 1024;

/// What went over a connection so far.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// Bytes that h2 has handed over.
    given: Cell<u64>,
    /// Bytes of these that the socket has taken.
    written: Cell<u64>,
    /// Reads that brought something: signs of life.
    heard: Cell<u64>,
}

/// A moment in a connection's life, to be compared with a later one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    given: u64,
    heard: u64,
}

impl Traffic {
    pub(crate) fn now(&self) -> Moment {
        Moment {
            given: self.given.get(),
            heard: self.heard.get(),
        }
    }

    /// Whether the peer may have got anything of what was handed over since then.
    pub(crate) fn has_said(&self, since: &Moment) -> bool {
        self.written.get() > since.given
    }

    /// Whether the peer has said anything since then.
    pub(crate) fn has_heard(&self, since: &Moment) -> bool {
        self.heard.get() != since.heard
    }
}

/// A stream whose writes are gathered.
#[derive(Debug)]
pub(crate) struct Gathered<S = Stream>(Rc<RefCell<State<S>>>);

/// The other end: writes what was gathered.
#[derive(Debug)]
pub(crate) struct Gathering<S = Stream>(Rc<RefCell<State<S>>>);

#[derive(Debug)]
struct State<S> {
    stream: S,
    buffer: Vec<u8>,
    /// Bytes of the buffer that are written already.
    written: usize,
    traffic: Rc<Traffic>,
    /// How the stream failed. What is written from now on goes nowhere. h2 only sees its end, and that when it has read what the
    /// peer had said before: an error would make it forget that the peer has said that it goes.
    failed: Option<io::Error>,
    /// Reads that are left after the failure.
    last_words: u32,
}

/// Splits a stream for h2 and for the task that drives it.
pub(crate) fn gather<S>(stream: S) -> (Gathered<S>, Gathering<S>) {
    let state = Rc::new(RefCell::new(State {
        stream,
        buffer: Vec::new(),
        written: 0,
        traffic: Rc::default(),
        failed: None,
        last_words: LAST_WORDS,
    }));
    (Gathered(Rc::clone(&state)), Gathering(state))
}

impl<S: AsyncWrite + Unpin> Gathering<S> {
    /// Writes as much as the socket takes. Call it after h2 in each turn of the task; it wakes the task when there is room
    /// for more, and when h2 has to be told of an error.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) {
        let mut state = self.0.borrow_mut();
        if let Poll::Ready(Err(error)) = state.poll_flush(cx) {
            state.fail(error, cx);
        }
    }
}

impl<S> Gathering<S> {
    /// Changes whenever something was heard of the peer.
    pub(crate) fn heard(&self) -> u64 {
        self.0.borrow().traffic.heard.get()
    }

    /// How the stream failed, if it did.
    pub(crate) fn take_error(&self) -> Option<io::Error> {
        self.0.borrow_mut().failed.take()
    }

    pub(crate) fn traffic(&self) -> Rc<Traffic> {
        Rc::clone(&self.0.borrow().traffic)
    }
}

impl<S: AsyncWrite + Unpin> State<S> {
    fn waiting(&self) -> usize {
        self.buffer.len() - self.written
    }

    /// h2 is told by its next read, for which the task has to be woken: it may have read before it wrote.
    fn fail(&mut self, error: io::Error, cx: &Context<'_>) {
        self.failed.get_or_insert(error);
        self.buffer = Vec::new();
        self.written = 0;
        cx.waker().wake_by_ref();
    }

    /// Writes everything that was gathered.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.waiting() > 0 {
            let bytes = &self.buffer[self.written..];
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
            let total = &self.traffic.written;
            total.set(total.get() + written as u64);
        }
        self.written = 0;
        self.buffer.clear();
        self.buffer.shrink_to(KEPT);
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waiting() == 0 {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Makes room for at least one byte. What is written stays in the buffer until all is, so the buffer's length counts.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        if self.buffer.len() >= LIMIT
            && let Err(error) = ready!(self.poll_drain(cx))
        {
            self.fail(error, cx);
        }
        Poll::Ready(LIMIT - self.buffer.len())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.0.borrow_mut();
        if state.failed.is_some() {
            state.last_words = state.last_words.saturating_sub(1);
            if state.last_words == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut state.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            let heard = &state.traffic.heard;
            heard.set(heard.get().wrapping_add(1));
        }
        match read {
            Poll::Ready(Err(error)) => {
                state.fail(error, cx);
                Poll::Ready(Ok(()))
            }
            Poll::Pending if state.failed.is_some() => Poll::Ready(Ok(())),
            read => read,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.borrow_mut();
        let room = ready!(state.poll_room(cx));
        let mut taken = 0;
        for buf in bufs {
            let part = &buf[..buf.len().min(room - taken)];
            if state.failed.is_none() {
                state.buffer.extend_from_slice(part);
            }
            taken += part.len();
        }
        let given = &state.traffic.given;
        given.set(given.get() + taken as u64);
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Writes nothing: that is [`Gathering::poll`]'s.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.borrow_mut();
        if state.failed.is_some() {
            return Poll::Ready(Ok(()));
        }
        ready!(state.poll_flush(cx))?;
        Pin::new(&mut state.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
