//! The batch of a model server that says nothing of itself, from how long its first tokens take.
//!
//! While there is a place in the batch, the first token comes after the prompt was read: a time for each token of it that was not in the
//! cache, which hardly depends on how many others run. Without a place it comes when somebody else has ended, which is many times as
//! long. The gradient of Envoy's adaptive concurrency, on that time and with a wider tolerance:
//!
//! ```text
//! x        = time to the first token / (uncached prompt tokens + 256)
//! floor    = least x of the last one to two minutes
//! gradient = 4 × floor / x, at most 1 and at least 0.5
//! limit   ← limit + (min(limit, 2 n) × gradient + √limit − limit) / 5     n: requests that were there when it came
//! ```
//!
//! Unchanged where the gradient is 1 and `n` is below half of the limit: who is not asked for more says nothing of it. Nor where it is
//! below 1 and `n` above the limit: that request came before the limit fell. The 256 tokens
//! stand for what takes as long for a short prompt as for a long one. In the end some more than the batch are let through, about a root of it.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// A first token may take so many times the least before it is said that it waited. It waits for the step that is under way, and shares the
/// next one with other prompts.
const TOLERANCE: f64 = 4.0;

/// Tokens that each prompt counts more than it has.
const FIXED_TOKENS: f64 = 256.0;

/// The least is remembered for one to two of these, nanoseconds.
const WINDOW: u64 = 60_000_000_000;

/// Weight of the newest limit.
const WEIGHT: f64 = 0.2;

/// Shared by all threads: an update that two make at once may be lost, which is one sample of many.
#[derive(Debug, Default)]
pub(super) struct FirstTokens {
    /// Bits of an `f64`; 0: nothing is known.
    limit: AtomicU64,
    turned_at: AtomicU64,
    /// Bits of `f64`s, nanoseconds a token; 0: none.
    current: AtomicU64,
    previous: AtomicU64,
}

impl FirstTokens {
    /// The limit, once it is known that there is one. `None`: no first token has waited yet.
    pub(super) fn limit(&self) -> Option<u32> {
        let limit = f64::from_bits(self.limit.load(Relaxed));
        // Casts of floats saturate.
        (limit > 0.0).then_some(limit as u32)
    }

    /// A first token came after `time` nanoseconds. `start`, `max`: the limit while nothing is known, and the highest there is.
    pub(super) fn sample(
        &self,
        now: u64,
        time: u64,
        uncached: u32,
        n: u32,
        (start, max): (u32, u32),
    ) {
        let x = (time as f64).max(1.0) / (f64::from(uncached) + FIXED_TOKENS);
        let floor = self.floor(now, x);
        let gradient = (TOLERANCE * floor / x).clamp(0.5, 1.0);
        let known = f64::from_bits(self.limit.load(Relaxed));
        let n = f64::from(n.max(1));
        if gradient == 1.0 && (known == 0.0 || n < known / 2.0) {
            return;
        }
        // It came when there were more than there may be now: what it met is not what the limit does.
        if gradient < 1.0 && known > 0.0 && n > known.ceil() {
            return;
        }
        let limit = if known == 0.0 {
            f64::from(start)
        } else {
            known
        };
        let base = if gradient < 1.0 {
            limit.min(2.0 * n)
        } else {
            limit
        };
        let wanted = base * gradient + limit.sqrt();
        let next = (limit + (wanted - limit) * WEIGHT).clamp(1.0, f64::from(max.max(1)));
        self.limit.store(next.to_bits(), Relaxed);
    }

    /// The least of the last windows, this one included.
    fn floor(&self, now: u64, x: f64) -> f64 {
        let current = f64::from_bits(self.current.load(Relaxed));
        let turned_at = self.turned_at.load(Relaxed);
        if current == 0.0 || now.saturating_sub(turned_at) > WINDOW {
            self.turned_at.store(now, Relaxed);
            self.previous.store(current.to_bits(), Relaxed);
            self.current.store(x.to_bits(), Relaxed);
        } else if x < current {
            self.current.store(x.to_bits(), Relaxed);
        }
        let previous = f64::from_bits(self.previous.load(Relaxed));
        let current = f64::from_bits(self.current.load(Relaxed));
        if previous > 0.0 {
            current.min(previous)
        } else {
            current
        }
    }
}

#[cfg(test)]
mod tests;
