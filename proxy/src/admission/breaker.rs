//! Circuit breaking: what this sidecar may have under way to one service.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use super::refusals::{Limit, Refusals};
use super::throttle::Throttle;
use crate::policy::CallerLimits;

/// What is counted against a limit of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Counted {
    Connections,
    Pending,
    Requests,
    Retries,
}

impl Counted {
    pub const ALL: [Counted; 4] = [
        Counted::Connections,
        Counted::Pending,
        Counted::Requests,
        Counted::Retries,
    ];

    /// The limit that it is counted against.
    pub const fn limit(self) -> Limit {
        match self {
            Counted::Connections => Limit::Connections,
            Counted::Pending => Limit::Pending,
            Counted::Requests => Limit::Requests,
            Counted::Retries => Limit::Retries,
        }
    }
}

/// What is under way to a service. Shared by all workers and by all versions of the configuration.
#[derive(Debug, Default)]
pub struct Usage([AtomicU32; Counted::ALL.len()]);

impl Usage {
    pub fn get(&self, counted: Counted) -> u32 {
        self.0[counted as usize].load(Relaxed)
    }
}

/// The limits of a service, and what they are compared with.
#[derive(Debug)]
pub struct Breaker {
    pub limits: CallerLimits,
    pub usage: Arc<Usage>,
    /// `None`: off.
    pub throttle: Option<Arc<Throttle>>,
    pub refusals: Arc<Refusals>,
}

impl Breaker {
    /// The limit for what is counted.
    pub fn limit(&self, counted: Counted) -> Option<u32> {
        match counted {
            Counted::Connections => self.limits.connections,
            Counted::Pending => self.limits.pending,
            Counted::Requests => self.limits.requests,
            Counted::Retries => self.limits.retries,
        }
    }

    /// Whether nothing more of this is let through.
    pub fn is_open(&self, counted: Counted) -> bool {
        self.limit(counted)
            .is_some_and(|limit| self.usage.get(counted) >= limit)
    }

    /// Takes a place, until the permit is dropped. `None`: there is none left, which is counted.
    ///
    /// Counted also where there is no limit: one that is set later begins with what is there.
    pub fn enter(&self, counted: Counted) -> Option<Permit> {
        let used = &self.usage.0[counted as usize];
        let limit = self.limit(counted).unwrap_or(u32::MAX);
        // Taken first and given back where it was too much: threads that come at the same time never exceed the limit.
        if used.fetch_add(1, Relaxed) >= limit {
            used.fetch_sub(1, Relaxed);
            self.refusals.count(counted.limit());
            return None;
        }
        Some(Permit {
            usage: Arc::clone(&self.usage),
            counted,
        })
    }
}

/// A place that is taken.
#[derive(Debug)]
#[must_use = "the place is free again when this is dropped"]
pub struct Permit {
    usage: Arc<Usage>,
    counted: Counted,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.usage.0[self.counted as usize].fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests;
