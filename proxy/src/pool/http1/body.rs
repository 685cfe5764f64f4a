//! Decodes a response's body as it is read.

use bytes::Bytes;
use http::HeaderMap;

use super::chunked::{Chunked, Piece, take_up_to};
use super::head::{Framing, Malformed};

/// Where in a body the next byte belongs.
#[derive(Debug)]
enum Decoder {
    Length(u64),
    Chunked(Chunked),
    Close,
}

impl Decoder {
    fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Piece<'a>, Malformed> {
        match self {
            Decoder::Chunked(chunked) => chunked.next(input),
            Decoder::Length(0) => Ok(Piece::End(None)),
            _ if input.is_empty() => Ok(Piece::More),
            Decoder::Length(left) => {
                let data = take_up_to(input, *left);
                *left -= data.len() as u64;
                Ok(Piece::Data(data))
            }
            Decoder::Close => Ok(Piece::Data(std::mem::take(input))),
        }
    }
}

/// What was read of a body.
#[derive(Debug)]
pub(super) struct Incoming {
    decoder: Decoder,
    /// Read, and not taken yet.
    pub(super) data: Bytes,
    pub(super) trailers: Option<HeaderMap>,
    pub(super) end: Option<End>,
}

/// How a body came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With nothing behind it.
    Clean,
    /// The server said more than it was asked for, or closed the connection.
    Last,
}

impl Incoming {
    pub(super) fn new(framing: Framing) -> Incoming {
        Incoming {
            decoder: match framing {
                Framing::Empty | Framing::Upgrade => Decoder::Length(0),
                Framing::Length(length) => Decoder::Length(length),
                Framing::Chunked => Decoder::Chunked(Chunked::new()),
                Framing::Close => Decoder::Close,
            },
            data: Bytes::new(),
            trailers: None,
            end: None,
        }
    }

    /// Takes bytes from the connection. To be called when all data was taken, and the body has not ended.
    pub(super) fn read(&mut self, mut input: &[u8]) -> Result<(), Malformed> {
        let size = input.len();
        let mut first: &[u8] = &[];
        // Where more than one chunk was read, they become one.
        let mut all = Vec::new();
        loop {
            match self.decoder.next(&mut input)? {
                Piece::Data(data) if first.is_empty() => first = data,
                Piece::Data(data) => {
                    if all.is_empty() {
                        all.reserve_exact(size);
                        all.extend_from_slice(first);
                    }
                    all.extend_from_slice(data);
                }
                Piece::More => break,
                Piece::End(trailers) => {
                    self.trailers = trailers;
                    self.end = Some(if input.is_empty() {
                        End::Clean
                    } else {
                        End::Last
                    });
                    break;
                }
            }
        }
        self.data = if all.is_empty() {
            Bytes::copy_from_slice(first)
        } else {
            Bytes::from(all)
        };
        Ok(())
    }

    /// The connection was closed. Whether the body ends with it.
    pub(super) fn close(&mut self) -> bool {
        let ends = matches!(self.decoder, Decoder::Close);
        if ends {
            self.end = Some(End::Last);
        }
        ends
    }

    /// Whether everything was read and taken.
    pub(super) fn is_over(&self) -> bool {
        self.end.is_some() && self.data.is_empty() && self.trailers.is_none()
    }

    /// Bytes still to be taken, where that is known.
    pub(super) fn left(&self) -> Option<u64> {
        match self.decoder {
            Decoder::Length(left) => Some(left + self.data.len() as u64),
            _ => None,
        }
    }
}
