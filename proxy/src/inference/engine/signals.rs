//! What is known of the load of the model server behind a port.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use tokio::time::Instant;

use super::orca::{self, thousandths};
use super::{Engine, Figures};
use crate::balance::LoadReport;
use crate::policy::{EngineSource, InboundPort};

/// Figures are kept for so many intervals: one look that takes longer than usual changes nothing.
const INTERVALS: u64 = 3;
/// And for so long at least.
const LEAST_LIFETIME: Duration = Duration::from_millis(500);

/// What came of a look at a model server's metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Scrape {
    Ok,
    /// Nobody accepts connections, or the connection broke.
    Unreachable,
    Timeout,
    /// Another status than 200.
    Status,
    TooLarge,
    /// The page has none of the figures looked for.
    Unrecognised,
}

impl Scrape {
    /// In the order of the discriminants.
    pub const ALL: [Scrape; 6] = [
        Scrape::Ok,
        Scrape::Unreachable,
        Scrape::Timeout,
        Scrape::Status,
        Scrape::TooLarge,
        Scrape::Unrecognised,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Scrape::Ok => "ok",
            Scrape::Unreachable => "unreachable",
            Scrape::Timeout => "timeout",
            Scrape::Status => "status",
            Scrape::TooLarge => "too-large",
            Scrape::Unrecognised => "unrecognised",
        }
    }
}

/// What the model server said last.
#[derive(Clone, Debug)]
pub struct Seen {
    pub figures: Figures,
    pub at: Instant,
    /// Requests that this sidecar had there then.
    in_flight: u32,
}

/// Shared by all threads, and by all versions of the configuration. Without locks.
#[derive(Debug)]
pub struct Signals {
    /// Requests at the model server, where no gate counts them.
    in_flight: AtomicU32,
    seen: ArcSwapOption<Seen>,
    /// Milliseconds.
    lifetime: AtomicU64,
    scrapes: [AtomicU64; Scrape::ALL.len()],
    /// Number of the last result; 255: none yet.
    last_scrape: AtomicU8,
    /// Number of the server that was found; 255: none yet.
    engine: AtomicU8,
    /// The report as it was said last.
    said: ArcSwapOption<Said>,
}

#[derive(Debug)]
struct Said {
    what: What,
    value: HeaderValue,
}

/// What a report says, as exactly as it says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct What {
    waiting: Option<u32>,
    running: Option<u32>,
    kv_usage: Option<u16>,
}

impl Default for Signals {
    fn default() -> Signals {
        Signals {
            in_flight: AtomicU32::new(0),
            seen: ArcSwapOption::empty(),
            lifetime: AtomicU64::new(0),
            scrapes: Default::default(),
            last_scrape: AtomicU8::new(u8::MAX),
            engine: AtomicU8::new(u8::MAX),
            said: ArcSwapOption::empty(),
        }
    }
}

/// A request that is at the model server until this is dropped.
#[derive(Debug)]
pub struct AtModel(Arc<Signals>);

impl Drop for AtModel {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

impl Signals {
    /// How often the metrics are read: figures are known for three intervals, and for half a second at least.
    pub(crate) fn set_interval(&self, interval: Duration) {
        let millis = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        self.lifetime
            .store(millis.saturating_mul(INTERVALS), Relaxed);
    }

    /// Counts a request until the guard is dropped.
    pub(crate) fn begin(self: &Arc<Signals>) -> AtModel {
        self.in_flight.fetch_add(1, Relaxed);
        AtModel(Arc::clone(self))
    }

    /// Requests that this sidecar has at the model server now.
    pub(crate) fn in_flight_at(&self, port: &InboundPort) -> u32 {
        match &port.gate {
            Some(gate) => gate.in_use(),
            None => self.in_flight.load(Relaxed),
        }
    }

    /// Its metrics were read. `in_flight`: what this sidecar had there when it asked.
    pub(crate) fn scraped(&self, in_flight: u32, figures: Figures) {
        self.count(Scrape::Ok);
        self.engine.store(figures.engine as u8, Relaxed);
        self.see(in_flight, figures);
    }

    /// Its metrics could not be read: from now on its load is unknown.
    pub(crate) fn failed(&self, why: Scrape) {
        self.count(why);
        self.seen.store(None);
    }

    /// What the application says of itself in a response. What it does not say stays as it is known.
    pub(super) fn told(&self, in_flight: u32, report: &LoadReport) {
        let before = self.seen();
        let known = before.as_ref().map(|seen| seen.figures);
        self.see(
            in_flight,
            Figures {
                // vLLM is the one that says it so.
                engine: known.map_or(Engine::Vllm, |it| it.engine),
                waiting: report.waiting.or(known.and_then(|it| it.waiting)),
                running: report.running.or(known.and_then(|it| it.running)),
                kv_usage: report.kv_usage.or(known.and_then(|it| it.kv_usage)),
            },
        );
    }

    fn see(&self, in_flight: u32, figures: Figures) {
        self.seen.store(Some(Arc::new(Seen {
            figures,
            at: Instant::now(),
            in_flight,
        })));
    }

    fn count(&self, result: Scrape) {
        self.scrapes[result as usize].fetch_add(1, Relaxed);
        self.last_scrape.store(result as u8, Relaxed);
    }

    pub(crate) fn scrapes(&self, result: Scrape) -> u64 {
        self.scrapes[result as usize].load(Relaxed)
    }

    pub(crate) fn last_scrape(&self) -> Option<Scrape> {
        let last = usize::from(self.last_scrape.load(Relaxed));
        Scrape::ALL.get(last).copied()
    }

    /// Which server it is, as declared or found.
    pub(crate) fn engine(&self, source: &EngineSource) -> Option<Engine> {
        let found = usize::from(self.engine.load(Relaxed));
        source.engine.or_else(|| Engine::ALL.get(found).copied())
    }

    /// What it said last, while that counts. `None`: unknown.
    pub fn seen(&self) -> Option<Arc<Seen>> {
        let lifetime = Duration::from_millis(self.lifetime.load(Relaxed)).max(LEAST_LIFETIME);
        self.seen
            .load_full()
            .filter(|seen| seen.at.elapsed() < lifetime)
    }

    /// The report to be sent now. `in_flight`: requests at the model server; `queued`: that wait in front of it, where they do.
    /// Made anew only where the load has changed.
    pub(super) fn header(&self, in_flight: u32, queued: Option<u32>) -> Option<HeaderValue> {
        let report = self.report(in_flight, queued);
        let what = What {
            waiting: report.waiting,
            running: report.running,
            kv_usage: report.kv_usage.map(thousandths),
        };
        if let Some(said) = &*self.said.load()
            && said.what == what
        {
            return Some(said.value.clone());
        }
        let value = orca::render(&report)?;
        self.said.store(Some(Arc::new(Said {
            what,
            value: value.clone(),
        })));
        Some(value)
    }

    /// What is known now: what the server said, corrected by the requests that came and went since.
    ///
    /// ```text
    /// all     = waiting + running + in flight − in flight then
    /// running = all, where none waited; else at most as many as ran
    /// waiting = all − running, and those in front of the server
    /// ```
    ///
    /// Of a server that does not say both, the requests that this sidecar has there stand for the sum.
    pub(super) fn report(&self, in_flight: u32, queued: Option<u32>) -> LoadReport {
        let seen = self.seen();
        let figures = seen.as_ref().map(|seen| seen.figures);
        let (waiting, running) = match (
            figures.and_then(|it| it.waiting),
            figures.and_then(|it| it.running),
        ) {
            (Some(waiting), Some(running)) => {
                let then = seen.as_ref().map_or(in_flight, |seen| seen.in_flight);
                let all = u64::from(waiting) + u64::from(running) + u64::from(in_flight);
                let all = u32::try_from(all.saturating_sub(then.into())).unwrap_or(u32::MAX);
                let running = if waiting == 0 { all } else { running.min(all) };
                (Some(all - running), running)
            }
            (Some(waiting), None) => (Some(waiting), in_flight.saturating_sub(waiting)),
            (None, Some(running)) => (Some(in_flight.saturating_sub(running)), running),
            // How many of them wait is not known.
            (None, None) => (None, in_flight),
        };
        let waiting = match (waiting, queued) {
            (Some(waiting), Some(queued)) => Some(waiting.saturating_add(queued)),
            (waiting, queued) => waiting.or(queued),
        };
        LoadReport {
            waiting,
            running: Some(running),
            kv_usage: figures.and_then(|it| it.kv_usage),
            prompt_tokens: None,
        }
    }
}

#[cfg(test)]
mod tests;
