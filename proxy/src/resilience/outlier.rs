//! Outlier detection: endpoints of a service that fail are taken out for a time.
//!
//! Algorithm and defaults are Envoy's (`envoy.config.cluster.v3.OutlierDetection`), with two differences: what comes back
//! must first answer one request, and the last endpoint that is left is never taken out.

mod success_rate;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::health::Health;
use crate::balance::below;
use crate::balance::clock::{self, nanos};

pub use success_rate::SuccessRate;

/// Ejections end up to so many per cent later: endpoints that were taken out together must not come back together.
const JITTER_PERCENT: u64 = 10;

/// When endpoints are taken out. The defaults are Envoy's.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Failures in a row that take an endpoint out, by [`Fault`]; 0: however many.
    pub consecutive: [u32; 3],
    /// Between two sweeps: success rates are compared, and one ejection is forgiven.
    pub interval: Duration,
    /// Length of the first ejection; the n-th in a row is n times as long.
    pub base_ejection_time: Duration,
    /// Longest ejection, before the jitter.
    pub max_ejection_time: Duration,
    /// Most endpoints that may be out. At least one may, whatever the percentage.
    pub max_ejection_percent: u32,
    /// So many must be left, of all; at least one.
    pub min_healthy_percent: u32,
    /// `None`: success rates are not compared.
    pub success_rate: Option<SuccessRate>,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            consecutive: [5; 3],
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_percent: 10,
            min_healthy_percent: 0,
            success_rate: Some(SuccessRate::default()),
        }
    }
}

impl Policy {
    /// Length of the n-th ejection: base × n, at most the longest one (but never below the base).
    pub fn ejection_time(&self, times: u32) -> Duration {
        let longest = self.max_ejection_time.max(self.base_ejection_time);
        self.base_ejection_time
            .saturating_mul(times.max(1))
            .min(longest)
    }

    /// Whether one more of so many endpoints may be taken out.
    pub fn may_eject(&self, census: Census) -> bool {
        census.ejected < self.most_ejected(census.total) && {
            let left = i64::from(census.total)
                - i64::from(census.ejected)
                - i64::from(census.unhealthy)
                - 1;
            left >= i64::from(self.least_left(census.total))
        }
    }

    fn most_ejected(&self, total: u32) -> u32 {
        percent_of(self.max_ejection_percent, total).max(1)
    }

    fn least_left(&self, total: u32) -> u32 {
        // Rounded up: a floor of 50 % of three is two.
        (total - percent_of(100 - self.min_healthy_percent.min(100), total)).max(1)
    }
}

fn percent_of(percent: u32, total: u32) -> u32 {
    // At most `total`, as percent is at most 100.
    (u64::from(percent.min(100)) * u64::from(total) / 100) as u32
}

/// What a failure was. Each kind is part of the ones before it, and counts for them as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A 5xx status, or a response that ended before its end.
    Server,
    /// 502, 503 or 504; no answer in time; a connection that broke.
    Gateway,
    /// No connection, or not to whom it should be.
    Connect,
}

impl Fault {
    pub(super) const ALL: [Fault; 3] = [Fault::Server, Fault::Gateway, Fault::Connect];

    /// Whether this failure counts for that kind.
    pub(super) fn counts_as(self, kind: Fault) -> bool {
        kind as usize <= self as usize
    }
}

/// Why an endpoint was taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Consecutive5xx,
    ConsecutiveGatewayFailures,
    ConsecutiveConnectFailures,
    /// Its share of successes is too far below that of the others.
    SuccessRate,
    /// The request that was to prove it failed.
    FailedProbation,
}

impl Cause {
    pub const ALL: [Cause; 5] = [
        Cause::Consecutive5xx,
        Cause::ConsecutiveGatewayFailures,
        Cause::ConsecutiveConnectFailures,
        Cause::SuccessRate,
        Cause::FailedProbation,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Cause::Consecutive5xx => "consecutive-5xx",
            Cause::ConsecutiveGatewayFailures => "consecutive-gateway-failures",
            Cause::ConsecutiveConnectFailures => "consecutive-connect-failures",
            Cause::SuccessRate => "success-rate",
            Cause::FailedProbation => "failed-probation",
        }
    }

    pub(super) const fn consecutive(fault: Fault) -> Cause {
        match fault {
            Fault::Server => Cause::Consecutive5xx,
            Fault::Gateway => Cause::ConsecutiveGatewayFailures,
            Fault::Connect => Cause::ConsecutiveConnectFailures,
        }
    }
}

/// How many endpoints a service has, and how many of them are not used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    pub total: u32,
    /// Out, or on probation.
    pub ejected: u32,
    /// By active checks. None of these counts as ejected.
    pub unhealthy: u32,
}

/// Bits for each number of a census: two million endpoints.
const BITS: u32 = 21;
const MOST: u32 = (1 << BITS) - 1;

impl Census {
    fn pack(self) -> u64 {
        u64::from(self.total)
            | u64::from(self.ejected) << BITS
            | u64::from(self.unhealthy) << (2 * BITS)
    }

    fn unpack(packed: u64) -> Census {
        let part = |index: u32| (packed >> (index * BITS)) as u32 & MOST;
        Census {
            total: part(0),
            ejected: part(1),
            unhealthy: part(2),
        }
    }
}

/// Outlier detection of one service. Survives changes of configuration.
#[derive(Debug, Default)]
pub struct Outliers {
    policy: ArcSwapOption<Policy>,
    census: AtomicU64,
    ejections: [AtomicU64; Cause::ALL.len()],
    /// When the next sweep is due; [`clock::now`].
    sweep_at: AtomicU64,
    /// Active checks that succeeded, and that failed.
    checks: [AtomicU64; 2],
}

impl Outliers {
    /// What is in effect. `None`: nothing is taken out.
    pub fn policy(&self) -> Option<Arc<Policy>> {
        self.policy.load_full()
    }

    pub fn census(&self) -> Census {
        Census::unpack(self.census.load(Acquire))
    }

    /// Ejections so far, by cause.
    pub fn ejections(&self) -> impl Iterator<Item = (Cause, u64)> {
        Cause::ALL
            .into_iter()
            .zip(self.ejections.iter().map(|count| count.load(Relaxed)))
    }

    /// An active check of one of its endpoints ended.
    pub(super) fn count_check(&self, ok: bool) {
        self.checks[usize::from(!ok)].fetch_add(1, Relaxed);
    }

    /// Active checks so far, by how they ended.
    pub fn checks(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.checks.iter().map(|count| count.load(Relaxed));
        ["success", "failure"].into_iter().zip(counts)
    }

    /// Takes over what the configuration says. `before` and `members`: each endpoint once. The control thread's.
    pub(crate) fn update(
        &self,
        policy: Option<&Arc<Policy>>,
        before: &[Arc<Health>],
        members: &[Arc<Health>],
    ) {
        let now: HashSet<_> = members.iter().map(Arc::as_ptr).collect();
        for gone in before.iter().filter(|one| !now.contains(&Arc::as_ptr(one))) {
            let (out, unhealthy) = gone.retire();
            self.count(|census| {
                census.ejected = census.ejected.saturating_sub(out.into());
                census.unhealthy = census.unhealthy.saturating_sub(unhealthy.into());
            });
        }
        let total = u32::try_from(members.len()).unwrap_or(MOST).min(MOST);
        self.count(|census| census.total = total);
        let current = self.policy.load();
        if current.as_ref() != policy {
            self.policy.store(policy.cloned());
        }
        for member in members {
            member.set_watched(policy.is_some());
        }
        if let Some(policy) = policy {
            self.keep_floor(policy, members);
        }
    }

    /// The clock's part, to be called often. Returns whether an interval ended.
    pub(crate) fn sweep(&self, members: &[Arc<Health>]) -> bool {
        let Some(policy) = self.policy() else {
            return false;
        };
        let now = clock::now();
        for member in members {
            if member.ejected_until().is_some_and(|until| until <= now) {
                member.end_ejection();
            }
        }
        self.keep_floor(&policy, members);
        let due = self.sweep_at.load(Relaxed);
        if due > now && due - now <= nanos(policy.interval) {
            return false;
        }
        self.sweep_at
            .store(now.saturating_add(nanos(policy.interval)), Relaxed);
        if due == 0 {
            // The first one only starts the clock.
            return false;
        }
        for member in members {
            member.forgive();
        }
        let counts: Vec<(u32, u32)> = members.iter().map(|each| each.take_interval()).collect();
        if let Some(rate) = &policy.success_rate {
            for index in rate.outliers(&counts) {
                members[index].eject(Cause::SuccessRate);
            }
        }
        true
    }

    /// Endpoints have gone, or were found unhealthy: what was within the limits may be so no longer. Those whose ejection ends
    /// first come back.
    fn keep_floor(&self, policy: &Policy, members: &[Arc<Health>]) {
        loop {
            let census = self.census();
            let left =
                i64::from(census.total) - i64::from(census.ejected) - i64::from(census.unhealthy);
            let within = census.ejected <= policy.most_ejected(census.total)
                && left >= i64::from(policy.least_left(census.total));
            if census.ejected == 0 || within {
                return;
            }
            let first = members
                .iter()
                .filter(|member| member.is_out())
                .min_by_key(|member| member.ejected_until().unwrap_or(0));
            // Another thread may have brought it back meanwhile, and counted that.
            if !first.is_some_and(|first| first.pardon()) {
                return;
            }
        }
    }

    /// One more is out, if that is within the limits.
    pub(super) fn reserve(&self, policy: &Policy) -> bool {
        let reserved = self.census.fetch_update(AcqRel, Acquire, |packed| {
            let mut census = Census::unpack(packed);
            policy.may_eject(census).then(|| {
                census.ejected += 1;
                census.pack()
            })
        });
        reserved.is_ok()
    }

    /// One less is out.
    pub(super) fn release(&self) {
        self.count(|census| census.ejected = census.ejected.saturating_sub(1));
    }

    /// An endpoint was found unhealthy, or healthy again. `was_out`: it counted as ejected until now.
    pub(super) fn count_unhealthy(&self, unhealthy: bool, was_out: bool) {
        self.count(|census| {
            census.ejected = census.ejected.saturating_sub(was_out.into());
            census.unhealthy = if unhealthy {
                census.unhealthy + 1
            } else {
                census.unhealthy.saturating_sub(1)
            };
        });
    }

    fn count(&self, change: impl Fn(&mut Census)) {
        let _ = self.census.fetch_update(AcqRel, Acquire, |packed| {
            let mut census = Census::unpack(packed);
            change(&mut census);
            Some(census.pack())
        });
    }

    pub(super) fn count_ejection(&self, cause: Cause) {
        self.ejections[cause as usize].fetch_add(1, Relaxed);
    }

    /// Length of the n-th ejection with its jitter, nanoseconds.
    pub(super) fn ejection_ns(&self, times: u32) -> u64 {
        let length = self
            .policy()
            .map_or(0, |policy| nanos(policy.ejection_time(times)));
        let most = length / 100 * JITTER_PERCENT;
        length.saturating_add(below(&mut rand::rng(), most.saturating_add(1)))
    }
}

#[cfg(test)]
mod tests;
