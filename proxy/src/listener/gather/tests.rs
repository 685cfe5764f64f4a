#![allow(clippy::unwrap_used)]
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::task::noop_waker_ref;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Gathered, LIMIT, gather};

/// Takes `room` bytes, then no more; remembers each write.
#[derive(Debug, Default)]
struct Socket {
    room: usize,
    writes: Vec<Vec<u8>>,
    broken: bool,
    shut: bool,
    /// What the peer has said; nothing more comes after it.
    said: Vec<&'static [u8]>,
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.said.pop() {
            Some(bytes) => {
                buf.put_slice(bytes);
                Poll::Ready(Ok(()))
            }
            None => Poll::Pending,
        }
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

fn read(gathered: &mut Gathered<Socket>, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
    let mut buffer = [0; 64];
    let mut buffer = ReadBuf::new(&mut buffer);
    let read = Pin::new(gathered).poll_read(cx, &mut buffer);
    read.map(|read| read.map(|()| buffer.filled().to_vec()))
}

#[test]
fn a_failed_write_is_told_after_the_peers_last_words() {
    let cx = &mut Context::from_waker(noop_waker_ref());
    for drained_by_h2 in [false, true] {
        let (mut gathered, gathering) = gather(socket(0));
        let bytes = vec![0; LIMIT];
        assert_eq!(taken(Pin::new(&mut gathered).poll_write(cx, &bytes)), LIMIT);
        {
            let socket = &mut gathering.0.borrow_mut().stream;
            socket.broken = true;
            socket.said = vec![b"GOAWAY", b"answer"];
        }
        if !drained_by_h2 {
            gathering.poll(cx);
        }
        // Nobody reads it, and nothing is kept.
        for _ in 0..3 {
            assert_eq!(taken(Pin::new(&mut gathered).poll_write(cx, &bytes)), LIMIT);
            gathering.poll(cx);
        }
        assert_eq!(gathering.0.borrow().buffer.capacity(), 0);
        for words in [&b"answer"[..], b"GOAWAY"] {
            let Poll::Ready(Ok(heard)) = read(&mut gathered, cx) else {
                panic!("{words:?} are lost");
            };
            assert_eq!(heard, words);
        }
        let Poll::Ready(Ok(end)) = read(&mut gathered, cx) else {
            panic!("the failure is kept secret");
        };
        assert!(end.is_empty());
        assert!(Pin::new(&mut gathered).poll_shutdown(cx).is_ready());
        let error = gathering.take_error().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}

#[test]
fn whoever_talks_for_ever_does_not_hide_a_failed_write() {
    let cx = &mut Context::from_waker(noop_waker_ref());
    let (mut gathered, gathering) = gather(socket(0));
    assert_eq!(taken(Pin::new(&mut gathered).poll_write(cx, b"lost")), 4);
    gathering.0.borrow_mut().stream.broken = true;
    gathering.0.borrow_mut().stream.said = vec![b"more"; 1_000_000];
    gathering.poll(cx);
    let is_end = |read| matches!(read, Poll::Ready(Ok(bytes)) if Vec::is_empty(&bytes));
    let told = (0..1_000_000).any(|_| is_end(read(&mut gathered, cx)));
    assert!(told && !gathering.0.borrow().stream.said.is_empty());
}

#[test]
fn it_is_known_what_has_left() {
    let cx = &mut Context::from_waker(noop_waker_ref());
    let (mut gathered, gathering) = gather(socket(4));
    let traffic = gathering.traffic();
    let start = traffic.now();
    assert_eq!(taken(Pin::new(&mut gathered).poll_write(cx, b"first")), 5);
    assert!(!traffic.has_said(&start));
    let then = traffic.now();
    assert_eq!(taken(Pin::new(&mut gathered).poll_write(cx, b"second")), 6);
    gathering.poll(cx);
    // The fifth byte of the first is still here.
    assert!(traffic.has_said(&start) && !traffic.has_said(&then));
    gathering.0.borrow_mut().stream.room = 1;
    gathering.poll(cx);
    assert!(!traffic.has_said(&then));
    gathering.0.borrow_mut().stream.room = 1;
    gathering.poll(cx);
    assert!(traffic.has_said(&then));
    assert!(!traffic.has_heard(&start));
    gathering.0.borrow_mut().stream.said = vec![b"x"];
    assert!(read(&mut gathered, cx).is_ready());
    assert!(traffic.has_heard(&then));
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
