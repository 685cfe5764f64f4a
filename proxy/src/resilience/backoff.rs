//! How long a retry waits.

use std::time::Duration;

use rand::Rng;

/// Exponential backoff with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter", 2015): a pause drawn
/// evenly from zero to `base` × 2^(n-1), at most `max`. Clients that failed together come back apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Longest pause before the first retry.
    pub base: Duration,
    /// Longest pause before any.
    pub max: Duration,
}

impl Default for Backoff {
    /// 25 ms, and ten times that: Envoy's defaults.
    fn default() -> Backoff {
        Backoff {
            base: Duration::from_millis(25),
            max: Duration::from_millis(250),
        }
    }
}

impl Backoff {
    /// The pause before a retry. The first retry is number 1.
    pub fn delay(&self, retry: u32, rng: &mut impl Rng) -> Duration {
        let ceiling = self.ceiling(retry);
        // 53 random bits: as many as an f64 holds, from 0 to just below 1.
        let share = (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        ceiling.mul_f64(share)
    }

    fn ceiling(&self, retry: u32) -> Duration {
        // 2^31 × any base is past every sensible maximum.
        let doublings = retry.saturating_sub(1).min(31);
        self.base.saturating_mul(1 << doublings).min(self.max)
    }
}

#[cfg(test)]
mod tests;
