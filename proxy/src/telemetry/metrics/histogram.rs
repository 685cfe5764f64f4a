//! A histogram of durations: one atomic addition for the bucket and one for the sum.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::balance::clock::nanos;

/// Upper bounds, milliseconds. From a cached answer to a long token stream: three to a decade while a person would notice
/// the difference, and up to five minutes, after which `streamIdle` ends what does not move.
pub(super) const BOUNDS_MS: [u64; 18] = [
    1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 20_000, 30_000, 60_000,
    120_000, 300_000,
];

#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// Not cumulative; the last one is for everything above.
    buckets: [AtomicU64; BOUNDS_MS.len() + 1],
    sum_ns: AtomicU64,
}

impl Histogram {
    pub(super) fn observe(&self, duration: Duration) {
        let ns = nanos(duration);
        let bucket = BOUNDS_MS.partition_point(|bound| bound * 1_000_000 < ns);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_ns.fetch_add(ns, Relaxed);
    }

    /// Counts by bucket, and the sum in seconds.
    pub(super) fn read(&self) -> ([u64; BOUNDS_MS.len() + 1], f64) {
        let mut counts = [0; BOUNDS_MS.len() + 1];
        for (count, bucket) in counts.iter_mut().zip(&self.buckets) {
            *count = bucket.load(Relaxed);
        }
        (counts, self.sum_ns.load(Relaxed) as f64 / 1e9)
    }
}
