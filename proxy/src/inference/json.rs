//! Reads JSON without building anything: the few members that matter are looked at, all others skipped. Nothing is
//! allocated, and nothing nested can use up the stack: what is skipped is skipped in a loop.
//!
//! It takes some texts for JSON that are none (`[1 2]`). That does no harm: who they are for says so. What it must not do is
//! to understand a text in another way than others do.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr2;

/// Deeper nesting is no request of anybody's.
const MAX_DEPTH: u32 = 128;

/// Why a text was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    Malformed,
    TooDeep,
}

/// A place in a text.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// A string, as it stands between its quotes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text<'a> {
    raw: &'a [u8],
    escaped: bool,
    /// Of the first byte after the quote.
    start: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    /// The next byte that is no white space; what kind of value follows.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.bytes.get(self.at)?;
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// Where the next value begins.
    pub(crate) fn position(&mut self) -> usize {
        self.peek();
        self.at
    }

    /// Where the value that was read last ended.
    pub(crate) fn end(&self) -> usize {
        self.at
    }

    /// Whether the value that was read last ended with this.
    pub(crate) fn ended_with(&self, tail: &[u8]) -> bool {
        self.bytes
            .get(..self.at)
            .unwrap_or_default()
            .ends_with(tail)
    }

    /// Nothing but white space is left.
    pub(crate) fn is_done(&mut self) -> bool {
        self.peek().is_none()
    }

    fn take(&mut self, wanted: u8) -> Result<(), Flaw> {
        if self.peek() == Some(wanted) {
            self.at += 1;
            return Ok(());
        }
        Err(Flaw::Malformed)
    }

    /// Reads an object; `member` must read or skip each value.
    pub(crate) fn object(
        &mut self,
        mut member: impl FnMut(Text<'a>, &mut Reader<'a>) -> Result<(), Flaw>,
    ) -> Result<(), Flaw> {
        self.take(b'{')?;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            let key = self.text()?;
            self.take(b':')?;
            member(key, self)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(Flaw::Malformed),
            }
        }
    }

    /// Reads an array; `item` must read or skip each value.
    pub(crate) fn array(
        &mut self,
        mut item: impl FnMut(&mut Reader<'a>) -> Result<(), Flaw>,
    ) -> Result<(), Flaw> {
        self.take(b'[')?;
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            item(self)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(Flaw::Malformed),
            }
        }
    }

    pub(crate) fn text(&mut self) -> Result<Text<'a>, Flaw> {
        self.take(b'"')?;
        let start = self.at;
        let mut escaped = false;
        loop {
            let rest = self.bytes.get(self.at..).ok_or(Flaw::Malformed)?;
            let found = memchr2(b'"', b'\\', rest).ok_or(Flaw::Malformed)?;
            self.at += found + 1;
            if rest[found] == b'"' {
                let raw = &self.bytes[start..self.at - 1];
                return Ok(Text {
                    raw,
                    escaped,
                    start,
                });
            }
            escaped = true;
            // Whatever is escaped ends no string.
            self.at += 1;
        }
    }

    /// A text, or `None` for a value of another kind.
    pub(crate) fn maybe_text(&mut self) -> Result<Option<Text<'a>>, Flaw> {
        if self.peek() == Some(b'"') {
            return self.text().map(Some);
        }
        self.skip().map(|()| None)
    }

    /// `true` or `false`, or `None` for a value of another kind.
    pub(crate) fn maybe_bool(&mut self) -> Result<Option<bool>, Flaw> {
        let start = self.position();
        self.skip()?;
        Ok(match &self.bytes[start..self.at] {
            b"true" => Some(true),
            b"false" => Some(false),
            _ => None,
        })
    }

    /// A whole number from 0, or `None` for anything else. What is larger than the type has its largest value.
    pub(crate) fn maybe_number(&mut self) -> Result<Option<u32>, Flaw> {
        let start = self.position();
        self.skip()?;
        let digits = &self.bytes[start..self.at];
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Ok(None);
        }
        let number = digits.iter().fold(0_u32, |number, digit| {
            number
                .saturating_mul(10)
                .saturating_add(u32::from(digit - b'0'))
        });
        Ok(Some(number))
    }

    /// Passes over one value of any kind.
    pub(crate) fn skip(&mut self) -> Result<(), Flaw> {
        // One bit for each level: whether it is an array.
        let mut arrays = 0_u128;
        let mut depth = 0;
        loop {
            match self.peek().ok_or(Flaw::Malformed)? {
                b'"' => {
                    self.text()?;
                }
                open @ (b'{' | b'[') => {
                    if depth == MAX_DEPTH {
                        return Err(Flaw::TooDeep);
                    }
                    depth += 1;
                    arrays = arrays << 1 | u128::from(open == b'[');
                    self.at += 1;
                    continue;
                }
                close @ (b'}' | b']') => {
                    if depth == 0 || (arrays & 1 == 1) != (close == b']') {
                        return Err(Flaw::Malformed);
                    }
                    depth -= 1;
                    arrays >>= 1;
                    self.at += 1;
                }
                b',' | b':' => {
                    if depth == 0 {
                        return Err(Flaw::Malformed);
                    }
                    self.at += 1;
                    continue;
                }
                _ => self.word()?,
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// A number, `true`, `false` or `null`.
    fn word(&mut self) -> Result<(), Flaw> {
        let rest = &self.bytes[self.at..];
        let is_part =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        let length = rest.iter().position(|byte| !is_part(byte));
        let length = length.unwrap_or(rest.len());
        if length == 0 {
            return Err(Flaw::Malformed);
        }
        self.at += length;
        Ok(())
    }
}

impl<'a> Text<'a> {
    /// Bytes, escapes as they stand.
    pub(crate) fn len(&self) -> usize {
        self.raw.len()
    }

    /// Place between the quotes.
    pub(crate) fn span(&self) -> Range<usize> {
        self.start..self.start + self.raw.len()
    }

    /// As it stands, where it has no escapes.
    pub(crate) fn plain(&self) -> Option<&'a [u8]> {
        (!self.escaped).then_some(self.raw)
    }

    /// What it says. `None`: it is no text.
    pub(crate) fn decode(&self) -> Option<Cow<'a, str>> {
        if !self.escaped {
            return std::str::from_utf8(self.raw).ok().map(Cow::Borrowed);
        }
        // Rare: the library knows all of the escapes.
        let mut quoted = Vec::with_capacity(self.raw.len() + 2);
        quoted.push(b'"');
        quoted.extend_from_slice(self.raw);
        quoted.push(b'"');
        serde_json::from_slice(&quoted).ok().map(Cow::Owned)
    }

    /// Which of the names it is. Escapes are read: `"mod\u0065l"` is a model too.
    pub(crate) fn one_of(&self, names: &[&'static str]) -> Option<usize> {
        match self.plain() {
            Some(raw) => names.iter().position(|name| name.as_bytes() == raw),
            None => {
                let text = self.decode()?;
                names.iter().position(|name| *name == text)
            }
        }
    }

    pub(crate) fn is(&self, name: &'static str) -> bool {
        self.one_of(&[name]).is_some()
    }
}

#[cfg(test)]
mod tests;
