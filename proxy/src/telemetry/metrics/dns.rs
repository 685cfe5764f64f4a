//! Lookups of names.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use super::catalog;
use super::exposition::Page;
use crate::dns::Outcome;
use crate::policy::Snapshot;

/// Lookups of one service's names, by how they ended.
#[derive(Debug, Default)]
pub struct DnsMetrics {
    lookups: [AtomicU64; Outcome::ALL.len()],
}

impl DnsMetrics {
    pub(crate) fn count(&self, outcome: Outcome) {
        self.lookups[outcome as usize].fetch_add(1, Relaxed);
    }
}

/// By service, of which the configuration has so many; all hosts that are passed through are one.
#[derive(Debug, Default)]
pub(super) struct DnsServices(Mutex<BTreeMap<Arc<str>, Arc<DnsMetrics>>>);

impl DnsServices {
    pub(super) fn get(&self, service: &Arc<str>) -> Arc<DnsMetrics> {
        let mut services = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        services.entry(service.clone()).or_default().clone()
    }

    pub(super) fn write(&self, page: &mut Page, snapshot: &Snapshot) {
        let services = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (service, metrics) in &*services {
            for (outcome, count) in Outcome::ALL.iter().zip(&metrics.lookups) {
                let labels = [&**service, outcome.as_str()];
                page.add(catalog::DNS_LOOKUPS, &labels, count.load(Relaxed) as f64);
            }
        }
        let mut oldest: BTreeMap<&str, f64> = BTreeMap::new();
        for name in &snapshot.names {
            if let Some(at) = name.standing().answered_at {
                let age = at.elapsed().as_secs_f64();
                let oldest = oldest.entry(&name.service).or_default();
                *oldest = oldest.max(age);
            }
        }
        for (service, age) in oldest {
            page.add(catalog::DNS_ANSWER_AGE, &[service], age);
        }
    }
}
