//! Cuts a stream of server-sent events into events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>), without a
//! copy where an event comes in one piece. Lines end with LF or CRLF; a CR alone, which no model server sends, is no end.

use memchr::memchr;

/// Larger events are passed over. The largest that servers send has a whole answer in it (`response.completed`).
pub(in crate::inference) const MAX_EVENT: usize = 1 << 20;
/// What is kept of a buffer that a large event needed.
const KEPT: usize = 16 << 10;

/// Finds the events in what comes, however it is cut.
#[derive(Debug, Default)]
pub(in crate::inference) struct Splitter {
    /// The beginning of an event whose end has not come.
    pending: Vec<u8>,
    /// It is too large: only its end is waited for.
    passing: bool,
}

impl Splitter {
    /// Calls back with each event that is complete, its empty line included; `None` for one that was too large.
    pub(in crate::inference) fn feed(
        &mut self,
        mut bytes: &[u8],
        mut event: impl FnMut(Option<&[u8]>),
    ) {
        while !self.pending.is_empty() || self.passing {
            // Line by line, until the one that ends it.
            let Some(newline) = memchr(b'\n', bytes) else {
                self.hold(bytes);
                return;
            };
            let (line, rest) = bytes.split_at(newline + 1);
            self.hold(line);
            bytes = rest;
            if is_ended(&self.pending) {
                event((!self.passing).then_some(&self.pending));
                self.pending.clear();
                self.pending.shrink_to(KEPT);
                self.passing = false;
            }
        }
        while let Some(end) = event_end(bytes) {
            let (whole, rest) = bytes.split_at(end);
            event(Some(whole));
            bytes = rest;
        }
        self.hold(bytes);
    }

    /// Whether what was fed ends with an event.
    pub(in crate::inference) fn is_between(&self) -> bool {
        self.pending.is_empty() && !self.passing
    }

    fn hold(&mut self, bytes: &[u8]) {
        if self.pending.len() + bytes.len() > MAX_EVENT {
            self.passing = true;
        }
        self.pending.extend_from_slice(bytes);
        if self.passing {
            // Whether a line is empty is seen from the last three bytes.
            let tail = self.pending.len().saturating_sub(3);
            self.pending.drain(..tail);
        }
    }
}

/// Whether the last line is empty.
fn is_ended(bytes: &[u8]) -> bool {
    let Some(line) = bytes.strip_suffix(b"\n") else {
        return false;
    };
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    line.is_empty() || line.ends_with(b"\n")
}

/// After the first empty line.
pub(in crate::inference) fn event_end(bytes: &[u8]) -> Option<usize> {
    let mut start = 0;
    loop {
        let newline = start + memchr(b'\n', bytes.get(start..)?)?;
        if matches!(&bytes[start..newline], b"" | b"\r") {
            return Some(newline + 1);
        }
        start = newline + 1;
    }
}

/// The fields of an event that matter.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::inference) struct Fields<'a> {
    /// `event`.
    pub(in crate::inference) name: &'a [u8],
    /// The only line of `data`.
    pub(in crate::inference) data: Option<&'a [u8]>,
    /// There are several.
    pub(in crate::inference) has_more: bool,
    /// A field that is called `error`: llama.cpp's, and no standard's.
    pub(in crate::inference) is_error: bool,
}

pub(in crate::inference) fn fields(event: &[u8]) -> Fields<'_> {
    let mut fields = Fields::default();
    for (name, value) in lines(event) {
        match name {
            b"data" if fields.data.is_none() => fields.data = Some(value),
            b"data" => fields.has_more = true,
            b"event" => fields.name = value,
            b"error" => fields.is_error = true,
            _ => {}
        }
    }
    fields
}

/// All lines of `data` as one text.
pub(in crate::inference) fn joined(event: &[u8], into: &mut Vec<u8>) {
    into.clear();
    for (index, (_, value)) in lines(event)
        .filter(|(name, _)| *name == b"data")
        .enumerate()
    {
        if index > 0 {
            into.push(b'\n');
        }
        into.extend_from_slice(value);
    }
}

fn lines(event: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = event;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let newline = memchr(b'\n', rest).unwrap_or(rest.len());
        let line = &rest[..newline];
        rest = rest.get(newline + 1..).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let colon = memchr(b':', line).unwrap_or(line.len());
        // A field without a colon has an empty value, which is a part of the event too: callers ask where it stands.
        let value = line.get(colon + 1..).unwrap_or(&line[line.len()..]);
        Some((&line[..colon], value.strip_prefix(b" ").unwrap_or(value)))
    })
}

#[cfg(test)]
mod tests;
