//! A limit of the concurrency that follows the latency: Netflix concurrency-limits, `Gradient2Limit`
//! (<https://github.com/Netflix/concurrency-limits>), with its constants.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Samples in the long-term average.
const LONG_WINDOW: f64 = 600.0;
/// Samples of which the long-term average begins as a plain mean.
const WARM_UP: u32 = 10;
/// Share of a new limit in the next one.
const SMOOTHING: f64 = 0.2;
/// Requests that may queue in the application: what a limit grows by.
const HEADROOM: f64 = 4.0;
/// A limit begins here, within its bounds.
const INITIAL: f64 = 20.0;

/// The limit and what it is found from. Shared by all workers: an update that two make at once may be lost, which is one
/// sample of many, and whatever is stored is within the bounds.
#[derive(Debug)]
pub struct Gradient2 {
    min: u32,
    max: u32,
    /// Latency over its average above which the limit falls.
    tolerance: f64,
    /// Bits of an `f64`.
    limit: AtomicU64,
    /// Bits of an `f64`, nanoseconds.
    long: AtomicU64,
    samples: AtomicU32,
}

impl Gradient2 {
    pub fn new(min: u32, max: u32, tolerance: f64) -> Gradient2 {
        let min = min.max(1);
        let max = max.max(min);
        Gradient2 {
            min,
            max,
            tolerance,
            limit: AtomicU64::new(INITIAL.clamp(min.into(), max.into()).to_bits()),
            long: AtomicU64::new(0),
            samples: AtomicU32::new(0),
        }
    }

    /// Goes on with what this one has learnt.
    pub fn copy(&self) -> Gradient2 {
        Gradient2 {
            min: self.min,
            max: self.max,
            tolerance: self.tolerance,
            limit: AtomicU64::new(self.limit.load(Relaxed)),
            long: AtomicU64::new(self.long.load(Relaxed)),
            samples: AtomicU32::new(self.samples.load(Relaxed)),
        }
    }

    /// The limit now.
    pub fn limit(&self) -> u32 {
        f64::from_bits(self.limit.load(Relaxed)) as u32
    }

    /// Whether it has these settings.
    pub fn is_for(&self, min: u32, max: u32, tolerance: f64) -> bool {
        let other = Gradient2::new(min, max, tolerance);
        (self.min, self.max, self.tolerance) == (other.min, other.max, other.tolerance)
    }

    /// A response has begun after `latency` nanoseconds, with so many requests at the application.
    pub fn sample(&self, latency: u64, in_flight: u32) {
        let short = (latency as f64).max(1.0);
        let mut long = self.add_long(short);
        // Back from a time of high latency: the average must not take as long to forget it.
        if long / short > 2.0 {
            long *= 0.95;
            self.long.store(long.to_bits(), Relaxed);
        }
        let limit = f64::from_bits(self.limit.load(Relaxed));
        // An application that is not asked for more says nothing about more.
        if f64::from(in_flight) < limit / 2.0 {
            return;
        }
        let gradient = (self.tolerance * long / short).clamp(0.5, 1.0);
        let wanted = limit * gradient + HEADROOM;
        let next = limit * (1.0 - SMOOTHING) + wanted * SMOOTHING;
        let next = next.clamp(self.min.into(), self.max.into());
        self.limit.store(next.to_bits(), Relaxed);
    }

    fn add_long(&self, short: f64) -> f64 {
        let before = f64::from_bits(self.long.load(Relaxed));
        let count = self.samples.load(Relaxed);
        let share = if count < WARM_UP {
            self.samples.store(count + 1, Relaxed);
            1.0 / f64::from(count + 1)
        } else {
            2.0 / (LONG_WINDOW + 1.0)
        };
        let long = before * (1.0 - share) + short * share;
        self.long.store(long.to_bits(), Relaxed);
        long
    }
}

#[cfg(test)]
mod tests;
