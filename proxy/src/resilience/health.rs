//! Whether an endpoint should be given requests, as outlier detection and active checks see it.
//!
//! ```text
//!             eject                    time is over             a request takes it
//! in service ───────► ejected ──────────────────► probe due ─────────────────► probing
//!     ▲                  ▲                            ▲                         │ │ │
//!     │                  └────────── it failed ───────┼─────────────────────────┘ │ │
//!     │                              no verdict ──────┘◄──────────────────────────┘ │
//!     └───────────────────────────── it succeeded ──────────────────────────────────┘
//! ```
//!
//! One word of bits, changed by compare-and-exchange: workers and the control thread need no lock. What follows a change (the
//! counts of the service) is done by whoever made it.

mod view;
mod watch;

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};

use super::outlier::{Cause, Fault, Outliers};
use crate::balance::clock;

pub use view::{CheckFailure, HealthState, View};
pub use watch::Watch;

/// Counts the changes of any endpoint's availability.
static CHANGES: AtomicU32 = AtomicU32::new(0);

/// How often some endpoint became available, or stopped to be (wraps). While this number stays, so does what was found by
/// asking all endpoints of a set.
pub(crate) fn changes() -> u32 {
    CHANGES.load(Acquire)
}

/// After the change itself: who sees the number sees what it stands for.
fn note_change(before: u32, after: u32) {
    if (before & BARRED == 0) != (after & BARRED == 0) {
        CHANGES.fetch_add(1, Release);
    }
}

/// Out for a time.
const EJECTED: u32 = 1;
/// An active check says so.
const UNHEALTHY: u32 = 1 << 1;
/// The one request of the probation is under way.
const PROBING: u32 = 1 << 2;
/// The ejection's time is over: the next request decides.
const PROBE_DUE: u32 = 1 << 3;
/// Outlier detection is on.
const WATCHED: u32 = 1 << 4;
/// No longer in the configuration.
const RETIRED: u32 = 1 << 5;
/// Just ejected: what is known of the ejection is being written down.
const SETTING: u32 = 1 << 6;

/// Requests keep away.
const BARRED: u32 = EJECTED | UNHEALTHY | PROBING;
/// Counts as ejected, until it has proved itself.
const OUT: u32 = EJECTED | PROBING | PROBE_DUE;

/// Health of one endpoint as this sidecar sees it. Shared by all threads and by all versions of the configuration.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Health {
    state: AtomicU32,
    /// Failures in a row, by [`Fault`].
    in_a_row: [AtomicU32; 3],
    /// Of the current interval.
    requests: AtomicU32,
    successes: AtomicU32,
    /// Ejections that count for the next one's length.
    times: AtomicU32,
    /// Of the last ejection.
    cause: AtomicU8,
    /// When it was ejected or found unhealthy; [`clock::now`].
    since: AtomicU64,
    /// End of the ejection.
    until: AtomicU64,
    service: Arc<Outliers>,
    /// Checks that fail, a bit for each.
    failing: AtomicU32,
    /// Not for requests: only the control thread takes it.
    last_failure: Mutex<Option<CheckFailure>>,
}

impl Health {
    /// For an endpoint of this service.
    pub fn of(service: &Arc<Outliers>) -> Health {
        Health {
            service: Arc::clone(service),
            ..Health::default()
        }
    }

    /// Whether requests may go to it. One relaxed load: asked for every candidate of every choice.
    pub fn is_available(&self) -> bool {
        self.state.load(Relaxed) & BARRED == 0
    }

    /// How a check failed, whether that makes the endpoint unhealthy or not yet.
    pub(crate) fn note_failure(&self, failure: CheckFailure) {
        *self.last_failure() = Some(failure);
    }

    /// Whether a check fails. `index` tells the endpoint's checks apart; below 32.
    pub(crate) fn set_failing(&self, index: usize, failing: bool) {
        let bit = 1 << (index % 32);
        let all = if failing {
            self.failing.fetch_or(bit, Relaxed) | bit
        } else {
            self.failing.fetch_and(!bit, Relaxed) & !bit
        };
        self.set_unhealthy(all != 0);
    }

    /// No check is configured any more.
    pub(crate) fn forget_checks(&self) {
        self.failing.store(0, Relaxed);
        self.set_unhealthy(false);
        *self.last_failure() = None;
    }

    /// The checks' word takes the place of an ejection: they find out when it is back.
    fn set_unhealthy(&self, unhealthy: bool) {
        let now = clock::now();
        let mut before = 0;
        let changed = self.change(|state| {
            before = state;
            match (state & UNHEALTHY != 0, unhealthy) {
                (false, true) if state & RETIRED == 0 => Some((state | UNHEALTHY) & !OUT),
                (true, false) => Some(state & !UNHEALTHY),
                _ => None,
            }
        });
        if !changed {
            return;
        }
        if unhealthy {
            self.since.store(now, Relaxed);
            self.reset();
        }
        self.service
            .count_unhealthy(unhealthy, before & OUT != 0 && unhealthy);
    }

    fn last_failure(&self) -> std::sync::MutexGuard<'_, Option<CheckFailure>> {
        self.last_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies `next` to the state, atomically; `None` leaves it. Returns whether it was changed.
    fn change(&self, mut next: impl FnMut(u32) -> Option<u32>) -> bool {
        let mut after = 0;
        let changed = self.state.fetch_update(AcqRel, Acquire, |state| {
            let next = next(state);
            after = next.unwrap_or(state);
            next
        });
        match changed {
            Ok(before) => {
                note_change(before, after);
                true
            }
            Err(_) => false,
        }
    }

    fn reset(&self) {
        for count in self
            .in_a_row
            .iter()
            .chain([&self.requests, &self.successes])
        {
            count.store(0, Relaxed);
        }
    }

    /// A request succeeded.
    fn succeeded(&self) {
        if self.state.load(Relaxed) & (OUT | UNHEALTHY) != 0 {
            // Sent because there was no other, or before.
            return;
        }
        for count in &self.in_a_row {
            // Most often it is 0 already: no need to take the line from the other threads.
            if count.load(Relaxed) != 0 {
                count.store(0, Relaxed);
            }
        }
        self.requests.fetch_add(1, Relaxed);
        self.successes.fetch_add(1, Relaxed);
    }

    /// A request failed.
    fn failed(&self, fault: Fault) {
        if self.state.load(Relaxed) & (OUT | UNHEALTHY) != 0 {
            return;
        }
        let Some(policy) = self.service.policy() else {
            return;
        };
        self.requests.fetch_add(1, Relaxed);
        let mut cause = None;
        for kind in Fault::ALL {
            let count = &self.in_a_row[kind as usize];
            if !fault.counts_as(kind) {
                count.store(0, Relaxed);
                continue;
            }
            let count = count.fetch_add(1, Relaxed).saturating_add(1);
            let threshold = policy.consecutive[kind as usize];
            if threshold != 0 && count >= threshold {
                // The last one is the most specific.
                cause = Some(Cause::consecutive(kind));
            }
        }
        if let Some(cause) = cause {
            self.eject(cause);
        }
    }

    /// Takes it out, unless too many are out. Returns whether it was done.
    pub(super) fn eject(&self, cause: Cause) -> bool {
        let Some(policy) = self.service.policy() else {
            return false;
        };
        if !self.service.reserve(&policy) {
            return false;
        }
        let taken = self.change(|state| {
            let may = state & (OUT | UNHEALTHY | RETIRED) == 0 && state & WATCHED != 0;
            may.then_some(state | EJECTED | SETTING)
        });
        if !taken {
            // Another thread was faster.
            self.service.release();
            return false;
        }
        self.begin_ejection(cause);
        true
    }

    fn begin_ejection(&self, cause: Cause) {
        let times = self.times.fetch_add(1, Relaxed).saturating_add(1);
        let now = clock::now();
        self.since.store(now, Relaxed);
        let until = now.saturating_add(self.service.ejection_ns(times));
        self.until.store(until, Relaxed);
        self.cause.store(cause as u8, Relaxed);
        self.reset();
        self.service.count_ejection(cause);
        self.change(|state| Some(state & !SETTING));
    }

    /// The end of an ejection, if that is what it waits for.
    pub(super) fn ejected_until(&self) -> Option<u64> {
        let state = self.state.load(Acquire);
        (state & EJECTED != 0 && state & SETTING == 0).then(|| self.until.load(Relaxed))
    }

    /// The ejection's time is over.
    pub(super) fn end_ejection(&self) {
        self.change(|state| {
            (state & EJECTED != 0 && state & SETTING == 0).then_some(state & !EJECTED | PROBE_DUE)
        });
    }

    /// Back without a probation. Returns whether it was out.
    pub(super) fn pardon(&self) -> bool {
        let pardoned = self.change(|state| (state & OUT != 0).then_some(state & !OUT));
        if pardoned {
            self.service.release();
            self.reset();
        }
        pardoned
    }

    /// Whether it is out or on probation.
    pub(super) fn is_out(&self) -> bool {
        self.state.load(Relaxed) & OUT != 0
    }

    /// One ejection less counts for the next one's length.
    pub(super) fn forgive(&self) {
        if !self.is_out() {
            let _ = self
                .times
                .fetch_update(Relaxed, Relaxed, |times| times.checked_sub(1));
        }
    }

    /// Requests and successes of the interval that ends now.
    pub(super) fn take_interval(&self) -> (u32, u32) {
        // The successes first: a request that ends in between must not count as a failure.
        let successes = self.successes.swap(0, Relaxed);
        let requests = self.requests.swap(0, Relaxed);
        (requests.max(successes), successes)
    }

    pub(super) fn set_watched(&self, watched: bool) {
        if watched {
            self.state.fetch_or(WATCHED, AcqRel);
        } else {
            self.state.fetch_and(!WATCHED, AcqRel);
            self.pardon();
            self.times.store(0, Relaxed);
        }
    }

    /// It is no longer in the configuration. Returns whether it was out, and whether it was unhealthy.
    pub(super) fn retire(&self) -> (bool, bool) {
        let before = self.state.swap(RETIRED, AcqRel);
        note_change(before, RETIRED);
        (before & OUT != 0, before & UNHEALTHY != 0)
    }

    /// The probation's request has ended. `None`: without a verdict.
    fn probed(&self, succeeded: Option<bool>) {
        let ended = self.change(|state| {
            let rest = state & !PROBING;
            (state & PROBING != 0).then_some(match succeeded {
                Some(true) => rest,
                Some(false) => rest | EJECTED | SETTING,
                None => rest | PROBE_DUE,
            })
        });
        match succeeded {
            Some(true) if ended => {
                self.service.release();
                self.reset();
            }
            Some(false) if ended => self.begin_ejection(Cause::FailedProbation),
            _ => {}
        }
    }
}
