//! A request on its way to a server.

use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request};
use http_body::Body;

use super::head::Asked;
use super::socket::Socket;
use crate::http::headers;
use crate::http::replay::RequestBody;

/// A chunk up to this size is copied behind the head, or behind the chunk before: one buffer for one write.
const COPIED: usize = 4 * 1024;

/// Bytes that are gathered for one write.
const GATHERED: usize = 16 * 1024;

/// Why a request could not be sent to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Its body broke, or is not as long as its head says.
    #[error("the request did not come to its end")]
    Body,
}

/// How a request's body is delimited.
#[derive(Debug)]
enum Framing {
    Empty,
    /// So many bytes are left.
    Length(u64),
    /// Trailers are passed on where the head has named them.
    Chunked(Vec<HeaderName>),
}

/// A request, encoded piece by piece as the server takes it.
#[derive(Debug)]
pub(super) struct Outgoing {
    asked: Asked,
    body: RequestBody,
    framing: Framing,
    /// The body was read to its end.
    encoded: bool,
    /// Encoded; comes before `chunk`.
    buffer: Vec<u8>,
    written: usize,
    /// A larger chunk, not copied.
    chunk: Bytes,
    /// The line's end after the last chunk is still to be written.
    chunk_is_open: bool,
    begun: bool,
    flushed: bool,
}

impl Outgoing {
    /// `upgrade`: the request asks for another protocol, and may get it.
    pub(super) fn new(request: Request<RequestBody>, upgrade: bool) -> Outgoing {
        let (head, body) = request.into_parts();
        let length = headers::content_length(&head.headers);
        let framing = match length {
            _ if body.is_end_stream() => Framing::Empty,
            Some(length) => Framing::Length(length),
            None => Framing::Chunked(named_trailers(&head.headers)),
        };
        let mut buffer = Vec::with_capacity(1024);
        buffer.extend_from_slice(head.method.as_str().as_bytes());
        buffer.push(b' ');
        let target = head.uri.path_and_query().map_or("/", |path| path.as_str());
        buffer.extend_from_slice(target.as_bytes());
        buffer.extend_from_slice(b" HTTP/1.1\r\n");
        encode_headers(&head.headers, &mut buffer);
        match (&framing, length) {
            (Framing::Chunked(_), _) => {
                buffer.extend_from_slice(b"transfer-encoding: chunked\r\n");
            }
            // The same as what the head says: a body that is sent is as long as it says.
            (Framing::Length(length), _) => encode_length(*length, &mut buffer),
            (Framing::Empty, Some(_)) => encode_length(0, &mut buffer),
            // Servers ask for a length where the method has a body (RFC 9110, section 8.6).
            (Framing::Empty, None) if has_body(&head.method) => encode_length(0, &mut buffer),
            (Framing::Empty, None) => {}
        }
        buffer.extend_from_slice(b"\r\n");
        Outgoing {
            asked: Asked {
                head_only: head.method == Method::HEAD,
                upgrade,
            },
            encoded: matches!(framing, Framing::Empty),
            body,
            framing,
            buffer,
            written: 0,
            chunk: Bytes::new(),
            chunk_is_open: false,
            begun: false,
            flushed: false,
        }
    }

    pub(super) fn asked(&self) -> Asked {
        self.asked
    }

    /// Whether the server may have seen a part of it.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Sends what there is. Ready when all was sent.
    pub(super) fn poll_send(
        &mut self,
        socket: &Socket,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SendError>> {
        loop {
            let waiting = self.poll_fill(cx)?.is_pending();
            while self.written < self.buffer.len() || !self.chunk.is_empty() {
                let first = &self.buffer[self.written..];
                let count = ready!(socket.poll_write(cx, first, &self.chunk))?;
                self.begun = true;
                self.flushed = false;
                let of_first = count.min(first.len());
                self.written += of_first;
                self.chunk.advance(count - of_first);
            }
            self.buffer.clear();
            self.written = 0;
            if self.encoded {
                // What waits for an answer, for minutes perhaps, holds no buffer.
                self.buffer = Vec::new();
            }
            if self.encoded || waiting {
                if !self.flushed {
                    ready!(socket.poll_flush(cx))?;
                    self.flushed = true;
                }
                return if self.encoded {
                    Poll::Ready(Ok(()))
                } else {
                    Poll::Pending
                };
            }
        }
    }

    /// Encodes what there is of the body, as far as there is room. Pending: the body has to be waited for.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        while !self.encoded && self.chunk.is_empty() && self.buffer.len() < GATHERED {
            if std::mem::take(&mut self.chunk_is_open) {
                self.buffer.extend_from_slice(b"\r\n");
            }
            if self.body.is_end_stream() {
                self.end(None)?;
                break;
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.encode(data)?,
                    Err(frame) => self.end(frame.into_trailers().ok())?,
                },
                None => self.end(None)?,
                Some(Err(error)) => {
                    tracing::debug!(%error, "request not sent to its end");
                    return Poll::Ready(Err(SendError::Body));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn encode(&mut self, data: Bytes) -> Result<(), SendError> {
        if data.is_empty() {
            return Ok(());
        }
        match &mut self.framing {
            Framing::Empty => return Err(SendError::Body),
            Framing::Length(left) => {
                let length = data.len() as u64;
                *left = left.checked_sub(length).ok_or(SendError::Body)?;
            }
            Framing::Chunked(_) => {
                // Writing to a vector does not fail.
                let _ = write!(self.buffer, "{:x}\r\n", data.len());
                self.chunk_is_open = true;
            }
        }
        if data.len() <= COPIED {
            self.buffer.extend_from_slice(&data);
        } else {
            self.chunk = data;
        }
        Ok(())
    }

    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), SendError> {
        self.encoded = true;
        match &self.framing {
            Framing::Empty | Framing::Length(0) => {}
            Framing::Length(_) => return Err(SendError::Body),
            Framing::Chunked(named) => {
                if std::mem::take(&mut self.chunk_is_open) {
                    self.buffer.extend_from_slice(b"\r\n");
                }
                self.buffer.extend_from_slice(b"0\r\n");
                for (name, value) in trailers.iter().flatten() {
                    if named.contains(name) {
                        encode_header(name, value, &mut self.buffer);
                    }
                }
                self.buffer.extend_from_slice(b"\r\n");
            }
        }
        Ok(())
    }
}

/// Whether requests of a method usually have a body.
fn has_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

fn encode_headers(headers: &HeaderMap, buffer: &mut Vec<u8>) {
    for (name, value) in headers {
        // What delimits the body is written by whoever sends the body.
        if name != header::CONTENT_LENGTH && name != header::TRANSFER_ENCODING {
            encode_header(name, value, buffer);
        }
    }
}

fn encode_header(name: &HeaderName, value: &HeaderValue, buffer: &mut Vec<u8>) {
    buffer.extend_from_slice(name.as_str().as_bytes());
    buffer.extend_from_slice(b": ");
    buffer.extend_from_slice(value.as_bytes());
    buffer.extend_from_slice(b"\r\n");
}

fn encode_length(length: u64, buffer: &mut Vec<u8>) {
    // Writing to a vector does not fail.
    let _ = write!(buffer, "content-length: {length}\r\n");
}

/// The trailers that a head announces, without those that only a head may have (RFC 9110, section 6.5.1).
fn named_trailers(headers: &HeaderMap) -> Vec<HeaderName> {
    const NEVER: [HeaderName; 13] = [
        header::AUTHORIZATION,
        header::CACHE_CONTROL,
        header::CONNECTION,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
        header::COOKIE,
        header::HOST,
        header::MAX_FORWARDS,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
    ];
    headers
        .get_all(header::TRAILER)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| !NEVER.contains(name))
        .collect()
}
