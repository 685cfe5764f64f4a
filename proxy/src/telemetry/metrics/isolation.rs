//! Figures of the isolation of callers in model servers' caches.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::catalog;
use super::exposition::Page;

/// What was done about a request's salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Salting {
    /// There is nothing in the request that could be cached. Not counted.
    Empty,
    Set,
    /// The client had sent one.
    Replaced,
    /// It cannot be given one, and was refused.
    Refused,
    /// It cannot be given one, and was passed on without.
    Passed,
}

impl Salting {
    /// In the order of the discriminants.
    pub const ALL: [Salting; 5] = [
        Salting::Empty,
        Salting::Set,
        Salting::Replaced,
        Salting::Refused,
        Salting::Passed,
    ];

    /// The word users see. `None`: it is not worth one.
    pub const fn as_str(self) -> Option<&'static str> {
        match self {
            Salting::Empty => None,
            Salting::Set => Some("set"),
            Salting::Replaced => Some("replaced"),
            Salting::Refused => Some("refused"),
            Salting::Passed => Some("passed"),
        }
    }
}

/// Of all services.
#[derive(Debug, Default)]
pub struct SaltMetrics {
    results: [AtomicU64; Salting::ALL.len()],
}

impl SaltMetrics {
    /// Counts a request, and gives the word for it.
    pub fn count(&self, done: Salting) -> Option<&'static str> {
        let word = done.as_str()?;
        self.results[done as usize].fetch_add(1, Relaxed);
        Some(word)
    }

    pub(super) fn write(&self, page: &mut Page) {
        for done in Salting::ALL {
            let count = self.results[done as usize].load(Relaxed);
            if let Some(word) = done.as_str()
                && count > 0
            {
                page.add(catalog::CACHE_SALTS, &[word], count as f64);
            }
        }
    }
}
