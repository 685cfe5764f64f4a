//! Copies bytes both ways until both sides have said all they had to say.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use tokio::time::sleep;

use crate::http::clock::IdleTimer;
use crate::policy::TcpLimits;

/// A buffer's first size: most connections carry little most of the time.
const SMALL: usize = 2 * 1024;
/// A buffer grows to this when reads fill it. The most plaintext of a TLS record.
const LARGE: usize = 16 * 1024;

/// Bytes that went through.
#[derive(Default)]
pub(crate) struct Bytes {
    /// From the client.
    pub(crate) up: Cell<u64>,
    /// To the client.
    pub(crate) down: Cell<u64>,
    /// Called if the server's bytes are the first.
    pub(crate) server_first: Cell<Option<Box<dyn FnOnce()>>>,
}

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// Both sides closed.
    Closed,
    /// No byte moved for the idle time.
    Idle,
    /// Its time was over.
    Lifetime,
    /// The client's side broke.
    Client,
    /// The server's side broke.
    Server,
}

/// Copies between a client and a server. When one of them closes its side, the other is told, and may go on.
pub(crate) async fn both_ways<C, S>(
    client: &mut C,
    server: &mut S,
    limits: TcpLimits,
    bytes: &Bytes,
) -> End
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut up = Way::default();
    let mut down = Way::default();
    let mut timer = IdleTimer::new(limits.idle);
    let mut lifetime = limits.lifetime.map(|time| Box::pin(sleep(time)));
    poll_fn(|cx| {
        let before = up.moved + down.moved;
        let up_done = match up.poll(cx, client, server) {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(Broken::Reading)) => return Poll::Ready(End::Client),
            Poll::Ready(Err(Broken::Writing)) => return Poll::Ready(End::Server),
            Poll::Pending => false,
        };
        bytes.up.set(up.moved);
        let down_done = match down.poll(cx, server, client) {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(Broken::Reading)) => return Poll::Ready(End::Server),
            Poll::Ready(Err(Broken::Writing)) => return Poll::Ready(End::Client),
            Poll::Pending => false,
        };
        bytes.down.set(down.moved);
        if before == 0
            && up.moved + down.moved > 0
            && let Some(server_first) = bytes.server_first.take()
            && up.moved == 0
        {
            server_first();
        }
        if up_done && down_done {
            return Poll::Ready(End::Closed);
        }
        if up.moved + down.moved != before {
            timer.moved();
        }
        if let Some(lifetime) = &mut lifetime
            && lifetime.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(End::Lifetime);
        }
        timer.poll(cx).map(|()| End::Idle)
    })
    .await
}

/// One direction.
#[derive(Default)]
struct Way {
    /// Empty while there is nothing in it: an idle connection holds no memory.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    size: usize,
    read_all: bool,
    unflushed: bool,
    done: bool,
    moved: u64,
}

enum Broken {
    Reading,
    Writing,
}

impl Way {
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
    ) -> Poll<Result<(), Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        loop {
            while self.start < self.end {
                let rest = &self.buffer[self.start..self.end];
                let written =
                    ready!(Pin::new(&mut *to).poll_write(cx, rest)).map_err(|_| Broken::Writing)?;
                if written == 0 {
                    return Poll::Ready(Err(Broken::Writing));
                }
                self.start += written;
                self.moved += written as u64;
                self.unflushed = true;
            }
            if self.read_all {
                ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(|_| Broken::Writing)?;
                self.done = true;
                self.buffer = Vec::new();
                return Poll::Ready(Ok(()));
            }
            match self.poll_read(cx, from) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::Reading)),
                Poll::Pending => {
                    self.buffer = Vec::new();
                    if self.unflushed {
                        ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(|_| Broken::Writing)?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn poll_read<R: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
    ) -> Poll<io::Result<()>> {
        self.size = self.size.max(SMALL);
        if self.buffer.len() != self.size {
            self.buffer.resize(self.size, 0);
        }
        let mut read = ReadBuf::new(&mut self.buffer);
        ready!(Pin::new(from).poll_read(cx, &mut read))?;
        let count = read.filled().len();
        self.start = 0;
        self.end = count;
        if count == 0 {
            self.read_all = true;
        } else if count == self.size && self.size < LARGE {
            self.size *= 2;
        } else if count < self.size / 4 && self.size > SMALL {
            self.size /= 2;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
