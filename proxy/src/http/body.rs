//! Where the bytes of a message come from.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::error::Reason;
use crate::pool::{Http1Lease, Http2Lease};

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("HTTP/1: {0}")]
    Http1(#[from] hyper::Error),
    #[error("HTTP/2: {0}")]
    Http2(#[from] h2::Error),
    /// By one of our own clocks.
    #[error("{}", .0.as_str())]
    Clock(Reason),
    /// The request goes on in another try.
    #[error("the request is sent again elsewhere")]
    Superseded,
}

impl BodyError {
    /// What the other side of an HTTP/2 stream is told (RFC 9113, section 7).
    pub(crate) fn reset_code(&self) -> h2::Reason {
        match self {
            BodyError::Http2(error) => match error.reason() {
                // "No error" and "never processed" would be lies in the middle of a message.
                None | Some(h2::Reason::NO_ERROR | h2::Reason::REFUSED_STREAM) => {
                    h2::Reason::INTERNAL_ERROR
                }
                Some(reason) => reason,
            },
            BodyError::Http1(_) => h2::Reason::INTERNAL_ERROR,
            BodyError::Clock(_) | BodyError::Superseded => h2::Reason::CANCEL,
        }
    }
}

/// A message's body as it arrives, from a client or from an upstream.
#[derive(Debug)]
pub(crate) enum Source {
    Empty,
    Http1(Http1Source),
    Http2(Http2Source),
}

#[derive(Debug)]
pub(crate) struct Http1Source {
    incoming: Incoming,
    ended: bool,
    /// A response's connection, for the next request. `None` for requests.
    lease: Option<Http1Lease>,
}

#[derive(Debug)]
pub(crate) struct Http2Source {
    stream: h2::RecvStream,
    /// What is left are trailers.
    data_ended: bool,
    ended: bool,
    /// What a response holds while it lasts. `None` for requests.
    _lease: Option<Http2Lease>,
}

impl Source {
    /// A request's body, or a response's with the connection that it comes from.
    pub(crate) fn http1(incoming: Incoming, lease: Option<Http1Lease>) -> Source {
        if incoming.is_end_stream() {
            if let Some(lease) = lease {
                lease.give_back();
            }
            return Source::Empty;
        }
        Source::Http1(Http1Source {
            incoming,
            ended: false,
            lease,
        })
    }

    /// A request's body, or a response's with its place on the connection.
    pub(crate) fn http2(stream: h2::RecvStream, lease: Option<Http2Lease>) -> Source {
        if stream.is_end_stream() {
            return Source::Empty;
        }
        Source::Http2(Http2Source {
            stream,
            data_ended: false,
            ended: false,
            _lease: lease,
        })
    }
}

impl Body for Source {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Source::Empty => Poll::Ready(None),
            Source::Http1(source) => source.poll(cx),
            Source::Http2(source) => source.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Source::Empty => true,
            Source::Http1(source) => source.ended || source.incoming.is_end_stream(),
            Source::Http2(source) => source.ended || source.stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Source::Empty => SizeHint::with_exact(0),
            Source::Http1(source) => source.incoming.size_hint(),
            // Where the length is known, the header says it.
            Source::Http2(_) => SizeHint::default(),
        }
    }
}

impl Http1Source {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        match frame {
            Some(Ok(frame)) => {
                // Nothing follows trailers, and nobody asks whether something does.
                if frame.is_trailers() || self.incoming.is_end_stream() {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.lease = None;
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                self.end();
                Poll::Ready(None)
            }
        }
    }

    fn end(&mut self) {
        self.ended = true;
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}

impl Http2Source {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Whoever asks for a chunk has room for it. Fails only on a stream that is gone.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(error.into())));
                }
                None => self.data_ended = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx));
        self.ended = true;
        Poll::Ready(match trailers {
            Ok(Some(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Ok(None) => None,
            Err(error) => Some(Err(error.into())),
        })
    }
}
