//! What an endpoint says of its own load, through its sidecar.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

use super::clock::nanos;
use super::model::work::{LoadReport, REPORT_LIFETIME};

/// What stands for "not said".
const UNKNOWN: u32 = u32::MAX;

/// The last report. Threads that read while another one writes may see parts of two reports: each part was said a moment ago.
#[derive(Debug)]
pub(super) struct Reported {
    waiting: AtomicU32,
    running: AtomicU32,
    /// Bits of an `f32`; NaN: not said.
    kv_usage: AtomicU32,
    /// `u64::MAX`: not said.
    prompt_tokens: AtomicU64,
    /// 0: never.
    at: AtomicU64,
}

impl Default for Reported {
    fn default() -> Reported {
        Reported {
            waiting: AtomicU32::new(UNKNOWN),
            running: AtomicU32::new(UNKNOWN),
            kv_usage: AtomicU32::new(f32::NAN.to_bits()),
            prompt_tokens: AtomicU64::new(u64::MAX),
            at: AtomicU64::new(0),
        }
    }
}

impl Reported {
    pub(super) fn store(&self, now: u64, report: &LoadReport) {
        let count = |count: Option<u32>| count.map_or(UNKNOWN, |count| count.min(UNKNOWN - 1));
        self.waiting.store(count(report.waiting), Relaxed);
        self.running.store(count(report.running), Relaxed);
        let usage = report.kv_usage.unwrap_or(f32::NAN);
        self.kv_usage.store(usage.to_bits(), Relaxed);
        let tokens = report.prompt_tokens.unwrap_or(u64::MAX);
        self.prompt_tokens.store(tokens, Relaxed);
        self.at.store(now.max(1), Relaxed);
    }

    /// The last report and its age, unless there is none or it is older than [`REPORT_LIFETIME`].
    pub(super) fn load(&self, now: u64) -> Option<(LoadReport, Duration)> {
        let at = self.at.load(Relaxed);
        let age = now.saturating_sub(at);
        if at == 0 || age >= nanos(REPORT_LIFETIME) {
            return None;
        }
        let count = |count: &AtomicU32| Some(count.load(Relaxed)).filter(|it| *it != UNKNOWN);
        let usage = f32::from_bits(self.kv_usage.load(Relaxed));
        let tokens = self.prompt_tokens.load(Relaxed);
        let report = LoadReport {
            waiting: count(&self.waiting),
            running: count(&self.running),
            kv_usage: (!usage.is_nan()).then_some(usage),
            prompt_tokens: (tokens != u64::MAX).then_some(tokens),
        };
        Some((report, Duration::from_nanos(age)))
    }
}
