//! Whole events of a stream, however it is cut.

use crate::inference::stream::sse::{MAX_EVENT, event_end};

/// Holds what is not complete.
#[derive(Debug, Default)]
pub(crate) struct Events {
    held: Vec<u8>,
    /// What was taken of it.
    taken: usize,
}

impl Events {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// The next event, its empty line included.
    pub(crate) fn next(&mut self) -> Option<&[u8]> {
        let from = self.taken;
        match event_end(self.held.get(from..)?) {
            Some(length) => {
                self.taken += length;
                self.held.get(from..self.taken)
            }
            None => {
                self.held.drain(..from);
                self.taken = 0;
                None
            }
        }
    }

    /// Whether an event is larger than any that is read.
    pub(crate) fn is_too_large(&self) -> bool {
        self.held.len() > MAX_EVENT
    }

    /// Hands out what is held, and forgets it.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.held);
        rest.drain(..std::mem::take(&mut self.taken));
        rest
    }
}
