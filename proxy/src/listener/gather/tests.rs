#![allow(clippy::unwrap_used)]
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::task::noop_waker_ref;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{LIMIT, gather};

/// Takes `room` bytes, then no more; remembers each write.
#[derive(Debug, Default)]
struct Socket {
    room: usize,
    writes: Vec<Vec<u8>>,
    broken: bool,
    shut: bool,
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let length = buf.len().min(self.room);
        if length == 0 {
            return Poll::Pending;
        }
        self.room -= length;
        self.writes.push(buf[..length].to_vec());
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut = true;
        Poll::Ready(Ok(()))
    }
}

fn socket(room: usize) -> Socket {
    Socket {
        room,
        ..Socket::default()
    }
}

fn taken(polled: Poll<io::Result<usize>>) -> usize {
    match polled {
        Poll::Ready(Ok(taken)) => taken,
        other => panic!("{other:?}"),
    }
}

#[test]
fn writes_of_one_turn_are_one() {
    let cx = &mut Context::from_waker(noop_waker_ref());
    let (mut gathered, gathering) = gather(socket(1000));
    let mut h2 = Pin::new(&mut gathered);
    let slices = [IoSlice::new(b"head"), IoSlice::new(b"body")];
    assert_eq!(taken(h2.as_mut().poll_write_vectored(cx, &slices)), 8);
    assert!(h2.as_mut().poll_flush(cx).is_ready());
    assert_eq!(taken(h2.as_mut().poll_write(cx, b"next")), 4);
    assert!(gathering.0.borrow().stream.writes.is_empty());
    gathering.poll(cx);
    assert_eq!(gathering.0.borrow().stream.writes, [b"headbodynext"]);
    // Nothing is written twice.
    gathering.poll(cx);
    assert_eq!(gathering.0.borrow().stream.writes.len(), 1);
}

#[test]
fn a_slow_socket_stops_the_writer() {
    let cx = &mut Context::from_waker(noop_waker_ref());
    let (mut gathered, gathering) = gather(socket(10));
    let mut h2 = Pin::new(&mut gathered);
    let bytes: Vec<u8> = (0..LIMIT * 2).map(|at| at as u8).collect();
    assert_eq!(taken(h2.as_mut().poll_write(cx, &bytes)), LIMIT);
    // Ten bytes go out, and there is room again only once everything is out: the buffer does not grow.
    assert!(h2.as_mut().poll_write(cx, &bytes).is_pending());
    assert!(h2.as_mut().poll_write(cx, &bytes).is_pending());
    gathering.0.borrow_mut().stream.room = usize::MAX;
    assert_eq!(taken(h2.as_mut().poll_write(cx, &bytes[LIMIT..])), LIMIT);
    gathering.poll(cx);
    assert_eq!(gathering.0.borrow().stream.writes.concat(), bytes);
    assert!(gathering.0.borrow().buffer.capacity() < LIMIT);
}

#[test]
fn the_writer_hears_of_a_failure() {
    let cx = &mut Context::from_waker(noop_waker_ref());
    let (mut gathered, gathering) = gather(socket(0));
    let mut h2 = Pin::new(&mut gathered);
    assert_eq!(taken(h2.as_mut().poll_write(cx, b"lost")), 4);
    gathering.0.borrow_mut().stream.broken = true;
    gathering.poll(cx);
    let Poll::Ready(Err(error)) = h2.as_mut().poll_write(cx, b"more") else {
        panic!("the failure is kept secret");
    };
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_shutdown_writes_first() {
    let cx = &mut Context::from_waker(noop_waker_ref());
    let (mut gathered, gathering) = gather(socket(2));
    let mut h2 = Pin::new(&mut gathered);
    assert_eq!(taken(h2.as_mut().poll_write(cx, b"bye")), 3);
    assert!(h2.as_mut().poll_shutdown(cx).is_pending());
    assert!(!gathering.0.borrow().stream.shut);
    gathering.0.borrow_mut().stream.room = 10;
    assert!(h2.as_mut().poll_shutdown(cx).is_ready());
    assert!(gathering.0.borrow().stream.shut);
    assert_eq!(gathering.0.borrow().stream.writes.concat(), b"bye");
}
