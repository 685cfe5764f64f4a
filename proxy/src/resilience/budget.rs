//! How many retries there may be: a share of the requests, so that an overload is not multiplied by them.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use crate::balance::clock;

/// How long a deposit can be drawn on, seconds. Finagle's and tower's default.
const LIFETIME_SECONDS: u64 = 10;
/// One slot per second, and the one being written.
const SLOTS: usize = LIFETIME_SECONDS as usize;
/// What a retry costs. A request pays in `percent`, so every whole percentage is exact.
const RETRY: i64 = 100;

/// A token bucket as in Finagle (`com.twitter.finagle.service.RetryBudget`) and tower (`TpsBudget`): every request deposits,
/// a retry withdraws 100/percent times as much, deposits last for ten seconds, and a reserve of `min_per_second` retries
/// is always there.
///
/// No lock: each second has a slot, an atomic with the second's number and its balance in one word.
#[derive(Debug)]
pub struct RetryBudget {
    percent: u32,
    min_per_second: u32,
    slots: [AtomicU64; SLOTS],
}

impl RetryBudget {
    /// `percent` retries for each 100 requests over the last ten seconds, and `min_per_second` retries on top.
    pub fn new(percent: u32, min_per_second: u32) -> RetryBudget {
        RetryBudget {
            percent,
            min_per_second,
            slots: Default::default(),
        }
    }

    pub fn percent(&self) -> u32 {
        self.percent
    }

    pub fn min_per_second(&self) -> u32 {
        self.min_per_second
    }

    /// A request came: call it once for each, not for its retries.
    pub fn deposit(&self) {
        self.deposit_at(second());
    }

    /// Takes what a retry costs. False: there is not enough, do not retry.
    pub fn try_withdraw(&self) -> bool {
        self.try_withdraw_at(second())
    }

    fn deposit_at(&self, second: u32) {
        self.add(second, i64::from(self.percent));
    }

    fn try_withdraw_at(&self, second: u32) -> bool {
        // Taken first and given back where it was too much: threads that come at the same time can then refuse one retry
        // too many, never allow one.
        // In one order for all threads, so that of two that take from different slots one sees the other.
        self.add(second, -RETRY);
        let allowed = self.balance(second) >= 0;
        if !allowed {
            self.add(second, RETRY);
        }
        allowed
    }

    fn add(&self, second: u32, amount: i64) {
        let slot = &self.slots[second as usize % SLOTS];
        let _ = slot.fetch_update(SeqCst, Relaxed, |word| {
            let (then, balance) = unpack(word);
            // A slot of an earlier round is over. One of a later second belongs to a thread that is ahead: leave it there.
            let (at, balance) = if then < second {
                (second, 0)
            } else {
                (then, balance)
            };
            Some(pack(at, balance.saturating_add(amount)))
        });
    }

    fn balance(&self, second: u32) -> i64 {
        let reserve = i64::from(self.min_per_second) * LIFETIME_SECONDS as i64 * RETRY;
        let alive = |then: u32| u64::from(second.saturating_sub(then)) < LIFETIME_SECONDS;
        self.slots
            .iter()
            .map(|slot| unpack(slot.load(SeqCst)))
            .filter(|(then, _)| alive(*then))
            .fold(reserve, |sum, (_, balance)| sum.saturating_add(balance))
    }
}

/// Seconds of the monotonic clock: 136 years fit.
fn second() -> u32 {
    (clock::now() / 1_000_000_000) as u32
}

fn pack(second: u32, balance: i64) -> u64 {
    let balance = balance.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32;
    u64::from(second) << 32 | u64::from(balance as u32)
}

fn unpack(word: u64) -> (u32, i64) {
    ((word >> 32) as u32, i64::from(word as u32 as i32))
}

#[cfg(test)]
mod tests;
