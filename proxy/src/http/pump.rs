//! Sends a body on an HTTP/2 stream as fast as flow control allows, and no faster.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use http_body::Body;

use super::body::BodyError;
use super::clock::IdleTimer;

/// What is pumped.
pub(crate) trait PumpBody: Body<Data = Bytes, Error = BodyError> + Unpin {
    /// How long the peer may leave no room for more. `None`: for ever.
    fn patience(&self) -> Option<Duration> {
        None
    }

    /// The peer left no room for so long: the stream is reset.
    fn gave_up(&mut self) {}
}

/// How sending ended early.
#[derive(Debug)]
pub(crate) enum PumpError {
    /// The body did not come to its end; the stream was reset.
    Body,
    /// The peer reset the stream, or the connection is gone.
    Peer,
}

/// Bytes of window that a stream asks for ahead of its next chunk: enough to get in line, h2 raises the demand to what is sent.
/// More would pin the connection's window for a stream that waits. Asked for when the chunk is there, the room would wake the
/// very task that asks, to find nothing.
const IN_LINE: usize = 1;

/// Sends a body to its end.
pub(crate) struct Pump<B> {
    body: B,
    stream: SendStream<Bytes>,
    /// Taken from the body, waiting for window. The flag: it is the last one.
    held: Option<(Bytes, bool)>,
    stall: IdleTimer,
}

impl<B: PumpBody> Pump<B> {
    pub(crate) fn new(body: B, mut stream: SendStream<Bytes>) -> Pump<B> {
        stream.reserve_capacity(IN_LINE);
        Pump {
            stall: IdleTimer::new(body.patience()),
            body,
            stream,
            held: None,
        }
    }

    fn poll_send_held(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, PumpError>> {
        while self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Err(PumpError::Peer)),
            }
        }
        // `poll_send_held` is called with something held.
        let Some((data, last)) = self.held.take() else {
            return Poll::Ready(Ok(false));
        };
        match self.stream.send_data(data, last) {
            Ok(()) => Poll::Ready(Ok(last)),
            Err(_) => Poll::Ready(Err(PumpError::Peer)),
        }
    }
}

impl<B: PumpBody> Future for Pump<B> {
    type Output = Result<(), PumpError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let me = &mut *self;
        loop {
            if me.held.is_some() {
                match me.poll_send_held(cx) {
                    Poll::Ready(Ok(true)) => return Poll::Ready(Ok(())),
                    Poll::Ready(Ok(false)) => {
                        me.stall.moved();
                        me.stream.reserve_capacity(IN_LINE);
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {
                        if me.stall.poll(cx).is_ready() {
                            me.body.gave_up();
                            me.stream.send_reset(h2::Reason::CANCEL);
                            return Poll::Ready(Err(PumpError::Body));
                        }
                        return me.poll_reset(cx);
                    }
                }
            }
            // The next chunk is taken only now: what is held here is all that waits outside of the stream's own buffer.
            let frame = match Pin::new(&mut me.body).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => return me.poll_reset(cx),
            };
            match frame {
                None => {
                    let ended = me.stream.send_data(Bytes::new(), true);
                    return Poll::Ready(ended.map_err(|_| PumpError::Peer));
                }
                Some(Err(error)) => {
                    me.stream.send_reset(error.reset_code());
                    return Poll::Ready(Err(PumpError::Body));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let last = me.body.is_end_stream();
                        if data.is_empty() && !last {
                            // Peers count empty frames as abuse.
                            continue;
                        }
                        if data.is_empty() {
                            let ended = me.stream.send_data(data, true);
                            return Poll::Ready(ended.map_err(|_| PumpError::Peer));
                        }
                        me.held = Some((data, last));
                    }
                    Err(frame) => {
                        let Ok(trailers) = frame.into_trailers() else {
                            continue;
                        };
                        me.stream.reserve_capacity(0);
                        let ended = me.stream.send_trailers(trailers);
                        return Poll::Ready(ended.map_err(|_| PumpError::Peer));
                    }
                },
            }
        }
    }
}

impl<B> Pump<B> {
    /// Nothing can be sent now: ends where the peer has reset the stream.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PumpError>> {
        match self.stream.poll_reset(cx) {
            Poll::Ready(_) => Poll::Ready(Err(PumpError::Peer)),
            Poll::Pending => Poll::Pending,
        }
    }
}
