//! How often which prefixes come, among the last several thousand requests of this sidecar.
//!
//! A table of counters of fixed size, 128 KiB for a service, which all threads share without a lock. A counter that was wrong, because
//! two threads wrote at once or a rare prefix lost its place, costs a cache hit and nothing else.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Counters, 8 bytes each.
const SLOTS: usize = 16_384;

/// Counters that a prefix can be in.
const WAYS: usize = 4;

/// When so many requests were counted, all counts are halved.
const WINDOW: u64 = 16_384;

/// Lower bits of a counter: the count. The rest tells the prefix.
const COUNT: u64 = 0xffff;

/// Weight of the newest request in the part of prompts that come again.
const WEIGHT: f32 = 1.0 / 16.0;

#[derive(Debug)]
pub(in crate::balance) struct Popularity {
    slots: Box<[AtomicU64]>,
    requests: AtomicU64,
    /// Bits of an `f32`.
    again: AtomicU32,
}

impl Popularity {
    pub(in crate::balance) fn new() -> Popularity {
        Popularity {
            slots: std::iter::repeat_with(AtomicU64::default)
                .take(SLOTS)
                .collect(),
            requests: AtomicU64::new(0),
            // To take new prompts for ones that will come again costs a little balance; the other way round their
            // caches are spread before it is known.
            again: AtomicU32::new(1.0_f32.to_bits()),
        }
    }

    /// Requests counted, those of long ago for less.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Part of the prompts that came before, 0 to 1: the chance that one which is new will come again.
    pub(in crate::balance) fn again(&self) -> f32 {
        f32::from_bits(self.again.load(Relaxed))
    }

    /// One more request; whether it has a prefix that tells it from most others and came before.
    pub(super) fn request(&self, came_before: bool) {
        let again = self.again();
        let now = if came_before { 1.0 } else { 0.0 };
        self.again
            .store((again + (now - again) * WEIGHT).to_bits(), Relaxed);
        if self.requests.fetch_add(1, Relaxed) + 1 == WINDOW {
            self.halve();
        }
    }

    /// How often the prefix came before.
    pub(super) fn count(&self, hash: u64) -> u64 {
        let found = self.ways(hash).map(|slot| slot.load(Relaxed));
        found
            .filter(|slot| slot & !COUNT == tag(hash))
            .map(|slot| slot & COUNT)
            .max()
            .unwrap_or(0)
    }

    /// Counts the prefix; how often it came before. A prefix without a place takes that of the rarest of four, which loses
    /// one of its count first: what came once goes soon, what came often stays.
    pub(super) fn note(&self, hash: u64) -> u64 {
        let mut rarest: Option<(&AtomicU64, u64)> = None;
        for slot in self.ways(hash) {
            let value = slot.load(Relaxed);
            let count = value & COUNT;
            if count > 0 && value & !COUNT == tag(hash) {
                slot.store(tag(hash) | (count + 1).min(COUNT), Relaxed);
                return count;
            }
            if rarest.is_none_or(|(_, least)| count < least) {
                rarest = Some((slot, count));
            }
        }
        if let Some((slot, count)) = rarest {
            match count {
                0 | 1 => slot.store(tag(hash) | 1, Relaxed),
                more => slot.store((slot.load(Relaxed) & !COUNT) | (more - 1), Relaxed),
            }
        }
        0
    }

    fn ways(&self, hash: u64) -> impl Iterator<Item = &AtomicU64> {
        let first = (hash as usize & COUNT as usize) % (SLOTS / WAYS) * WAYS;
        self.slots[first..first + WAYS].iter()
    }

    /// A few microseconds, once in thousands of requests.
    #[cold]
    fn halve(&self) {
        for slot in &self.slots {
            let value = slot.load(Relaxed);
            let half = (value & COUNT) / 2;
            slot.store((value & !COUNT) | half, Relaxed);
        }
        self.requests.fetch_sub(WINDOW / 2, Relaxed);
    }
}

fn tag(hash: u64) -> u64 {
    hash & !COUNT
}

#[cfg(test)]
mod tests;
