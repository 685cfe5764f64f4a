//! Refuses requests that two parsers may read differently (request smuggling), before hyper reads them.
//!
//! hyper takes what RFC 9112 allows a server to take: lines that end in a bare LF (section 2.2), a length beside a coding,
//! of which it drops the length (section 6.3), the same length twice. What it passes on is well-formed, but whoever stands
//! in front of this sidecar may have read the same bytes in the other way. A proxy is safest with one reading of everything.
//!
//! It follows the bytes only as far as it must to know where the next head begins.

use memchr::memchr;

/// A line that is longer is left to hyper, which refuses the head.
const LONGEST_LINE: usize = super::MAX_HEAD;

/// Longest line of a chunk's size and extensions. Nobody uses extensions; hyper has 16 KiB for all of a body's.
const LONGEST_CHUNK_LINE: usize = 16 * 1024;

/// Where the status stands in `HTTP/1.1 200`.
const STATUS: usize = 9;

/// The bytes have more than one reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ambiguous;

/// What the next bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The request line, or empty lines before it.
    RequestLine,
    Headers,
    /// So many bytes of a body with a length.
    Body(u64),
    ChunkSize,
    ChunkData(u64),
    /// The line's end after a chunk's data.
    ChunkEnd,
    Trailers,
    /// Another protocol, or a head that hyper refuses.
    Opaque,
}

/// Follows one connection's requests.
#[derive(Debug)]
pub(crate) struct Guard {
    state: State,
    /// The beginning of a line whose end was not read yet.
    line: Vec<u8>,
    /// Of the head being read.
    http10: bool,
    length: Option<u64>,
    chunked: bool,
    /// The first digit of the status that turns the connection into another protocol, if the last request asked for one.
    upgrade: Option<u8>,
}

impl Default for Guard {
    fn default() -> Guard {
        Guard {
            state: State::RequestLine,
            line: Vec::new(),
            http10: false,
            length: None,
            chunked: false,
            upgrade: None,
        }
    }
}

impl Guard {
    /// The next bytes from the client, in whatever pieces.
    ///
    /// # Errors
    /// Something has two readings. Nothing that follows on the connection can be trusted.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) -> Result<(), Ambiguous> {
        while !bytes.is_empty() {
            match self.state {
                State::Opaque => return Ok(()),
                State::Body(left) => {
                    let rest = skip(&mut bytes, left);
                    self.state = match rest {
                        0 => State::RequestLine,
                        rest => State::Body(rest),
                    };
                }
                State::ChunkData(left) => {
                    let rest = skip(&mut bytes, left);
                    self.state = match rest {
                        0 => State::ChunkEnd,
                        rest => State::ChunkData(rest),
                    };
                }
                _ => self.read_line(&mut bytes)?,
            }
        }
        Ok(())
    }

    /// Whether a head is being read, or nothing yet.
    pub(crate) fn is_in_head(&self) -> bool {
        matches!(self.state, State::RequestLine | State::Headers)
    }

    /// The first bytes of a response: an upgrade that it accepts ends what is known of the bytes that follow.
    pub(crate) fn wrote(&mut self, response: &[u8]) {
        if let Some(accepted) = self.upgrade.take()
            && response.get(STATUS) == Some(&accepted)
            && self.state == State::RequestLine
        {
            self.state = State::Opaque;
        }
    }

    fn read_line(&mut self, bytes: &mut &[u8]) -> Result<(), Ambiguous> {
        let Some(end) = memchr(b'\n', bytes) else {
            let longest = match self.state {
                State::RequestLine | State::Headers => LONGEST_LINE,
                _ => LONGEST_CHUNK_LINE,
            };
            if self.line.len() + bytes.len() > longest {
                self.line = Vec::new();
                self.state = State::Opaque;
            } else {
                self.line.extend_from_slice(bytes);
            }
            *bytes = &[];
            return Ok(());
        };
        let (line, rest) = bytes.split_at(end + 1);
        *bytes = rest;
        if self.line.is_empty() {
            return self.line(line);
        }
        let mut whole = std::mem::take(&mut self.line);
        whole.extend_from_slice(line);
        self.line(&whole)
    }

    /// A line with its end.
    fn line(&mut self, line: &[u8]) -> Result<(), Ambiguous> {
        let line = line.strip_suffix(b"\r\n").ok_or(Ambiguous)?;
        match self.state {
            // RFC 9112, section 2.2: empty lines before a request are to be ignored.
            State::RequestLine if line.is_empty() => {}
            State::RequestLine => {
                self.http10 = line.ends_with(b"HTTP/1.0");
                self.upgrade = line.starts_with(b"CONNECT ").then_some(b'2');
                self.length = None;
                self.chunked = false;
                self.state = State::Headers;
            }
            State::Headers if line.is_empty() => self.state = self.body()?,
            State::Headers => self.header(line)?,
            State::ChunkSize => {
                self.state = match chunk_size(line)? {
                    0 => State::Trailers,
                    size => State::ChunkData(size),
                };
            }
            State::ChunkEnd if line.is_empty() => self.state = State::ChunkSize,
            State::ChunkEnd => return Err(Ambiguous),
            State::Trailers if line.is_empty() => self.state = State::RequestLine,
            State::Trailers => {
                if is_folded(line) {
                    return Err(Ambiguous);
                }
            }
            State::Body(_) | State::ChunkData(_) | State::Opaque => {}
        }
        Ok(())
    }

    /// What stands between this head and the next.
    fn body(&self) -> Result<State, Ambiguous> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Ambiguous),
            // A server of HTTP/1.0 in front of us would have taken the chunks for something else (RFC 9112, section 6.1).
            (true, None) if self.http10 => Err(Ambiguous),
            (true, None) => Ok(State::ChunkSize),
            (false, Some(length @ 1..)) => Ok(State::Body(length)),
            (false, _) => Ok(State::RequestLine),
        }
    }

    fn header(&mut self, line: &[u8]) -> Result<(), Ambiguous> {
        if is_folded(line) {
            return Err(Ambiguous);
        }
        let Some(colon) = memchr(b':', line) else {
            // hyper refuses it.
            return Ok(());
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if self.length.is_some()
                    || value.is_empty()
                    || !value.iter().all(u8::is_ascii_digit)
                {
                    return Err(Ambiguous);
                }
                let digits = std::str::from_utf8(value).map_err(|_| Ambiguous)?;
                self.length = Some(digits.parse().map_err(|_| Ambiguous)?);
            }
            // Codings other than chunked are not for proxies to guess at.
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Ambiguous);
                }
                self.chunked = true;
            }
            // Interim responses are not written by hyper: a 1 is a 101.
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade = Some(b'1'),
            _ => {}
        }
        Ok(())
    }
}

/// Takes at most `left` bytes away; what is left after that.
fn skip(bytes: &mut &[u8], left: u64) -> u64 {
    let taken = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
    *bytes = &bytes[taken..];
    left - taken as u64
}

/// A line that goes on from the one before (RFC 9112, section 5.2).
fn is_folded(line: &[u8]) -> bool {
    matches!(line.first(), Some(b' ' | b'\t'))
}

fn chunk_size(line: &[u8]) -> Result<u64, Ambiguous> {
    let size = memchr(b';', line).map_or(line, |end| &line[..end]);
    let size = size.trim_ascii_end();
    if size.is_empty() || size.len() > 16 || !size.iter().all(u8::is_ascii_hexdigit) {
        return Err(Ambiguous);
    }
    let digits = std::str::from_utf8(size).map_err(|_| Ambiguous)?;
    u64::from_str_radix(digits, 16).map_err(|_| Ambiguous)
}

#[cfg(test)]
mod tests;
