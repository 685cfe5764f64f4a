//! What holds for a set as a whole: whether all endpoints are available, panic, and how much stays in the own zone.
//!
//! Looked up by walking over the endpoints, and only after some endpoint's health has changed; a choice reads one word.

/// All of it in one word, so that threads never see half of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct View(u64);

/// Zones play no part.
const EVERYWHERE: u64 = 0xffff;
const PANIC: u64 = 1 << 16;
const PLAIN: u64 = 1 << 17;
const NONE_AVAILABLE: u64 = 1 << 18;

/// The whole of [`View::local_share`].
pub(super) const WHOLE: u64 = 1000;

impl View {
    /// `changes`: how many changes of health it takes in. `local_share`: of [`WHOLE`]; `None`: zones play no part.
    pub(super) fn new(
        changes: u32,
        available: usize,
        of: usize,
        panic_percent: u8,
        local_share: Option<u64>,
    ) -> View {
        let panic = available * 100 < of * usize::from(panic_percent);
        let mut bits = u64::from(changes) << 32;
        bits |= match local_share {
            // Where nothing can be told apart by health, zones say nothing either.
            Some(share) if !panic => share.min(WHOLE),
            _ => EVERYWHERE,
        };
        if panic {
            bits |= PANIC;
        }
        if panic || available == of {
            bits |= PLAIN;
        }
        if available == 0 {
            bits |= NONE_AVAILABLE;
        }
        View(bits)
    }

    pub(super) const fn from_bits(bits: u64) -> View {
        View(bits)
    }

    pub(super) const fn bits(self) -> u64 {
        self.0
    }

    pub(super) const fn changes(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// So few are available that all are balanced over.
    pub(super) const fn is_panic(self) -> bool {
        self.0 & PANIC != 0
    }

    /// Every endpoint may be chosen: all are available, or it is panic.
    pub(super) const fn is_plain(self) -> bool {
        self.0 & PLAIN != 0
    }

    /// No endpoint may be chosen.
    pub(super) const fn is_closed(self) -> bool {
        self.0 & NONE_AVAILABLE != 0 && self.0 & PANIC == 0
    }

    /// Requests of [`WHOLE`] that stay in the own zone.
    pub(super) const fn local_share(self) -> Option<u64> {
        match self.0 & EVERYWHERE {
            EVERYWHERE => None,
            share => Some(share),
        }
    }
}
