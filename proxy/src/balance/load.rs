//! What is known of an endpoint's load: requests in flight, and how long it takes to answer.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

use super::clock::{self, nanos};
use super::model::work::{Comparison, LoadReport, Work};
use super::report::Reported;

/// The least latency of an endpoint of which nothing is known but that somebody gave it up: an endpoint that hangs must not
/// look new for ever. Linkerd's default for endpoints without a latency.
pub const INITIAL_LATENCY: Duration = Duration::from_millis(30);

/// The latency of an endpoint that has requests and has not answered any yet; it fades as every estimate does.
//
// Finagle counts such an endpoint as all but infinitely slow. A first answer that never comes (a stream that waits for its
// first event) would keep a good endpoint without requests for as long.
const UNANSWERED_LATENCY: Duration = Duration::from_secs(5);

/// How long a latency is remembered, unless the service says otherwise: after this time a factor of e is left of its
/// weight. Finagle's and Linkerd's default.
pub const DEFAULT_DECAY: Duration = Duration::from_secs(10);

/// What a failure adds to the latency at first (Linkerd charges a 429 without `Retry-After` with the same); it is gone after
/// as long a time. An endpoint that fails fast would look like the fastest one otherwise, and draw all the traffic.
//
// Not a sample of the estimate, as it is in Linkerd: 5 s fade to 20 ms in 55 s at the usual decay of 10 s, and an endpoint
// that failed once would get nothing for the better part of a minute while another one is idle.
pub const FAILURE_PENALTY: Duration = Duration::from_secs(5);

/// A server may ask for a longer pause, but not to be forgotten.
pub const MAX_PENALTY: Duration = Duration::from_secs(60);

/// How many requests in flight a failure counts as where latency plays no part. It falls to none, evenly, over the
/// penalty's time. A hundred: about what one HTTP/2 connection carries, and no longer chosen before others are as full.
const PENALTY_IN_FLIGHT: f64 = 100.0;

/// A request that was given up sooner was not sent: the choice was made again, or a limit of ours refused it. 1 ms.
const SOONEST_NS: u64 = 1_000_000;

/// Each of these requests in tokens of work: a long prompt.
const PENALTY_TOKENS: f64 = 8192.0;

/// Two latencies below this are the same: 1 µs. Keeps the load in the comparison where the estimates have decayed to nothing.
const LEAST_LATENCY_NS: f64 = 1_000.0;

/// Load of one endpoint as this sidecar caused it. Shared by all threads and by all versions of the configuration.
//
// Aligned to a cache line, so that two endpoints' counters never share one.
#[derive(Debug)]
#[repr(align(64))]
pub struct Load {
    in_flight: AtomicU32,
    /// Most requests in flight; `u32::MAX`: no limit.
    most_in_flight: AtomicU32,
    /// Apart from the rest: a connection that is still open does not keep a forgotten endpoint's load.
    connections: Arc<AtomicU32>,
    /// Most connections; `u32::MAX`: no limit.
    most_connections: AtomicU32,
    begun: AtomicU64,
    failures: AtomicU64,
    /// Bits of an `f64`: nanoseconds, as of `sampled_at`. 0: it has not answered yet.
    ewma: AtomicU64,
    /// Without an answer: when the last request was sent.
    sampled_at: AtomicU64,
    penalised_until: AtomicU64,
    /// The last penalty's whole length, nanoseconds.
    penalty: AtomicU64,
    /// Nanoseconds.
    decay: AtomicU64,
    /// When it came, if that was after the first endpoints of its service; 0: it was there from the start.
    came_at: u64,
    /// Only for models.
    work: Work,
    reported: Reported,
}

impl Default for Load {
    fn default() -> Load {
        Load::new(clock::now())
    }
}

impl Load {
    pub(super) fn new(now: u64) -> Load {
        Load {
            in_flight: AtomicU32::new(0),
            most_in_flight: AtomicU32::new(u32::MAX),
            connections: Arc::default(),
            most_connections: AtomicU32::new(u32::MAX),
            begun: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            ewma: AtomicU64::new(0),
            sampled_at: AtomicU64::new(now),
            penalised_until: AtomicU64::new(0),
            penalty: AtomicU64::new(1),
            decay: AtomicU64::new(nanos(DEFAULT_DECAY)),
            came_at: 0,
            work: Work::default(),
            reported: Reported::default(),
        }
    }

    /// The load of an endpoint that came after the first ones of its service: it may be started slowly.
    pub fn of_newcomer() -> Load {
        Load::new_at(clock::now())
    }

    pub(super) fn new_at(now: u64) -> Load {
        Load {
            came_at: now,
            ..Load::new(now)
        }
    }

    /// When it came; `None`: with the first endpoints.
    pub(super) fn came_at(&self) -> Option<u64> {
        (self.came_at != 0).then_some(self.came_at)
    }

    /// Requests sent and not yet answered to their last byte.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Most requests that this sidecar may have in flight there. `None`: no limit.
    pub fn most_in_flight(&self) -> Option<u32> {
        let most = self.most_in_flight.load(Relaxed);
        (most != u32::MAX).then_some(most)
    }

    /// Sets what [`most_in_flight`](Self::most_in_flight) says. Requests under way are not disturbed.
    pub fn set_most_in_flight(&self, most: Option<u32>) {
        self.most_in_flight.store(most.unwrap_or(u32::MAX), Relaxed);
    }

    /// Open connections, and those being made.
    pub fn connections(&self) -> u32 {
        self.connections.load(Relaxed)
    }

    /// Sets how many connections there may be. Those that are open are not disturbed.
    pub fn set_most_connections(&self, most: Option<u32>) {
        self.most_connections
            .store(most.unwrap_or(u32::MAX), Relaxed);
    }

    /// Whether there are as many connections as there may be.
    pub(crate) fn is_crowded(&self) -> bool {
        self.connections() >= self.most_connections.load(Relaxed)
    }

    /// Counts a connection until the guard is dropped. `None`: there are as many as there may be.
    pub(crate) fn connect(&self) -> Option<Connecting> {
        // As for requests: never above the limit.
        if self.connections.fetch_add(1, Relaxed) >= self.most_connections.load(Relaxed) {
            self.connections.fetch_sub(1, Relaxed);
            return None;
        }
        Some(Connecting(Arc::clone(&self.connections)))
    }

    /// Whether there are as many requests in flight as there may be.
    pub fn is_full(&self) -> bool {
        self.in_flight() >= self.most_in_flight.load(Relaxed)
    }

    /// Requests sent since the endpoint is known.
    pub fn begun(&self) -> u64 {
        self.begun.load(Relaxed)
    }

    /// Failures since the endpoint is known.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// Whether it failed so recently that it is avoided.
    pub fn is_penalised(&self) -> bool {
        clock::now() < self.penalised_until.load(Relaxed)
    }

    /// The latency estimate as it stands now. `None`: it has not answered yet.
    pub fn latency(&self) -> Option<Duration> {
        let latency = self.latency_ns(clock::now())?;
        Some(Duration::from_nanos(latency as u64))
    }

    pub(super) fn set_decay(&self, decay: Duration) {
        self.decay.store(nanos(decay).max(1), Relaxed);
    }

    pub(super) fn begin(&self, now: u64) {
        self.in_flight.fetch_add(1, Relaxed);
        self.note_begun(now);
    }

    /// As [`begin`](Self::begin), within the limit.
    pub(super) fn try_begin(&self, now: u64) -> bool {
        // Taken first and given back where it was too much: threads that come at the same time never exceed the limit.
        if self.in_flight.fetch_add(1, Relaxed) >= self.most_in_flight.load(Relaxed) {
            self.end();
            return false;
        }
        self.note_begun(now);
        true
    }

    fn note_begun(&self, now: u64) {
        self.begun.fetch_add(1, Relaxed);
        // With each request anew: one that never answers is asked again when the last one was long ago.
        if self.ewma.load(Relaxed) == 0 {
            self.sampled_at.fetch_max(now, Relaxed);
        }
    }

    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// Peak EWMA as Finagle has it (`com.twitter.finagle.loadbalancer.PeakEwma`): a latency above the estimate takes its
    /// place at once; one below pulls it down with weight `1 - e^(-t/decay)`, `t` being the time since the last sample.
    pub(super) fn sample(&self, now: u64, latency_ns: u64) {
        // Above 0, which stands for no answer.
        let sample = latency_ns.max(1) as f64;
        // The swap hands each stretch of time to exactly one sample, the compare-exchange below applies each exactly once:
        // threads that come at the same time lose nothing.
        let kept = self.kept(self.sampled_at.fetch_max(now, Relaxed), now);
        let _ = self.ewma.fetch_update(Relaxed, Relaxed, |bits| {
            let estimate = f64::from_bits(bits);
            let next = if sample > estimate {
                sample
            } else {
                estimate * kept + sample * (1.0 - kept)
            };
            // Nor does an estimate fade to it.
            Some(next.max(1.0).to_bits())
        });
    }

    /// A latency that is only known to be at least so long.
    pub(super) fn sample_at_least(&self, now: u64, latency_ns: u64) {
        match self.latency_ns(now) {
            Some(estimate) if latency_ns as f64 <= estimate => {}
            Some(_) => self.sample(now, latency_ns),
            None if latency_ns < SOONEST_NS => {}
            None => self.sample(now, latency_ns.max(nanos(INITIAL_LATENCY))),
        }
    }

    pub(super) fn penalise(&self, now: u64, penalty: Duration) {
        let penalty = nanos(penalty.min(MAX_PENALTY));
        self.failures.fetch_add(1, Relaxed);
        self.penalty.store(penalty.max(1), Relaxed);
        self.penalised_until
            .fetch_max(now.saturating_add(penalty), Relaxed);
    }

    /// Peak EWMA's cost before the weight: (estimate + what is left of the penalty) × (in flight + 1). As in Finagle and
    /// tower, an estimate without news decays towards zero, so that an endpoint once slow is tried again.
    ///
    /// An endpoint that has not answered yet costs nothing while it is idle, so that it is found out about, and much while
    /// it has requests, so that it is not flooded until then (also Finagle's).
    pub(super) fn latency_cost(&self, now: u64) -> f64 {
        let in_flight = f64::from(self.in_flight());
        let penalty = self.penalty_left(now) as f64;
        let latency = match self.latency_ns(now) {
            Some(latency) => latency.max(LEAST_LATENCY_NS),
            None if in_flight == 0.0 => 0.0,
            None => self.unanswered_ns(now).max(LEAST_LATENCY_NS),
        };
        (latency + penalty) * (in_flight + 1.0)
    }

    /// Least request's cost before the weight: in flight + 1, and more for a while after a failure.
    pub(super) fn request_cost(&self, now: u64) -> f64 {
        f64::from(self.in_flight()) + 1.0 + self.penalty_in_flight(now)
    }

    /// Model load's cost before the weight: tokens of work, and more for a while after a failure.
    pub(super) fn work_cost(&self, now: u64, comparison: &Comparison) -> f64 {
        comparison.work(now, &self.work) + self.penalty_tokens(now)
    }

    /// Work that a failure counts as.
    pub(super) fn penalty_tokens(&self, now: u64) -> f64 {
        PENALTY_TOKENS * self.penalty_in_flight(now)
    }

    pub(super) fn work(&self) -> &Work {
        &self.work
    }

    /// What the endpoint says of its load, itself or through its sidecar.
    pub fn report(&self, report: &LoadReport) {
        let now = clock::now();
        self.work.report(now, report);
        self.reported.store(now, report);
    }

    /// The last report and its age. `None`: there is none, or it is older than [`REPORT_LIFETIME`](super::REPORT_LIFETIME).
    pub fn reported(&self) -> Option<(LoadReport, Duration)> {
        self.reported.load(clock::now())
    }

    /// Nanoseconds.
    fn penalty_left(&self, now: u64) -> u64 {
        self.penalised_until.load(Relaxed).saturating_sub(now)
    }

    fn penalty_in_flight(&self, now: u64) -> f64 {
        let left = self.penalty_left(now);
        if left == 0 {
            return 0.0;
        }
        let share = left as f64 / self.penalty.load(Relaxed) as f64;
        PENALTY_IN_FLIGHT * share.min(1.0)
    }

    /// `None`: it has not answered yet.
    pub(super) fn latency_ns(&self, now: u64) -> Option<f64> {
        let bits = self.ewma.load(Relaxed);
        (bits != 0).then(|| f64::from_bits(bits) * self.kept(self.sampled_at.load(Relaxed), now))
    }

    fn unanswered_ns(&self, now: u64) -> f64 {
        nanos(UNANSWERED_LATENCY) as f64 * self.kept(self.sampled_at.load(Relaxed), now)
    }

    /// How much of an estimate made at `then` is left.
    fn kept(&self, then: u64, now: u64) -> f64 {
        let age = now.saturating_sub(then) as f64;
        (-age / self.decay.load(Relaxed) as f64).exp()
    }
}

/// A connection to an endpoint.
#[derive(Debug)]
#[must_use = "the connection counts as closed when this is dropped"]
pub(crate) struct Connecting(Arc<AtomicU32>);

impl Drop for Connecting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests;
