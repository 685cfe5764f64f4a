//! Figures of requests for models.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::catalog;
use super::exposition::Page;
use crate::inference::Unread;

/// What came of looking at a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Probe {
    Read,
    TooLarge,
    Compressed,
    OtherType,
    Malformed,
    TooDeep,
    /// A member stands twice: the request was refused.
    Ambiguous,
}

impl Probe {
    /// In the order of the discriminants.
    pub const ALL: [Probe; 7] = [
        Probe::Read,
        Probe::TooLarge,
        Probe::Compressed,
        Probe::OtherType,
        Probe::Malformed,
        Probe::TooDeep,
        Probe::Ambiguous,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Probe::Read => "read",
            Probe::TooLarge => "too-large",
            Probe::Compressed => "compressed",
            Probe::OtherType => "other-type",
            Probe::Malformed => "malformed",
            Probe::TooDeep => "too-deep",
            Probe::Ambiguous => "ambiguous",
        }
    }
}

impl From<Unread> for Probe {
    fn from(why: Unread) -> Probe {
        match why {
            Unread::TooLarge => Probe::TooLarge,
            Unread::Compressed => Probe::Compressed,
            Unread::OtherType => Probe::OtherType,
            Unread::Malformed => Probe::Malformed,
            Unread::TooDeep => Probe::TooDeep,
        }
    }
}

/// Of all services.
#[derive(Debug, Default)]
pub struct ModelMetrics {
    probes: [AtomicU64; Probe::ALL.len()],
}

impl ModelMetrics {
    /// A request's body was looked at.
    pub fn probed(&self, result: Probe) {
        self.probes[result as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn write(&self, page: &mut Page) {
        for result in Probe::ALL {
            let count = self.probes[result as usize].load(Relaxed);
            if count > 0 {
                page.add(
                    catalog::MODEL_REQUESTS_READ,
                    &[result.as_str()],
                    count as f64,
                );
            }
        }
    }
}
