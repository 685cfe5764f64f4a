//! Which protocol a connection to a port with `auto` speaks: from its first bytes, as far as they tell.

/// Longest request line that is read before it is believed. As long as a URL that most servers take.
pub const MAX_LINE: usize = 8 * 1024;

/// Longest method: the longest that is registered has 17 characters.
const MAX_METHOD: usize = 32;

/// What first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request line of HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2's preface.
    Http2,
    /// A TLS record with the beginning of a ClientHello.
    Tls,
    /// Anything else.
    Opaque,
}

/// What the bytes are; `None` while they could still become several things. Never `None` for more than [`MAX_LINE`] bytes.
pub fn classify(bytes: &[u8]) -> Option<Kind> {
    match bytes.first()? {
        0x16 => tls(bytes),
        b'P' if super::PREFACE.starts_with(&bytes[..bytes.len().min(super::PREFACE.len())]) => {
            (bytes.len() >= super::PREFACE.len()).then_some(Kind::Http2)
        }
        _ => request_line(bytes),
    }
}

/// Record type, major version, and the message's type behind version and length (RFC 8446, section 5.1).
fn tls(bytes: &[u8]) -> Option<Kind> {
    const CLIENT_HELLO: u8 = 1;
    if bytes.get(1).is_some_and(|major| *major != 3) {
        return Some(Kind::Opaque);
    }
    Some(match bytes.get(5)? {
        &CLIENT_HELLO => Kind::Tls,
        _ => Kind::Opaque,
    })
}

/// `method SP target SP HTTP/1.x`, and the line's end (RFC 9112, section 3). What other protocols of text begin with is at
/// least not followed by a version.
fn request_line(bytes: &[u8]) -> Option<Kind> {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let line = &bytes[..end.unwrap_or(bytes.len())];
    let mut words = line.splitn(3, |byte| *byte == b' ');
    let method = words.next().unwrap_or_default();
    if method.is_empty() || method.len() > MAX_METHOD || !method.iter().all(is_token) {
        return Some(Kind::Opaque);
    }
    let target = words.next().unwrap_or_default();
    if !target.iter().all(|byte| *byte > b' ' && *byte != 0x7f) {
        return Some(Kind::Opaque);
    }
    let version = words.next();
    if target.is_empty() && version.is_some() {
        return Some(Kind::Opaque);
    }
    let version = version.unwrap_or_default();
    let version = version.strip_suffix(b"\r").unwrap_or(version);
    let is_prefix = [b"HTTP/1.1", b"HTTP/1.0"]
        .iter()
        .any(|known| known.starts_with(version));
    if !is_prefix {
        return Some(Kind::Opaque);
    }
    match end {
        Some(_) if version.len() == b"HTTP/1.1".len() => Some(Kind::Http1),
        Some(_) => Some(Kind::Opaque),
        None if bytes.len() >= MAX_LINE => Some(Kind::Opaque),
        None => None,
    }
}

/// A character of a token (RFC 9110, section 5.6.2).
fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Kind, MAX_LINE, classify};
    use crate::detect::PREFACE;
    use proptest::prelude::*;

    #[test]
    fn first_words_of_many_protocols() {
        let cases: &[(&[u8], Kind)] = &[
            (b"GET / HTTP/1.1\r\n", Kind::Http1),
            (b"GET / HTTP/1.0\n", Kind::Http1),
            (b"OPTIONS * HTTP/1.1\r\nhost: a\r\n", Kind::Http1),
            (b"CONNECT db:5432 HTTP/1.1\r\n", Kind::Http1),
            (b"PROPFIND /a HTTP/1.1\r\n", Kind::Http1),
            (PREFACE, Kind::Http2),
            (b"PRI * HTTP/2.0\r\n\r\nXX", Kind::Opaque),
            (&[0x16, 3, 1, 2, 0, 1, 0, 1], Kind::Tls),
            // An alert; a record of something else.
            (&[0x16, 3, 1, 2, 0, 2], Kind::Opaque),
            (&[0x16, 9], Kind::Opaque),
            // Redis, inline and not.
            (b"*1\r\n$4\r\nPING\r\n", Kind::Opaque),
            (b"PING\r\n", Kind::Opaque),
            // memcached, SMTP, SSH, an IRC client.
            (b"get key\r\n", Kind::Opaque),
            (b"EHLO client.example\r\n", Kind::Opaque),
            (b"SSH-2.0-OpenSSH_9.6\r\n", Kind::Opaque),
            (b"USER guest 0 * :Ronnie\r\n", Kind::Opaque),
            // PostgreSQL's SSLRequest; MySQL's answer; Kafka.
            (&[0, 0, 0, 8, 4, 210, 22, 47], Kind::Opaque),
            (b"GET  / HTTP/1.1\r\n", Kind::Opaque),
            (b"GET / HTTP/2.0\r\n", Kind::Opaque),
            (b"GET / HTTP/1.1x\r\n", Kind::Opaque),
            (b"\r\nGET / HTTP/1.1\r\n", Kind::Opaque),
        ];
        for (bytes, kind) in cases {
            let text = String::from_utf8_lossy(bytes);
            assert_eq!(classify(bytes), Some(*kind), "{text:?}");
        }
        for unclear in [
            &b""[..],
            b"G",
            b"GET /",
            b"GET / HTTP/1.1",
            b"PRI *",
            &[0x16, 3],
        ] {
            assert_eq!(classify(unclear), None, "{unclear:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_clear_stays_so(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut clear = None;
            for end in 0..=bytes.len() {
                let now = classify(&bytes[..end]);
                prop_assert!(clear.is_none() || now == clear, "{:?} became {:?}", clear, now);
                clear = now;
            }
        }

        #[test]
        fn request_lines_are_http(
            method in "[A-Z]{1,17}",
            path in "/[!-~]{0,100}",
            version in "1\\.[01]",
            cut in 0usize..100,
        ) {
            let line = format!("{method} {path} HTTP/{version}\r\n");
            prop_assert_eq!(classify(line.as_bytes()), Some(Kind::Http1));
            let cut = cut.min(line.len() - 1);
            prop_assert_eq!(classify(&line.as_bytes()[..cut]), None);
        }
    }

    #[test]
    fn it_ends() {
        let mut line = b"GET /".to_vec();
        line.resize(MAX_LINE - 1, b'a');
        assert_eq!(classify(&line), None);
        line.push(b'a');
        assert_eq!(classify(&line), Some(Kind::Opaque));
    }
}
