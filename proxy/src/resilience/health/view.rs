//! The health of an endpoint, for people.

use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::{Duration, SystemTime};

use super::{EJECTED, Health, OUT, UNHEALTHY};
use crate::balance::clock;
use crate::resilience::outlier::Cause;

/// How the last check failed that did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckFailure {
    /// For people.
    pub text: String,
    pub at: SystemTime,
}

/// What is known of an endpoint's health at one moment.
#[derive(Clone, Debug)]
pub struct View {
    pub state: HealthState,
    /// Of the ejection.
    pub cause: Option<Cause>,
    /// Ejected or unhealthy for so long.
    pub since: Option<Duration>,
    /// What is left of the ejection.
    pub left: Option<Duration>,
    /// Ejections that count for the next one's length.
    pub times: u32,
    pub last_failure: Option<CheckFailure>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthState {
    Available,
    Ejected,
    /// An active check fails.
    Unhealthy,
    /// Its ejection is over; one request decides.
    Probing,
}

impl View {
    /// A word for why it is not available.
    pub fn reason(&self) -> Option<&'static str> {
        match self.state {
            HealthState::Unhealthy => Some("health-check"),
            HealthState::Available => None,
            HealthState::Ejected | HealthState::Probing => self.cause.map(Cause::as_str),
        }
    }

    /// When it was ejected or found unhealthy.
    pub fn since_time(&self) -> Option<SystemTime> {
        SystemTime::now().checked_sub(self.since?)
    }

    /// When the ejection ends.
    pub fn until_time(&self) -> Option<SystemTime> {
        SystemTime::now().checked_add(self.left?)
    }
}

impl Health {
    pub fn state(&self) -> HealthState {
        match self.state.load(Acquire) {
            state if state & UNHEALTHY != 0 => HealthState::Unhealthy,
            state if state & EJECTED != 0 => HealthState::Ejected,
            state if state & OUT != 0 => HealthState::Probing,
            _ => HealthState::Available,
        }
    }

    /// Everything, for people.
    pub fn view(&self) -> View {
        let shown = self.state();
        let now = clock::now();
        let span = |from: u64, to: u64| Duration::from_nanos(to.saturating_sub(from));
        let out = matches!(shown, HealthState::Ejected | HealthState::Probing);
        View {
            state: shown,
            cause: Cause::ALL
                .get(usize::from(self.cause.load(Relaxed)))
                .copied()
                .filter(|_| out),
            since: (shown != HealthState::Available).then(|| span(self.since.load(Relaxed), now)),
            left: (shown == HealthState::Ejected).then(|| span(now, self.until.load(Relaxed))),
            times: self.times.load(Relaxed),
            last_failure: self.last_failure().clone(),
        }
    }
}
