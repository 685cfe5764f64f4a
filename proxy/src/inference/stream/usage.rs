//! Takes out of a stream what the client did not ask for: the chunk with the usage, and `"usage":null` in the others. Events are
//! held until they are complete; whatever else is in them stays as it is.

use bytes::Bytes;

use super::Observer;
use super::sse::{self, MAX_EVENT};

/// Holds what is not complete.
#[derive(Debug, Default)]
pub(super) struct UsageFilter {
    held: Vec<u8>,
    /// An event was too large to be held: all is passed on from there.
    off: bool,
}

impl UsageFilter {
    /// What of the stream goes on to the client. Also shows it to the observer.
    pub(super) fn pass(&mut self, chunk: Bytes, observer: &mut Observer) -> Bytes {
        if self.off {
            observer.feed(&chunk);
            return chunk;
        }
        self.held.extend_from_slice(&chunk);
        let mut out = Vec::with_capacity(self.held.len());
        let mut rest = &*self.held;
        while let Some(end) = sse::event_end(rest) {
            let (event, after) = rest.split_at(end);
            rest = after;
            let fields = sse::fields(event);
            let found = observer.event(event);
            match (found.is_usage_only, found.null_usage, fields.data) {
                (true, _, _) => {}
                (false, Some((from, to)), Some(data)) if !fields.has_more => {
                    // Where the data stands in the event.
                    let start = data.as_ptr() as usize - event.as_ptr() as usize;
                    let (from, to) = without_comma(data, from, to);
                    out.extend_from_slice(&event[..start + from]);
                    out.extend_from_slice(&event[start + to..]);
                }
                _ => out.extend_from_slice(event),
            }
        }
        let done = self.held.len() - rest.len();
        self.held.drain(..done);
        if self.held.len() > MAX_EVENT {
            self.off = true;
            observer.feed(&self.held);
            out.append(&mut self.held);
        }
        out.into()
    }

    /// What is left at the end.
    pub(super) fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.held).into()
    }

    /// Nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether the client has seen nothing but complete events.
    pub(super) fn is_between(&self) -> bool {
        !self.off
    }
}

/// A member from the end of the one before it: the comma goes with it, the one after it where it is the first.
fn without_comma(data: &[u8], from: usize, to: usize) -> (usize, usize) {
    let first = data[from..to]
        .iter()
        .find(|byte| !byte.is_ascii_whitespace());
    let is_first = first != Some(&b',');
    if !is_first {
        return (from, to);
    }
    let after = data[to..]
        .iter()
        .position(|byte| !byte.is_ascii_whitespace());
    match after {
        Some(at) if data[to + at] == b',' => (from, to + at + 1),
        _ => (from, to),
    }
}

#[cfg(test)]
mod tests;
