//! How much an endpoint has to do before it can begin with the next prompt.
//!
//! Exact, because this sidecar sees each of its own requests: prompt tokens sent whose first token has not come, and streams whose
//! last byte has not. What other sidecars sent is in the endpoint's reports, where it sends any; a report counts what it holds
//! beyond this sidecar's own requests at that moment, so that what was sent since then is in the sum at once:
//!
//! ```text
//! work    = own prompt tokens + STREAM × own streams + foreign
//! foreign = mean + (reported − mean) × e^(−age / MEMORY)
//! reported = max(0, reported prompt tokens − own ones then)
//!          + STREAM × max(0, reported running − own streams then) + KV × k / (1 − k)
//! ```
//!
//! in tokens to read, `k` being the part of the KV cache in use by requests (the last term is that of Shepherd Model Gateway's load
//! formula) and `mean` that of what the compared endpoints reported. Where only the number of waiting requests is reported,
//! each stands for the mean prompt of this sidecar. A report that grows old says less and less of its endpoint: others have
//! read it too, and would all go where it was low. Without one an endpoint is unknown, which is the mean, and not idle.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

use crate::balance::clock::nanos;

/// What a stream that is under way costs the others, in tokens to read. Physically it is a few; more keeps the length of the batches
/// even. By simulation (`examples/model-balancing.md`): 16 and 64 are alike, with 256 prompts wait behind each other while streams are
/// even.
pub const STREAM_TOKENS: f64 = 64.0;

/// What a half-full KV cache costs, in tokens to read: nine times as much at 90 %, where prompts soon wait for room.
pub const KV_TOKENS: f64 = 256.0;

/// After this time a factor of e is left of what a report tells of its endpoint: a waiting prompt of some thousand tokens is read in as
/// long. By simulation; llm-d takes what is older than 0.2 s for stale.
pub const REPORT_MEMORY: Duration = Duration::from_millis(300);

/// A report that is older counts no more in the mean either.
pub const REPORT_LIFETIME: Duration = Duration::from_secs(10);

/// Prompts that say something of the rate, tokens: with shorter ones other things take the time.
const LEAST_SAMPLE: u64 = 1024;

/// Weight of the newest sample of the rate and of the mean prompt.
const WEIGHT: f64 = 1.0 / 8.0;

/// The mean prompt until one is known, tokens.
const INITIAL_PROMPT: u32 = 1024;

/// What an endpoint says of itself. `None`: it does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LoadReport {
    /// Requests that wait for their turn.
    pub waiting: Option<u32>,
    /// Requests in the batch.
    pub running: Option<u32>,
    /// Part of the KV cache that requests use, 0 to 1.
    pub kv_usage: Option<f32>,
    /// Prompt tokens that have arrived and are not read, by the endpoint's own sidecar.
    pub prompt_tokens: Option<u64>,
}

/// The work of an endpoint at one moment, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WorkStats {
    /// Of this sidecar's requests, not read yet.
    pub prompt_tokens: u64,
    /// This sidecar's, from the first token to the last byte.
    pub streams: u32,
    /// Prompt tokens read each second, as far as known.
    pub prefill_rate: Option<f64>,
    /// Tokens of work by others, by the last report. `None`: there is none that counts.
    pub reported_work: Option<f64>,
    /// Part of the KV cache in use, by the last report.
    pub kv_usage: Option<f32>,
}

/// Of one endpoint. All threads share it.
#[derive(Debug)]
pub(crate) struct Work {
    prompt_tokens: AtomicU64,
    waiting: AtomicU32,
    streams: AtomicU32,
    /// Tokens of work by others, as of `reported_at`.
    foreign: AtomicU64,
    /// 0: never.
    reported_at: AtomicU64,
    /// Bits of an `f32`: the last report's, for people.
    kv_usage: AtomicU32,
    /// Bits of an `f64`; 0: unknown.
    rate: AtomicU64,
    mean_prompt: AtomicU32,
}

impl Default for Work {
    fn default() -> Work {
        Work {
            prompt_tokens: AtomicU64::new(0),
            waiting: AtomicU32::new(0),
            streams: AtomicU32::new(0),
            foreign: AtomicU64::new(0),
            reported_at: AtomicU64::new(0),
            kv_usage: AtomicU32::new(0),
            rate: AtomicU64::new(0),
            mean_prompt: AtomicU32::new(INITIAL_PROMPT),
        }
    }
}

impl Work {
    /// Prompt tokens of this sidecar's requests there that are not read yet.
    pub(crate) fn prompt_tokens(&self) -> u64 {
        self.prompt_tokens.load(Relaxed)
    }

    /// This sidecar's streams there, from the first token to the last byte.
    pub(crate) fn streams(&self) -> u32 {
        self.streams.load(Relaxed)
    }

    /// Tokens that it reads each second, as far as known.
    pub(crate) fn rate(&self) -> Option<f64> {
        let rate = f64::from_bits(self.rate.load(Relaxed));
        (rate > 0.0).then_some(rate)
    }

    pub(crate) fn stats(&self, now: u64) -> WorkStats {
        let foreign = self.foreign(now);
        WorkStats {
            prompt_tokens: self.prompt_tokens(),
            streams: self.streams(),
            prefill_rate: self.rate(),
            reported_work: foreign.map(|foreign| foreign.tokens),
            kv_usage: foreign.map(|_| f32::from_bits(self.kv_usage.load(Relaxed))),
        }
    }

    /// Tokens of work that this sidecar caused.
    pub(crate) fn own(&self) -> f64 {
        self.prompt_tokens() as f64 + STREAM_TOKENS * f64::from(self.streams())
    }

    /// Work that others caused, by the last report. `None`: unknown.
    pub(crate) fn foreign(&self, now: u64) -> Option<Foreign> {
        let at = self.reported_at.load(Relaxed);
        let age = now.saturating_sub(at);
        let fresh = at != 0 && age < nanos(REPORT_LIFETIME);
        fresh.then(|| Foreign {
            tokens: self.foreign.load(Relaxed) as f64,
            age: age as f64,
        })
    }

    /// Takes a report in.
    pub(crate) fn report(&self, now: u64, report: &LoadReport) {
        let waiting = report
            .waiting
            .map(|all| all.saturating_sub(self.waiting.load(Relaxed)));
        let tokens = match (report.prompt_tokens, waiting) {
            (Some(all), _) => all.saturating_sub(self.prompt_tokens()) as f64,
            (None, Some(waiting)) => f64::from(waiting) * f64::from(self.mean_prompt.load(Relaxed)),
            (None, None) => 0.0,
        };
        let streams = report
            .running
            .map_or(0, |all| all.saturating_sub(self.streams()));
        if report.prompt_tokens.is_none() && waiting.is_none() && report.running.is_none() {
            // Of the others' work it says nothing.
            return;
        }
        // Full is full, and not infinitely much: there must be an order among those that are.
        let kv = f64::from(report.kv_usage.unwrap_or(0.0)).clamp(0.0, 0.99);
        let pressure = KV_TOKENS * kv / (1.0 - kv);
        let foreign = tokens + STREAM_TOKENS * f64::from(streams) + pressure;
        self.foreign.store(foreign as u64, Relaxed);
        self.kv_usage.store((kv as f32).to_bits(), Relaxed);
        self.reported_at.store(now.max(1), Relaxed);
    }

    fn sample_rate(&self, tokens: u64, ns: u64) {
        if tokens < LEAST_SAMPLE || ns == 0 {
            return;
        }
        let sample = tokens as f64 * 1e9 / ns as f64;
        let before = self.rate().unwrap_or(sample);
        let rate = before + (sample - before) * WEIGHT;
        self.rate.store(rate.to_bits(), Relaxed);
    }
}

/// A request's part in the work of its endpoint.
#[derive(Debug)]
pub(crate) struct Task {
    tokens: u32,
    /// Tokens that were there before it, its own included.
    ahead: u64,
    begun_at: u64,
    is_read: bool,
}

impl Task {
    /// `tokens`: of the prompt, that the endpoint has to read.
    pub(crate) fn begin(work: &Work, now: u64, tokens: u32) -> Task {
        let before = work.prompt_tokens.fetch_add(u64::from(tokens), Relaxed);
        work.waiting.fetch_add(1, Relaxed);
        let mean = f64::from(work.mean_prompt.load(Relaxed));
        let mean = mean + (f64::from(tokens) - mean) * WEIGHT;
        work.mean_prompt.store(mean as u32, Relaxed);
        Task {
            tokens,
            ahead: before + u64::from(tokens),
            begun_at: now,
            is_read: false,
        }
    }

    pub(crate) fn is_read(&self) -> bool {
        self.is_read
    }

    /// The first token is here: the prompt is read, and the request is a stream. Further calls do nothing.
    pub(crate) fn first_token(&mut self, work: &Work, now: u64) {
        if std::mem::replace(&mut self.is_read, true) {
            return;
        }
        work.prompt_tokens
            .fetch_sub(u64::from(self.tokens), Relaxed);
        work.waiting.fetch_sub(1, Relaxed);
        work.streams.fetch_add(1, Relaxed);
        work.sample_rate(self.ahead, now.saturating_sub(self.begun_at));
    }

    pub(crate) fn end(&self, work: &Work) {
        if self.is_read {
            work.streams.fetch_sub(1, Relaxed);
        } else {
            work.prompt_tokens
                .fetch_sub(u64::from(self.tokens), Relaxed);
            work.waiting.fetch_sub(1, Relaxed);
        }
    }
}

/// Work that others caused, by a report.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Foreign {
    tokens: f64,
    /// Nanoseconds.
    age: f64,
}

/// The work of endpoints that are compared with each other.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Comparison {
    /// Of the work by others that is known, tokens.
    mean: f64,
}

impl Comparison {
    pub(crate) fn new<'a>(now: u64, all: impl Iterator<Item = &'a Work>) -> Comparison {
        let (mut sum, mut known) = (0.0, 0.0);
        for foreign in all.filter_map(|work| work.foreign(now)) {
            sum += foreign.tokens;
            known += 1.0;
        }
        Comparison {
            mean: if known > 0.0 { sum / known } else { 0.0 },
        }
    }

    pub(crate) fn work(&self, now: u64, of: &Work) -> f64 {
        let beyond = of.foreign(now).map_or(0.0, |foreign| {
            let left = (-foreign.age / nanos(REPORT_MEMORY) as f64).exp();
            (foreign.tokens - self.mean) * left
        });
        of.own() + self.mean + beyond
    }
}

#[cfg(test)]
mod tests;
