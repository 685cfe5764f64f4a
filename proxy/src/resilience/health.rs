//! Whether an endpoint should be given requests, as outlier detection and active checks see it.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

/// Health of one endpoint as this sidecar sees it. Shared by all threads and by all versions of the configuration.
#[derive(Debug, Default)]
pub struct Health {
    /// Why requests should keep away, a bit for each cause. None: it is available.
    barred: AtomicU32,
}

impl Health {
    /// Whether requests may go to it. One relaxed load: asked for every candidate of every choice.
    pub fn is_available(&self) -> bool {
        self.barred.load(Relaxed) == 0
    }

    /// Keeps requests away for this cause, or no longer.
    pub fn bar(&self, cause: Cause, barred: bool) {
        if barred {
            self.barred.fetch_or(cause.bit(), Relaxed);
        } else {
            self.barred.fetch_and(!cause.bit(), Relaxed);
        }
    }
}

/// What keeps requests away from an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Outlier detection took it out.
    Ejected,
}

impl Cause {
    const fn bit(self) -> u32 {
        1 << self as u32
    }
}
