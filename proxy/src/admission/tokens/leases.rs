//! What is asked of the control plane, and what becomes of its answers. On the control side alone.
//!
//! Amounts are totals: an answer that is lost, or comes twice, changes nothing, and what is given back is taken out of the bucket
//! before it is told of. So the sidecar never holds more than the control plane thinks.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use outrigger_proto::budget::v1 as wire;

use super::hub::{Hub, Want};
use crate::balance::clock::{self, nanos};

/// A key that nobody has used for so long gives back what it holds, but for the advance.
const IDLE: Duration = Duration::from_secs(10);
/// The same during a drain, with nothing kept.
const IDLE_DRAINING: Duration = Duration::from_secs(1);
/// The next window's lease is asked for so long before it begins; for short windows a tenth of them.
const AHEAD_MS: u64 = 3000;
/// Where there was nothing left it is asked again after this time: others may have given back.
const QUIET: Duration = Duration::from_secs(1);

/// Buckets of which the control plane has been asked, and how often it was.
#[derive(Debug, Default)]
pub(super) struct Leases {
    held: Vec<Want>,
    sequence: u64,
}

/// One bucket's part of a request.
#[derive(Clone, Debug)]
pub struct Asked {
    want: Want,
    needed: u64,
    ahead: bool,
}

impl Hub {
    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is something to look after.
    pub fn has_leases(&self) -> bool {
        !self.leases().held.is_empty()
    }

    /// What is to be asked now. `tick`: looks after the leases that there are, too.
    pub fn collect(&self, tick: bool, draining: bool) -> Vec<Asked> {
        let now_ms = self.unix_ms();
        let mut asked = Vec::new();
        let mut seen = HashSet::new();
        for want in self.take_wants() {
            let window = now_ms / want.budget.per_ms();
            if want.bucket.window < window || !seen.insert(Arc::as_ptr(&want.bucket)) {
                continue;
            }
            let short = want.bucket.short.swap(0, Relaxed);
            let needed = want.bucket.used().saturating_add(short);
            asked.push(Asked {
                want,
                needed,
                ahead: true,
            });
        }
        if !tick {
            return asked;
        }
        let mut leases = self.leases();
        leases
            .held
            .retain(|it| it.bucket.window >= now_ms / it.budget.per_ms());
        for lease in &leases.held {
            if !seen.contains(&Arc::as_ptr(&lease.bucket)) {
                asked.extend(look_after(lease, now_ms, draining));
            }
        }
        asked
    }

    /// The message for the control plane.
    pub fn request(&self, instance: &str, asked: &[Asked]) -> wire::LeaseRequest {
        let mut leases = self.leases();
        leases.sequence += 1;
        let lease = |it: &Asked| wire::LeaseOf {
            service: it.want.budget.service.to_string(),
            policy: it.want.budget.policy.to_string(),
            limit: it.want.budget.name.to_string(),
            key: it.want.bucket.digest.to_vec(),
            label: it.want.bucket.label.to_string(),
            window: it.want.bucket.window,
            held: it.want.bucket.held(),
            needed: it.needed,
            ahead: it.ahead,
            used: it.want.bucket.used(),
            holder: it.want.budget.counts.holder,
        };
        wire::LeaseRequest {
            instance: instance.to_owned(),
            sequence: leases.sequence,
            leases: asked.iter().map(lease).collect(),
        }
    }

    /// Takes the answer to what was asked last.
    pub fn answered(&self, asked: Vec<Asked>, response: wire::LeaseResponse) {
        if response.now_unix_ms > 0 {
            self.set_unix_ms(response.now_unix_ms);
        }
        let now = clock::now();
        let mut leases = self.leases();
        for (asked, leased) in asked.into_iter().zip(response.leases) {
            let bucket = &asked.want.bucket;
            if !leased.refused.is_empty() {
                tracing::debug!(policy = %asked.want.budget.policy, limit = %asked.want.budget.name, reason = leased.refused, "no lease");
                bucket.be_quiet_until(now.saturating_add(nanos(QUIET)));
                continue;
            }
            let more = leased.held.saturating_sub(bucket.held());
            asked.want.budget.counts.leased.fetch_add(more, Relaxed);
            bucket.answer(leased.held, leased.left);
            if leased.held < asked.needed || (asked.ahead && leased.left == 0) {
                bucket.be_quiet_until(now.saturating_add(nanos(QUIET)));
            }
            if !bucket.listed.swap(true, Relaxed) {
                leases.held.push(asked.want);
            }
        }
    }
}

/// What a lease needs besides what requests want.
fn look_after(lease: &Want, now_ms: u64, draining: bool) -> Option<Asked> {
    let Want { budget, bucket } = lease;
    let per = budget.per_ms();
    if bucket.window != now_ms / per {
        return None;
    }
    let idle = clock::now().saturating_sub(bucket.touched());
    let limit = if draining { IDLE_DRAINING } else { IDLE };
    if idle > nanos(limit) {
        let keep = if draining { 0 } else { budget.advance };
        return (bucket.give_up(keep) > 0).then(|| Asked {
            want: lease.clone(),
            needed: bucket.held(),
            ahead: false,
        });
    }
    let left = per - now_ms % per;
    if draining || left > AHEAD_MS.min(per / 10) {
        return None;
    }
    let next = bucket.next(budget.advance);
    (!next.is_answered()).then(|| Asked {
        want: Want {
            budget: Arc::clone(budget),
            bucket: Arc::clone(next),
        },
        needed: next.used(),
        ahead: true,
    })
}
