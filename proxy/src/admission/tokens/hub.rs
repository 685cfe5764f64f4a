//! Between requests and the control side: which buckets want a lease, and what time it is for windows.

use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

use super::leases::Leases;
use super::{Bucket, TokenBudget};
use crate::balance::clock;

/// Buckets that wait to be asked for. Each is there once; more than this are asked for when they want it again.
const MAX_WANTS: usize = 65_536;

/// One for all budgets of the sidecar.
#[derive(Debug)]
pub struct Hub {
    /// Something is wanted.
    pub(crate) wake: Notify,
    /// The list has a lock, which a request takes when a lease runs low, once for each lease.
    wants: Mutex<Vec<Want>>,
    /// The control side's alone.
    pub(super) leases: Mutex<Leases>,
    /// From the monotonic clock to the Unix epoch's, milliseconds: ours until the control plane has said what its is.
    offset: AtomicI64,
}

/// A bucket whose lease runs low.
#[derive(Clone, Debug)]
pub(crate) struct Want {
    pub(crate) budget: Arc<TokenBudget>,
    pub(crate) bucket: Arc<Bucket>,
}

impl Default for Hub {
    fn default() -> Hub {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        let unix = unix.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(0));
        Hub {
            wake: Notify::new(),
            wants: Mutex::default(),
            leases: Mutex::default(),
            offset: AtomicI64::new(unix - monotonic_ms()),
        }
    }
}

fn monotonic_ms() -> i64 {
    i64::try_from(clock::now() / 1_000_000).unwrap_or(i64::MAX)
}

impl Hub {
    /// Milliseconds since the Unix epoch, by the control plane's clock as far as it is known.
    pub(crate) fn unix_ms(&self) -> u64 {
        u64::try_from(monotonic_ms() + self.offset.load(Relaxed)).unwrap_or(0)
    }

    /// The control plane's clock. What is less than a message's way apart is left as it is.
    pub fn set_unix_ms(&self, unix: u64) {
        const NEAR: u64 = 500;
        if unix.abs_diff(self.unix_ms()) > NEAR {
            let unix = i64::try_from(unix).unwrap_or(i64::MAX / 2);
            self.offset.store(unix - monotonic_ms(), Relaxed);
        }
    }

    pub(super) fn want(&self, budget: &Arc<TokenBudget>, bucket: &Arc<Bucket>) {
        let mut wants = self.wants.lock().unwrap_or_else(PoisonError::into_inner);
        if wants.len() >= MAX_WANTS {
            bucket.wanting.store(false, Relaxed);
            return;
        }
        wants.push(Want {
            budget: Arc::clone(budget),
            bucket: Arc::clone(bucket),
        });
        drop(wants);
        self.wake.notify_one();
    }

    /// All that want something. They may want again from now on.
    pub(crate) fn take_wants(&self) -> Vec<Want> {
        let wants = std::mem::take(&mut *self.wants.lock().unwrap_or_else(PoisonError::into_inner));
        for want in &wants {
            want.bucket.wanting.store(false, Relaxed);
        }
        wants
    }
}
