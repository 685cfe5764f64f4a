//! The name of the server that a TLS client asks for, out of its ClientHello (RFC 8446, section 4.1.2; RFC 6066, section 3).

use std::borrow::Cow;

/// Most bytes of a ClientHello, with the heads of its records. Those of today's browsers, with post-quantum key shares and a
/// session ticket, have 2 to 4 KiB.
pub const MAX_HELLO: usize = 16 * 1024;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// What was found in the first bytes of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// It is not all there yet.
    Incomplete,
    /// Lower case; `None`: it names no server.
    Name(Option<String>),
    NotTls,
    /// More than [`MAX_HELLO`].
    TooLarge,
}

/// Looks for the name. Never [`Hello::Incomplete`] for [`MAX_HELLO`] bytes or more.
pub fn parse(bytes: &[u8]) -> Hello {
    let message = match message(bytes) {
        Ok(message) => message,
        Err(other) => return other,
    };
    match server_name(&message) {
        Ok(name) => Hello::Name(name),
        Err(Malformed) => Hello::NotTls,
    }
}

/// The body of the ClientHello, which may be spread over records.
fn message(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Hello> {
    let incomplete = || {
        Err(match bytes.len() {
            MAX_HELLO.. => Hello::TooLarge,
            _ => Hello::Incomplete,
        })
    };
    let mut whole: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    let mut rest = bytes;
    loop {
        if rest.first().is_some_and(|kind| *kind != HANDSHAKE)
            || rest.get(1).is_some_and(|major| *major != 3)
        {
            return Err(Hello::NotTls);
        }
        let Some((head, after)) = rest.split_at_checked(5) else {
            return incomplete();
        };
        let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
        // RFC 8446, section 5.1: no empty fragments of a handshake, none above 2^14.
        if length == 0 || length > 1 << 14 {
            return Err(Hello::NotTls);
        }
        let part = &after[..length.min(after.len())];
        if whole.is_empty() {
            whole = Cow::Borrowed(part);
        } else {
            whole.to_mut().extend_from_slice(part);
        }
        if let Some(kind) = whole.first()
            && *kind != CLIENT_HELLO
        {
            return Err(Hello::NotTls);
        }
        if let [_, a, b, c, ..] = *whole {
            let wanted = u32::from_be_bytes([0, a, b, c]) as usize;
            if wanted > MAX_HELLO {
                return Err(Hello::TooLarge);
            }
            if whole.len() >= 4 + wanted {
                return Ok(match whole {
                    Cow::Borrowed(message) => Cow::Borrowed(&message[4..4 + wanted]),
                    Cow::Owned(message) => Cow::Owned(message[4..4 + wanted].to_vec()),
                });
            }
        }
        if part.len() < length {
            return incomplete();
        }
        rest = &after[length..];
    }
}

#[derive(Debug)]
struct Malformed;

fn server_name(message: &[u8]) -> Result<Option<String>, Malformed> {
    let mut message = Reader(message);
    // Version and random.
    message.take(2 + 32)?;
    // Session id, cipher suites, compression methods.
    message.vector8()?;
    message.vector16()?;
    message.vector8()?;
    if message.0.is_empty() {
        return Ok(None);
    }
    let mut extensions = message.vector16()?;
    while !extensions.0.is_empty() {
        let kind = extensions.number16()?;
        let mut extension = extensions.vector16()?;
        if kind != SERVER_NAME {
            continue;
        }
        let mut names = extension.vector16()?;
        while !names.0.is_empty() {
            let kind = names.take(1)?[0];
            let name = names.vector16()?.0;
            if kind == HOST_NAME {
                return host(name).map(Some);
            }
        }
    }
    Ok(None)
}

/// Characters of DNS names only: the name is looked up, and logged.
fn host(name: &[u8]) -> Result<String, Malformed> {
    let is_valid = !name.is_empty()
        && name.len() <= 255
        && name
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(byte));
    if !is_valid {
        return Err(Malformed);
    }
    Ok(String::from_utf8_lossy(name).to_ascii_lowercase())
}

/// What is left of some bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number16(&mut self) -> Result<u16, Malformed> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector8(&mut self) -> Result<Reader<'a>, Malformed> {
        let length = self.take(1)?[0];
        self.take(length.into()).map(Reader)
    }

    fn vector16(&mut self) -> Result<Reader<'a>, Malformed> {
        let length = self.number16()?;
        self.take(length.into()).map(Reader)
    }
}

#[cfg(test)]
pub(crate) mod tests;
