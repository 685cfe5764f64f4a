//! Where the bytes of a message come from.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::tee::TeeSource;
use crate::error::Reason;
use crate::inference::ModelStream;
use crate::outbound::continuation::ContinuedStream;
use crate::pool::{Http1Response, Http2Lease, ResponseError, Upgraded};

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("HTTP/1: {0}")]
    Http1(#[from] hyper::Error),
    #[error("HTTP/1: {0}")]
    Http1Response(#[from] ResponseError),
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
            BodyError::Http1(_) | BodyError::Http1Response(_) => h2::Reason::INTERNAL_ERROR,
            BodyError::Clock(_) | BodyError::Superseded => h2::Reason::CANCEL,
        }
    }
}

/// A message's body as it arrives, from a client or from an upstream.
#[derive(Debug)]
pub(crate) enum Source {
    Empty,
    /// A response's, read with its head.
    Whole(Bytes),
    /// A request's.
    Http1(Http1Source),
    Http1Response(Box<Http1Response>),
    Http2(Http2Source),
    /// No body: the connection itself, which speaks another protocol now.
    Upgraded(Box<Upgraded>),
    /// A copy of a request's.
    Tee(TeeSource),
    /// With what was looked at already.
    Peeked(Box<Peeked>),
    /// A model's answer, which is looked at.
    Model(Box<ModelStream>),
    /// A model's answer, which goes on elsewhere where it breaks.
    Continued(Box<ContinuedStream>),
}

#[derive(Debug)]
pub(crate) struct Peeked {
    /// `None`: it was taken.
    first: Option<Result<Frame<Bytes>, BodyError>>,
    rest: Source,
}

#[derive(Debug)]
pub(crate) struct Http1Source {
    incoming: Incoming,
    ended: bool,
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
    /// A request's body.
    pub(crate) fn http1(incoming: Incoming) -> Source {
        if incoming.is_end_stream() {
            return Source::Empty;
        }
        Source::Http1(Http1Source {
            incoming,
            ended: false,
        })
    }

    /// A body that is there.
    pub(crate) fn whole(bytes: Bytes) -> Source {
        if bytes.is_empty() {
            Source::Empty
        } else {
            Source::Whole(bytes)
        }
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

impl Source {
    /// Ready when there is something to take, or nothing more will come. It stays where it is.
    pub(crate) fn poll_peek(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let found = matches!(self, Source::Peeked(peeked) if peeked.first.is_some());
        let waits = !found && !self.is_end_stream();
        if waits && let Some(first) = ready!(Pin::new(&mut *self).poll_frame(cx)) {
            let rest = std::mem::replace(self, Source::Empty);
            let first = Some(first);
            *self = Source::Peeked(Box::new(Peeked { first, rest }));
        }
        Poll::Ready(())
    }

    /// The trailers, where they are all that [`poll_peek`](Self::poll_peek) has found.
    pub(crate) fn peeked_trailers(&self) -> Option<&HeaderMap> {
        match self {
            Source::Peeked(peeked) => peeked.first.as_ref()?.as_ref().ok()?.trailers_ref(),
            _ => None,
        }
    }

    /// What is seen of a model's answer.
    pub(crate) fn model(&self) -> Option<&ModelStream> {
        match self {
            Source::Model(stream) => Some(stream),
            Source::Peeked(peeked) => peeked.rest.model(),
            _ => None,
        }
    }

    /// Whether [`poll_peek`](Self::poll_peek) has found that the body broke.
    pub(crate) fn is_broken(&self) -> bool {
        matches!(self, Source::Peeked(peeked) if matches!(peeked.first, Some(Err(_))))
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
            Source::Empty | Source::Upgraded(_) => Poll::Ready(None),
            Source::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Source::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Source::Http1(source) => source.poll(cx),
            Source::Http1Response(source) => {
                let frame = ready!(Pin::new(source).poll_frame(cx));
                Poll::Ready(frame.map(|result| result.map_err(BodyError::from)))
            }
            Source::Http2(source) => source.poll(cx),
            Source::Tee(source) => source.poll(cx),
            Source::Peeked(peeked) => match peeked.first.take() {
                Some(first) => Poll::Ready(Some(first)),
                None => Pin::new(&mut peeked.rest).poll_frame(cx),
            },
            Source::Model(stream) => Pin::new(&mut **stream).poll_frame(cx),
            Source::Continued(stream) => Pin::new(&mut **stream).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Source::Empty | Source::Upgraded(_) => true,
            Source::Whole(_) => false,
            Source::Http1Response(source) => source.is_end_stream(),
            Source::Http1(source) => source.ended || source.incoming.is_end_stream(),
            Source::Http2(source) => source.ended || source.stream.is_end_stream(),
            Source::Tee(source) => source.is_end_stream(),
            Source::Peeked(peeked) => peeked.first.is_none() && peeked.rest.is_end_stream(),
            Source::Model(stream) => stream.is_end_stream(),
            Source::Continued(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Source::Empty | Source::Upgraded(_) => SizeHint::with_exact(0),
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Http1Response(source) => source.size_hint(),
            Source::Http1(source) => source.incoming.size_hint(),
            // Where the length is known, the header says it.
            Source::Http2(_) | Source::Tee(_) => SizeHint::default(),
            Source::Peeked(peeked) => peeked.size_hint(),
            Source::Model(stream) => stream.size_hint(),
            Source::Continued(stream) => stream.size_hint(),
        }
    }
}

impl Peeked {
    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.size_hint();
        match &self.first {
            None => rest,
            Some(Ok(frame)) => match (rest.exact(), frame.data_ref()) {
                (Some(rest), Some(data)) => SizeHint::with_exact(rest + data.len() as u64),
                _ => SizeHint::default(),
            },
            Some(Err(_)) => SizeHint::default(),
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
                self.ended = frame.is_trailers() || self.incoming.is_end_stream();
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error.into()))),
            None => {
                self.ended = true;
                Poll::Ready(None)
            }
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
