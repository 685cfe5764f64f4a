//! GCRA, the generic cell rate algorithm (ITU-T I.371, annex A): a token bucket in one number.
//!
//! That number is the *theoretical arrival time*, when the bucket is full again. A key that was not used for a while is one
//! whose time has passed: to forget it loses nothing.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::balance::clock::nanos;

/// So many requests in a time, so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds for each request.
    interval: u64,
    /// At least 1.
    burst: u32,
    /// What `interval` was made of.
    requests: u32,
    per: Duration,
}

/// What is left after a request, or until the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Requests that may come at once now.
    pub remaining: u32,
    /// Until all of the burst is there again.
    pub reset: Duration,
    /// Zero where the request was let through.
    pub retry_after: Duration,
}

impl Rate {
    /// A rate of zero requests counts as one.
    pub fn new(requests: u32, per: Duration, burst: u32) -> Rate {
        let requests = requests.max(1);
        Rate {
            // Up: rather a nanosecond too long than a request too many.
            interval: nanos(per).div_ceil(u64::from(requests)).max(1),
            burst: burst.max(1),
            requests,
            per,
        }
    }

    pub fn requests(&self) -> u32 {
        self.requests
    }

    pub fn per(&self) -> Duration {
        self.per
    }

    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// Takes a request's share. `time`: the theoretical arrival time; `now`: nanoseconds of the same clock.
    pub fn take(&self, time: &AtomicU64, now: u64) -> Result<Standing, Standing> {
        let most = self.interval.saturating_mul(u64::from(self.burst));
        let taken = time.fetch_update(Relaxed, Relaxed, |time| {
            let next = time.max(now).saturating_add(self.interval);
            (next - now <= most).then_some(next)
        });
        match taken {
            Ok(before) => {
                let next = before.max(now).saturating_add(self.interval);
                Ok(self.standing(next, now, most, Duration::ZERO))
            }
            Err(time) => {
                let next = time.max(now).saturating_add(self.interval);
                let wait = Duration::from_nanos((next - now).saturating_sub(most));
                Err(self.standing(time, now, most, wait))
            }
        }
    }

    /// Gives back what was [taken](Self::take) for a request that another limit refused.
    pub fn give_back(&self, time: &AtomicU64) {
        let _ = time.fetch_update(Relaxed, Relaxed, |time| {
            Some(time.saturating_sub(self.interval))
        });
    }

    fn standing(&self, time: u64, now: u64, most: u64, retry_after: Duration) -> Standing {
        let owed = time.saturating_sub(now);
        Standing {
            remaining: u32::try_from(most.saturating_sub(owed) / self.interval).unwrap_or(u32::MAX),
            reset: Duration::from_nanos(owed),
            retry_after,
        }
    }
}

#[cfg(test)]
mod tests;
