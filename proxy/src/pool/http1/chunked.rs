//! Chunked bodies (RFC 9112, section 7.1), however the network cuts them.

use http::HeaderMap;

use super::head::{self, Malformed};

/// Most bytes of chunk extensions in a body. Nobody uses them; whoever sends many wants to be read for ever.
const MAX_EXTENSIONS: usize = 16 * 1024;

/// Most bytes of trailers.
const MAX_TRAILERS: usize = 16 * 1024;

/// Most digits of a chunk's size: 64 bits have no more, and zeros before them could go on for ever.
const MAX_DIGITS: u8 = 16;

/// Where in a chunked body the next byte belongs.
#[derive(Debug)]
pub(super) struct Chunked {
    state: State,
    extensions: usize,
    trailers: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// In a chunk's size, after so many digits.
    Size(u64, u8),
    /// After the size, where there may be blanks.
    Padding(u64),
    Extension(u64),
    /// The line feed of a size's line.
    SizeEnd(u64),
    /// So many bytes are left of a chunk.
    Data(u64),
    /// The line's end after a chunk.
    DataCr,
    DataLf,
    /// After the last chunk.
    Trailers,
    End,
}

/// What comes next in a body.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    Data(&'a [u8]),
    /// All was read that there is so far.
    More,
    /// The end; what is left of the input does not belong to the body.
    End(Option<HeaderMap>),
}

impl Chunked {
    pub(super) fn new() -> Chunked {
        Chunked {
            state: State::Size(0, 0),
            extensions: 0,
            trailers: Vec::new(),
        }
    }

    /// The next piece of `input`, which shrinks by what was read.
    pub(super) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Piece<'a>, Malformed> {
        loop {
            match self.state {
                State::Data(left) => {
                    if input.is_empty() {
                        return Ok(Piece::More);
                    }
                    let data = take_up_to(input, left);
                    let left = left - data.len() as u64;
                    self.state = if left == 0 {
                        State::DataCr
                    } else {
                        State::Data(left)
                    };
                    return Ok(Piece::Data(data));
                }
                State::End => {
                    let trailers = std::mem::take(&mut self.trailers);
                    return Ok(Piece::End(head::trailers(&trailers)?));
                }
                state => {
                    let Some((byte, rest)) = input.split_first() else {
                        return Ok(Piece::More);
                    };
                    *input = rest;
                    self.state = self.step(state, *byte)?;
                }
            }
        }
    }

    /// One byte outside of data.
    fn step(&mut self, state: State, byte: u8) -> Result<State, Malformed> {
        Ok(match (state, byte) {
            (State::Size(size, digits), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                if digits == MAX_DIGITS {
                    return Err(Malformed::ChunkSize);
                }
                State::Size(size << 4 | digit, digits + 1)
            }
            (State::Size(size, 1..) | State::Padding(size), b' ' | b'\t') => {
                self.count_extension()?;
                State::Padding(size)
            }
            (State::Size(size, 1..) | State::Padding(size), b';') => State::Extension(size),
            (State::Size(size, 1..) | State::Padding(size) | State::Extension(size), b'\r') => {
                State::SizeEnd(size)
            }
            // A line feed alone ends the line for some, and not for others: that is how messages are smuggled.
            (State::Extension(size), _) if byte != b'\n' => {
                self.count_extension()?;
                State::Extension(size)
            }
            (State::SizeEnd(0), b'\n') => State::Trailers,
            (State::SizeEnd(size), b'\n') => State::Data(size),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size(0, 0),
            (State::Trailers, _) => self.trailer(byte)?,
            _ => return Err(Malformed::Chunk),
        })
    }

    fn count_extension(&mut self) -> Result<(), Malformed> {
        self.extensions += 1;
        if self.extensions > MAX_EXTENSIONS {
            return Err(Malformed::TooLarge);
        }
        Ok(())
    }

    fn trailer(&mut self, byte: u8) -> Result<State, Malformed> {
        if self.trailers.len() >= MAX_TRAILERS {
            return Err(Malformed::TooLarge);
        }
        if byte == b'\n' && self.trailers.last() != Some(&b'\r') {
            return Err(Malformed::Chunk);
        }
        self.trailers.push(byte);
        let ended = self.trailers == b"\r\n" || self.trailers.ends_with(b"\r\n\r\n");
        Ok(if ended { State::End } else { State::Trailers })
    }
}

/// Splits off at most `most` bytes.
pub(super) fn take_up_to<'a>(input: &mut &'a [u8], most: u64) -> &'a [u8] {
    let length = usize::try_from(most).map_or(input.len(), |most| most.min(input.len()));
    let (taken, rest) = input.split_at(length);
    *input = rest;
    taken
}
