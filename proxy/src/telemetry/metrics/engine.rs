//! Figures about what model servers say of their load.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::catalog;
use super::exposition::Page;
use crate::inference::engine::Scrape;
use crate::policy::Snapshot;

/// What came of a load report in a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Taken {
    Accepted,
    /// It says nothing that is known here.
    Malformed,
    /// No sidecar sent it.
    Untrusted,
}

impl Taken {
    /// In the order of the discriminants.
    pub const ALL: [Taken; 3] = [Taken::Accepted, Taken::Malformed, Taken::Untrusted];

    pub const fn as_str(self) -> &'static str {
        match self {
            Taken::Accepted => "accepted",
            Taken::Malformed => "malformed",
            Taken::Untrusted => "untrusted",
        }
    }
}

/// Reports by what came of them.
#[derive(Debug, Default)]
pub struct LoadReports {
    taken: [AtomicU64; Taken::ALL.len()],
    /// Questions that were answered, and those that were not.
    asked: [AtomicU64; 2],
}

impl LoadReports {
    pub fn count(&self, taken: Taken) {
        self.taken[taken as usize].fetch_add(1, Relaxed);
    }

    /// An endpoint was asked for its load.
    pub fn asked(&self, answered: bool) {
        self.asked[usize::from(!answered)].fetch_add(1, Relaxed);
    }

    pub(super) fn write(&self, page: &mut Page) {
        for taken in Taken::ALL {
            let count = self.taken[taken as usize].load(Relaxed);
            if count > 0 {
                page.add(catalog::LOAD_REPORTS, &[taken.as_str()], count as f64);
            }
        }
        for (result, count) in ["answered", "failed"].into_iter().zip(&self.asked) {
            let count = count.load(Relaxed);
            if count > 0 {
                page.add(catalog::LOAD_QUESTIONS, &[result], count as f64);
            }
        }
    }
}

/// The model servers behind this sidecar.
pub(super) fn write_snapshot(page: &mut Page, snapshot: &Snapshot) {
    for port in snapshot.inbound.values() {
        let source = port.inference.as_ref().and_then(|it| it.engine.as_ref());
        let (Some(signals), Some(source)) = (&port.signals, source) else {
            continue;
        };
        let engine = signals.engine(source).map_or("unknown", |it| it.as_str());
        let number = port.port.to_string();
        let labels = [&*port.service, number.as_str(), engine];
        if let Some(seen) = signals.seen() {
            let figures = &seen.figures;
            let gauges = [
                (catalog::ENGINE_WAITING, figures.waiting.map(f64::from)),
                (catalog::ENGINE_RUNNING, figures.running.map(f64::from)),
                (catalog::ENGINE_KV_USAGE, figures.kv_usage.map(f64::from)),
            ];
            for (family, value) in gauges {
                if let Some(value) = value {
                    page.add(family, &labels, value);
                }
            }
        }
        for result in Scrape::ALL {
            let count = signals.scrapes(result);
            if count > 0 {
                let labels = [labels[0], labels[1], labels[2], result.as_str()];
                page.add(catalog::ENGINE_SCRAPES, &labels, count as f64);
            }
        }
    }
}
