//! Conditions on query parameters.

use std::cell::RefCell;

use super::string::StringMatch;

/// The buffer for decoded values is given back when a request made it larger than this, bytes.
const KEPT: usize = 4096;

/// A condition on one query parameter. A parameter that is absent never matches; of one that occurs several times the first
/// value counts (Gateway API, `HTTPQueryParamMatch`).
///
/// Names and values are decoded as the applications behind do it (`application/x-www-form-urlencoded`,
/// <https://url.spec.whatwg.org/#urlencoded-parsing>): otherwise a client could choose its rule by the way it writes the same
/// request. What is no valid `%XX` stands for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryParamMatch {
    /// Decoded. Case matters.
    pub name: Box<str>,
    pub value: StringMatch,
}

impl QueryParamMatch {
    /// `query`: without the question mark, as it came.
    pub fn matches(&self, query: &str) -> bool {
        let Some(value) = first(query.as_bytes(), self.name.as_bytes()) else {
            return false;
        };
        if !value.iter().any(|byte| matches!(byte, b'%' | b'+')) {
            return self.value.matches(value);
        }
        thread_local! {
            static DECODED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        DECODED.with_borrow_mut(|decoded| {
            decoded.clear();
            decoded.extend(Decoded(value));
            let matches = self.value.matches(decoded);
            if decoded.capacity() > KEPT {
                *decoded = Vec::new();
            }
            matches
        })
    }
}

/// The first value of a parameter, encoded as it came.
fn first<'a>(query: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    query.split(|byte| *byte == b'&').find_map(|pair| {
        let end = pair.iter().position(|byte| *byte == b'=');
        let (key, value) = match end {
            Some(end) => (&pair[..end], &pair[end + 1..]),
            None => (pair, &[][..]),
        };
        // An empty pair, as between two ampersands, is no parameter.
        (!pair.is_empty() && Decoded(key).eq(name.iter().copied())).then_some(value)
    })
}

/// The bytes that an encoded text stands for.
struct Decoded<'a>(&'a [u8]);

impl Iterator for Decoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        match (byte, rest) {
            (b'+', _) => Some(b' '),
            (b'%', [high, low, rest @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    self.0 = rest;
                    Some(high << 4 | low)
                }
                _ => Some(byte),
            },
            _ => Some(byte),
        }
    }
}

fn hex(digit: u8) -> Option<u8> {
    // At most 15.
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests;
