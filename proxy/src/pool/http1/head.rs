//! The head of a response, and what it says about the rest (RFC 9112, sections 4 to 6).

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::response::Parts;
use http::{Response, StatusCode, Version};
use httparse::{ParserConfig, Status};
use hyper::ext::ReasonPhrase;

use crate::http::headers;

/// Most bytes of a head.
pub(super) const MAX_HEAD: usize = 128 * 1024;

/// Most headers of a head, and most trailers.
const MAX_HEADERS: usize = 100;

/// Most interim responses before a response. A server that says "102 Processing" each second is alive for a quarter of an hour;
/// one that says nothing else keeps us busy.
const MAX_INTERIM: u32 = 1000;

/// Why an answer is not one of HTTP/1.1's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("a head or a header that is none")]
    Head,
    #[error("a head, trailers or chunk extensions that are too large")]
    TooLarge,
    #[error("a length that is none, or more than one length")]
    Length,
    #[error("a transfer coding other than chunked, or one with a length")]
    TransferCoding,
    #[error("a chunk's size that is none")]
    ChunkSize,
    #[error("chunks that are none")]
    Chunk,
    #[error("interim responses without an end")]
    Interim,
    #[error("a change of protocol that nobody asked for")]
    Upgrade,
}

/// What was asked, as far as the answer's framing depends on it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    /// With HEAD.
    pub(super) head_only: bool,
    /// For another protocol.
    pub(super) upgrade: bool,
}

/// Where a response's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none.
    Empty,
    Length(u64),
    Chunked,
    /// With the connection.
    Close,
    /// What follows is another protocol.
    Upgrade,
}

/// A head, read and understood.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) parts: Parts,
    pub(super) framing: Framing,
    /// The connection may be used again after the body.
    pub(super) keep_alive: bool,
}

impl Head {
    /// Whether another head follows.
    pub(super) fn is_interim(&self) -> bool {
        self.parts.status.is_informational() && self.framing != Framing::Upgrade
    }
}

/// Reads heads, however the network cuts them.
#[derive(Debug, Default)]
pub(super) struct HeadReader {
    /// What came before the rest of it.
    partial: Vec<u8>,
    begun: bool,
    interim: u32,
}

impl HeadReader {
    /// Whether anything has come, interim responses among it.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// The next head of `input`, which shrinks by what was read. `None`: there is more to come.
    pub(super) fn next(
        &mut self,
        input: &mut &[u8],
        asked: Asked,
    ) -> Result<Option<Head>, Malformed> {
        let head = self.read(input, asked)?;
        if head.as_ref().is_some_and(Head::is_interim) {
            self.interim += 1;
            if self.interim > MAX_INTERIM {
                return Err(Malformed::Interim);
            }
        }
        Ok(head)
    }

    fn read(&mut self, input: &mut &[u8], asked: Asked) -> Result<Option<Head>, Malformed> {
        self.begun |= !input.is_empty();
        if self.partial.is_empty() {
            if let Some(end) = find_end(input, 0) {
                let (text, rest) = input.split_at(end);
                *input = rest;
                return parse(text, asked).map(Some);
            }
            self.partial.extend_from_slice(input);
        } else {
            let before = self.partial.len();
            self.partial.extend_from_slice(input);
            // An empty line may be cut anywhere.
            if let Some(end) = find_end(&self.partial, before.saturating_sub(2)) {
                *input = &input[end - before..];
                self.partial.truncate(end);
                let text = std::mem::take(&mut self.partial);
                return parse(&text, asked).map(Some);
            }
        }
        *input = &[];
        if !may_be_head(&self.partial) {
            return Err(Malformed::Head);
        }
        if self.partial.len() > MAX_HEAD {
            return Err(Malformed::TooLarge);
        }
        Ok(None)
    }
}

/// Whether text may be the beginning of a head: a server of something else may wait for us, without ever ending a line.
fn may_be_head(text: &[u8]) -> bool {
    const START: &[u8] = b"HTTP/1.";
    let text = text.trim_ascii_start();
    let length = text.len().min(START.len());
    text[..length] == START[..length]
}

/// Where the first empty line ends. A line may end without a carriage return (section 2.2). No line ends before `from`.
fn find_end(text: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(next) = text.get(at..)?.iter().position(|byte| *byte == b'\n') {
        at += next + 1;
        match text.get(at..)? {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
    None
}

fn parse(text: &[u8], asked: Asked) -> Result<Head, Malformed> {
    if text.len() > MAX_HEAD {
        return Err(Malformed::TooLarge);
    }
    // One allocation for all values, as large as the head.
    let text = Bytes::copy_from_slice(text);
    let mut found = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut []);
    let parsed = ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        &text,
        &mut found,
    );
    match parsed {
        Ok(Status::Complete(length)) if length == text.len() => {}
        Ok(_) => return Err(Malformed::Head),
        Err(httparse::Error::TooManyHeaders) => return Err(Malformed::TooLarge),
        Err(_) => return Err(Malformed::Head),
    }
    let (mut parts, ()) = Response::new(()).into_parts();
    let code = response.code.ok_or(Malformed::Head)?;
    parts.status = StatusCode::from_u16(code).map_err(|_| Malformed::Head)?;
    parts.version = match response.version {
        Some(1) => Version::HTTP_11,
        _ => Version::HTTP_10,
    };
    parts.headers = header_map(&text, response.headers)?;
    if let Some(reason) = response.reason
        && !reason.is_empty()
        && parts.status.canonical_reason() != Some(reason)
        && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
    {
        parts.extensions.insert(reason);
    }
    let framing = framing(&mut parts, asked)?;
    let keep_alive = framing != Framing::Close && is_kept_alive(&parts);
    Ok(Head {
        parts,
        framing,
        keep_alive,
    })
}

/// `found` are parts of `text`.
fn header_map(text: &Bytes, found: &[httparse::Header<'_>]) -> Result<HeaderMap, Malformed> {
    let mut map = HeaderMap::with_capacity(found.len());
    for each in found {
        let name = HeaderName::from_bytes(each.name.as_bytes()).map_err(|_| Malformed::Head)?;
        let value = HeaderValue::from_maybe_shared(text.slice_ref(each.value))
            .map_err(|_| Malformed::Head)?;
        map.append(name, value);
    }
    Ok(map)
}

/// Trailers, with the empty line that ends them. What only a head may say is left out (RFC 9110, section 6.5.1).
pub(super) fn trailers(text: &[u8]) -> Result<Option<HeaderMap>, Malformed> {
    if text == b"\r\n" {
        return Ok(None);
    }
    let text = Bytes::copy_from_slice(text);
    let mut found = [httparse::EMPTY_HEADER; MAX_HEADERS];
    match httparse::parse_headers(&text, &mut found) {
        Ok(Status::Complete((length, found))) if length == text.len() => {
            let mut map = header_map(&text, found)?;
            headers::strip_interim(&mut map);
            Ok((!map.is_empty()).then_some(map))
        }
        Err(httparse::Error::TooManyHeaders) => Err(Malformed::TooLarge),
        Ok(_) | Err(_) => Err(Malformed::Head),
    }
}

/// RFC 9112, section 6.3, without its allowances: a message that two readers may understand in two ways is refused.
fn framing(parts: &mut Parts, asked: Asked) -> Result<Framing, Malformed> {
    let status = parts.status;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return if asked.upgrade {
            Ok(Framing::Upgrade)
        } else {
            Err(Malformed::Upgrade)
        };
    }
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        // They have no body whatever they say, and are not to say it (RFC 9110, section 8.6): the next reader may believe it.
        parts.headers.remove(header::CONTENT_LENGTH);
        parts.headers.remove(header::TRANSFER_ENCODING);
        return Ok(Framing::Empty);
    }
    let length = content_length(&mut parts.headers)?;
    if asked.head_only || status == StatusCode::NOT_MODIFIED {
        return Ok(Framing::Empty);
    }
    let mut codings = parts.headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), length) {
        (None, None) => Ok(Framing::Close),
        (None, Some(length)) => Ok(Framing::Length(length)),
        (Some(coding), None)
            if codings.next().is_none()
                && coding.as_bytes().eq_ignore_ascii_case(b"chunked")
                && parts.version == Version::HTTP_11 =>
        {
            Ok(Framing::Chunked)
        }
        (Some(_), _) => Err(Malformed::TransferCoding),
    }
}

/// The body's length. Where the same one was said more than once, it stays in the headers once.
fn content_length(headers: &mut HeaderMap) -> Result<Option<u64>, Malformed> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else {
        return Ok(None);
    };
    if let Some(length) = decimal(first.as_bytes())
        && lengths.next().is_none()
    {
        return Ok(Some(length));
    }
    let mut only = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        for length in value.as_bytes().split(|byte| *byte == b',') {
            let length = decimal(length.trim_ascii()).ok_or(Malformed::Length)?;
            if only.is_some_and(|only| only != length) {
                return Err(Malformed::Length);
            }
            only = Some(length);
        }
    }
    if let Some(length) = only {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(only)
}

fn decimal(digits: &[u8]) -> Option<u64> {
    // Parsing numbers would also take a sign.
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn is_kept_alive(parts: &Parts) -> bool {
    let says = |word: &[u8]| {
        let mut values = parts.headers.get_all(header::CONNECTION).iter();
        values.any(|value| {
            let mut tokens = value.as_bytes().split(|byte| *byte == b',');
            tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(word))
        })
    };
    if parts.version == Version::HTTP_10 {
        says(b"keep-alive") && !says(b"close")
    } else {
        !says(b"close")
    }
}
