//! Client-side throttling (Google, "Site Reliability Engineering", chapter 21, "Handling Overload").
//!
//! A service that is overloaded spends capacity on saying so. A client that sees most of its requests refused keeps part of
//! them back, with probability `max(0, (requests − K · accepts) / (requests + 1))`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

use rand::Rng;

use crate::balance::clock::{self, nanos};

/// Parts of the window. What is a tenth too old or too young for it makes no difference to a probability.
const SLOTS: usize = 10;

/// What was asked of a service over the last time, and what it took. Shared by all workers.
#[derive(Debug)]
pub struct Throttle {
    /// K: requests for each one accepted.
    ratio: f64,
    /// Nanoseconds.
    slot: u64,
    slots: [Slot; SLOTS],
    /// Sent, and not yet answered. They count as accepted until they are not: a slow service is not one that refuses, and few
    /// requests that take long would look like it.
    unanswered: AtomicU32,
}

/// A part of the window. Each word has the part's number in its upper half and a count in its lower.
#[derive(Debug, Default)]
struct Slot {
    requests: AtomicU64,
    accepts: AtomicU64,
}

impl Throttle {
    pub fn new(ratio: f64, window: Duration) -> Throttle {
        Throttle {
            ratio,
            slot: (nanos(window) / SLOTS as u64).max(1),
            slots: Default::default(),
            unanswered: AtomicU32::new(0),
        }
    }

    /// Whether it has these settings.
    pub fn is_for(&self, ratio: f64, window: Duration) -> bool {
        self.ratio == ratio && self.slot == (nanos(window) / SLOTS as u64).max(1)
    }

    /// A request wants to be sent, and is counted. `None`: it is kept back.
    pub fn ask(self: &Arc<Self>, rng: &mut impl Rng) -> Option<Asked> {
        self.ask_at(clock::now(), rng)
    }

    fn ask_at(self: &Arc<Self>, now: u64, rng: &mut impl Rng) -> Option<Asked> {
        let probability = self.probability_at(now);
        add(&self.slot_at(now).requests, self.number(now));
        if probability > 0.0 {
            // 53 random bits: as many as an f64 holds, from 0 to just below 1.
            let point = (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
            if point < probability {
                return None;
            }
        }
        self.unanswered.fetch_add(1, Relaxed);
        Some(Asked {
            throttle: Arc::clone(self),
            accepted: true,
        })
    }

    /// The probability with which the next request is kept back.
    pub fn probability(&self) -> f64 {
        self.probability_at(clock::now())
    }

    fn probability_at(&self, now: u64) -> f64 {
        let (requests, accepts) = self.sums(now);
        let accepts = accepts + u64::from(self.unanswered.load(Relaxed));
        let (requests, accepts) = (requests as f64, accepts as f64);
        // At most `requests / (requests + 1)`: some requests always find out whether the service is back.
        ((requests - self.ratio * accepts) / (requests + 1.0)).max(0.0)
    }

    fn sums(&self, now: u64) -> (u64, u64) {
        let newest = self.number(now);
        let alive = |word: &AtomicU64| {
            let word = word.load(Relaxed);
            let age = newest.wrapping_sub((word >> 32) as u32);
            if (age as usize) < SLOTS {
                word & u64::from(u32::MAX)
            } else {
                0
            }
        };
        self.slots.iter().fold((0, 0), |(requests, accepts), slot| {
            (
                requests + alive(&slot.requests),
                accepts + alive(&slot.accepts),
            )
        })
    }

    fn number(&self, now: u64) -> u32 {
        // From 1: the words begin as 0.
        ((now / self.slot) as u32).wrapping_add(SLOTS as u32)
    }

    fn slot_at(&self, now: u64) -> &Slot {
        &self.slots[self.number(now) as usize % SLOTS]
    }
}

fn add(word: &AtomicU64, number: u32) {
    let _ = word.fetch_update(Relaxed, Relaxed, |word| {
        let count = if (word >> 32) as u32 == number {
            word as u32
        } else {
            // Of the round before.
            0
        };
        Some(u64::from(number) << 32 | u64::from(count.saturating_add(1)))
    });
}

/// A request that was sent. It counts as accepted when this is dropped, unless it was refused.
#[derive(Debug)]
pub struct Asked {
    throttle: Arc<Throttle>,
    accepted: bool,
}

impl Asked {
    /// The service refused it: by a status that says so, or by no answer at all.
    pub fn refused(&mut self) {
        self.accepted = false;
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.throttle.unanswered.fetch_sub(1, Relaxed);
        if self.accepted {
            let now = clock::now();
            add(
                &self.throttle.slot_at(now).accepts,
                self.throttle.number(now),
            );
        }
    }
}

#[cfg(test)]
mod tests;
