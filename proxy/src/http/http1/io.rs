//! What stands between hyper's HTTP/1.1 and the socket: counts what is read, and writes interim responses.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::guard::Guard;
use crate::http::interim::{self, Interim};
use crate::listener::Stream;

/// What is known of a connection from outside of hyper. Used by one thread; it is `Sync` because an upgrade may carry the
/// socket, and this with it, anywhere.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// Something was read since the last head was whole.
    reading: AtomicBool,
    /// A head has two readings, and nothing more is read.
    ambiguous: AtomicBool,
    pub(super) interim: Arc<Interim>,
}

impl Meter {
    pub(super) fn head_done(&self) {
        self.reading.store(false, Relaxed);
    }

    /// Whether the next head has two readings.
    pub(super) fn is_ambiguous(&self) -> bool {
        self.ambiguous.load(Relaxed)
    }

    /// Whether a part of a head has arrived. Only meaningful between requests.
    pub(super) fn is_in_head(&self) -> bool {
        self.reading.load(Relaxed)
    }
}

#[derive(Debug)]
pub(super) struct Http1Io {
    stream: Stream,
    meter: Arc<Meter>,
    guard: Guard,
    /// Interim responses that are being written.
    extra: Vec<u8>,
    written: usize,
    /// hyper had nothing left to write when it last flushed: what is written now stands between two messages.
    clean: bool,
}

impl Http1Io {
    pub(super) fn new(stream: Stream, meter: Arc<Meter>) -> Http1Io {
        Http1Io {
            stream,
            meter,
            guard: Guard::default(),
            extra: Vec::new(),
            written: 0,
            clean: true,
        }
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }

    /// Writes the interim responses that wait. It is only called where a message may begin.
    fn poll_extra(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.meter.interim.is_waiting() {
            for response in self.meter.interim.take() {
                interim::encode(&response, &mut self.extra);
            }
        }
        while self.written < self.extra.len() {
            let rest = &self.extra[self.written..];
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        if self.written > 0 {
            self.extra = Vec::new();
            self.written = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// hyper writes this now.
    fn begin(&mut self, bytes: &[u8]) {
        if self.clean {
            self.guard.wrote(bytes);
        }
        self.clean = false;
    }

    /// Before hyper writes.
    fn poll_before(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.extra.is_empty() {
            return self.poll_extra(cx);
        }
        if self.meter.interim.is_waiting() {
            if self.clean {
                return self.poll_extra(cx);
            }
            // In the middle of the response's own bytes: too late.
            self.meter.interim.take();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Http1Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.meter.is_ambiguous() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.meter.reading.store(true, Relaxed);
            if self.guard.read(&buf.filled()[before..]).is_err() {
                buf.set_filled(before);
                if !self.guard.is_in_head() {
                    return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                }
                // hyper would close the connection without a word. Whoever polls it looks at the meter.
                self.meter.ambiguous.store(true, Relaxed);
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Http1Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_before(cx))?;
        self.begin(buf);
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_before(cx))?;
        self.begin(bufs.first().map_or(&[], |first| first));
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes when all it had was written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.clean = true;
        ready!(self.poll_extra(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
