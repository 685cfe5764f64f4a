//! Figures about what is let through: what was refused and how long requests waited. How full everything is stands in the
//! snapshot.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::catalog;
use super::exposition::Page;
use super::histogram::Histogram;
use crate::admission::{Counted, Limit, Priority, Refusals};
use crate::policy::Snapshot;
use crate::telemetry::Direction;

type ByService = HashMap<(Direction, Arc<str>), Arc<Refusals>>;

/// Handles by service. Services are those of the configuration, which is bounded.
#[derive(Debug, Default)]
pub(super) struct Admission {
    refusals: Mutex<ByService>,
    waits: Mutex<HashMap<Arc<str>, Arc<QueueWaits>>>,
}

/// How long requests of one service waited for their turn.
#[derive(Debug, Default)]
pub struct QueueWaits([Histogram; Priority::ALL.len()]);

impl QueueWaits {
    /// A request had its turn.
    pub fn observe(&self, priority: Priority, waited: Duration) {
        self.0[priority as usize].observe(waited);
    }
}

impl Admission {
    pub(super) fn refusals(&self, direction: Direction, service: &Arc<str>) -> Arc<Refusals> {
        // Nothing under these locks leaves a map half-changed.
        let mut all = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry((direction, service.clone())).or_default().clone()
    }

    pub(super) fn waits(&self, service: &Arc<str>) -> Arc<QueueWaits> {
        let mut all = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(service.clone()).or_default().clone()
    }

    pub(super) fn write(&self, page: &mut Page) {
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        for ((direction, service), refusals) in refusals.iter() {
            for limit in Limit::ALL {
                let count = refusals.get(limit);
                if count > 0 {
                    let labels = [direction.as_str(), service, limit.as_str()];
                    page.add(catalog::REJECTIONS, &labels, count as f64);
                }
            }
        }
        let waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        for (service, waits) in waits.iter() {
            for priority in Priority::ALL {
                let labels = [&**service, priority.as_str()];
                page.add_histogram(catalog::QUEUE_WAIT, &labels, &waits.0[priority as usize]);
            }
        }
    }
}

/// What is in use of the limits in effect.
pub(super) fn write_snapshot(page: &mut Page, snapshot: &Snapshot) {
    for upstream in snapshot.upstreams() {
        let Some(breaker) = &upstream.limits else {
            continue;
        };
        for counted in Counted::ALL {
            let Some(limit) = breaker.limit(counted) else {
                continue;
            };
            let labels = [&*upstream.service, counted.limit().as_str()];
            page.add(catalog::BREAKER_LIMIT, &labels, limit.into());
            page.add(
                catalog::BREAKER_IN_USE,
                &labels,
                breaker.usage.get(counted).into(),
            );
            let open = u8::from(breaker.is_open(counted));
            page.add(catalog::BREAKER_OPEN, &labels, open.into());
        }
        if let Some(throttle) = &breaker.throttle {
            page.add(
                catalog::THROTTLING,
                &[&upstream.service],
                throttle.probability(),
            );
        }
    }
    // A limit counts for all ports of its service.
    let mut decisions = std::collections::BTreeMap::new();
    let mut budgets = std::collections::BTreeMap::new();
    for port in snapshot.inbound.values() {
        let number = port.port.to_string();
        let labels = [&*port.service, number.as_str()];
        if let Some(gate) = &port.gate {
            page.add(
                catalog::CONCURRENCY_LIMIT,
                &labels,
                gate.settings().limit().into(),
            );
            page.add(catalog::CONCURRENCY, &labels, gate.in_use().into());
            page.add(catalog::QUEUE_LENGTH, &labels, gate.waiting().into());
        }
        if let Some(limits) = &port.rate_limits {
            for limit in &limits.limits {
                let key = (
                    port.service.clone(),
                    limit.policy.clone(),
                    limit.name.clone(),
                );
                decisions.insert(key, &limit.counts);
            }
            for budget in &limits.budgets {
                let key = (
                    port.service.clone(),
                    budget.policy.clone(),
                    budget.name.clone(),
                );
                budgets.insert(key, &budget.counts);
            }
        }
    }
    for ((service, policy, name), counts) in budgets {
        for (decision, count) in [("allowed", counts.allowed()), ("refused", counts.refused())] {
            let labels = [&*service, &*policy, &*name, decision];
            page.add(catalog::RATE_LIMIT_DECISIONS, &labels, count as f64);
        }
        let labels = [&*service, &*policy, &*name];
        for (metric, count) in [
            (catalog::RATE_LIMIT_CROWDED, counts.crowded()),
            (catalog::TOKEN_BUDGET_SPENT, counts.spent()),
            (catalog::TOKEN_BUDGET_LEASED, counts.leased()),
            (catalog::TOKEN_BUDGET_STOPPED, counts.stopped()),
        ] {
            page.add(metric, &labels, count as f64);
        }
    }
    for ((service, policy, name), counts) in decisions {
        for (decision, count) in [("allowed", counts.allowed()), ("refused", counts.refused())] {
            let labels = [&*service, &*policy, &*name, decision];
            page.add(catalog::RATE_LIMIT_DECISIONS, &labels, count as f64);
        }
        let labels = [&*service, &*policy, &*name];
        page.add(
            catalog::RATE_LIMIT_CROWDED,
            &labels,
            counts.crowded() as f64,
        );
    }
}
