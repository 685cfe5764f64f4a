//! Figures of the requests of one kind: one direction, service, route and peer.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};

use super::histogram::Histogram;
use super::inference::ByModel;
use super::recovery::Hedges;
use crate::balance::clock::nanos;
use crate::error::Reason;
use crate::telemetry::{Direction, Outcome};

/// Values of the label `code`. The last one is for requests that never got a status, and for TCP.
pub(super) const CODES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];
const NO_CODE: usize = CODES.len() - 1;

/// One counter for each [`Reason`].
type ByReason = [AtomicU64; Reason::ALL.len()];

fn no_failures() -> Box<[ByReason; CODES.len()]> {
    Box::new(std::array::from_fn(|_| {
        std::array::from_fn(|_| AtomicU64::new(0))
    }))
}

/// Handles for the requests of one kind, resolved once; a request then costs a handful of relaxed additions.
#[derive(Debug)]
pub struct RequestMetrics {
    pub(super) labels: Labels,
    /// By code, requests without a reason.
    served: [AtomicU64; CODES.len()],
    /// By code and reason. Made at the first failure: most kinds never see one.
    failed: OnceLock<Box<[ByReason; CODES.len()]>>,
    failures: AtomicU64,
    duration_ns: AtomicU64,
    request_bytes: AtomicU64,
    response_bytes: AtomicU64,
    begun: AtomicU64,
    ended: AtomicU64,
    pub(super) latency: Arc<Latency>,
    /// Retries of this kind's requests.
    pub retries: RouteRetries,
    /// Made with the first request for a model.
    pub(super) models: OnceLock<ByModel>,
}

/// What tells kinds apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Labels {
    pub(super) direction: Direction,
    pub(super) service: Arc<str>,
    pub(super) route: Arc<str>,
    pub(super) peer: Arc<str>,
}

/// Histograms, shared by all peers of a direction, service and route.
#[derive(Debug, Default)]
pub(super) struct Latency {
    pub(super) duration: Histogram,
    pub(super) first_byte: Histogram,
}

/// Totals since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Totals {
    pub(crate) requests: u64,
    pub(crate) failures: u64,
    pub(crate) duration_ms: f64,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) in_flight: u64,
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Totals) {
        self.requests += other.requests;
        self.failures += other.failures;
        self.duration_ms += other.duration_ms;
        self.request_bytes += other.request_bytes;
        self.response_bytes += other.response_bytes;
        self.in_flight += other.in_flight;
    }
}

impl Totals {
    /// What was added since `before`. In flight is no sum: it stays.
    pub(crate) fn since(self, before: Totals) -> Totals {
        Totals {
            requests: self.requests.saturating_sub(before.requests),
            failures: self.failures.saturating_sub(before.failures),
            duration_ms: (self.duration_ms - before.duration_ms).max(0.0),
            request_bytes: self.request_bytes.saturating_sub(before.request_bytes),
            response_bytes: self.response_bytes.saturating_sub(before.response_bytes),
            in_flight: self.in_flight,
        }
    }
}

impl RequestMetrics {
    pub(super) fn new(labels: Labels, latency: Arc<Latency>) -> RequestMetrics {
        RequestMetrics {
            labels,
            served: Default::default(),
            failed: OnceLock::new(),
            failures: AtomicU64::new(0),
            duration_ns: AtomicU64::new(0),
            request_bytes: AtomicU64::new(0),
            response_bytes: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            latency,
            retries: RouteRetries::default(),
            models: OnceLock::new(),
        }
    }

    /// A request is under way. Exactly one [`finish`](Self::finish) must follow.
    pub fn begin(&self) {
        self.begun.fetch_add(1, Relaxed);
    }

    /// The request has ended, with the last byte of its response.
    pub fn finish(&self, outcome: &Outcome) {
        let code = outcome.status.map_or(NO_CODE, |status| {
            // A `StatusCode` goes from 100 to 999; what is past 5xx is nobody's.
            usize::from(status.as_u16() / 100 - 1).min(NO_CODE)
        });
        match outcome.reason {
            None => &self.served[code],
            Some(reason) => &self.failed.get_or_init(no_failures)[code][reason as usize],
        }
        .fetch_add(1, Relaxed);
        if outcome.is_failure() {
            self.failures.fetch_add(1, Relaxed);
        }
        self.duration_ns.fetch_add(nanos(outcome.duration), Relaxed);
        self.latency.duration.observe(outcome.duration);
        if let Some(first_byte) = outcome.first_byte {
            self.latency.first_byte.observe(first_byte);
        }
        if outcome.request_bytes > 0 {
            self.request_bytes.fetch_add(outcome.request_bytes, Relaxed);
        }
        if outcome.response_bytes > 0 {
            self.response_bytes
                .fetch_add(outcome.response_bytes, Relaxed);
        }
        self.ended.fetch_add(1, Relaxed);
    }

    /// The request goes on as one of another kind, which has begun: this one does not end.
    pub(crate) fn hand_over(&self) {
        self.begun.fetch_sub(1, Relaxed);
    }

    pub(crate) fn direction(&self) -> Direction {
        self.labels.direction
    }

    pub(crate) fn service(&self) -> &Arc<str> {
        &self.labels.service
    }

    pub(crate) fn peer(&self) -> &Arc<str> {
        &self.labels.peer
    }

    /// Calls back for each code and reason (empty: none) that occurred.
    pub(super) fn each_count(&self, mut each: impl FnMut(&'static str, &'static str, u64)) {
        for (code, count) in CODES.iter().zip(&self.served) {
            let count = count.load(Relaxed);
            if count > 0 {
                each(code, "", count);
            }
        }
        for (code, by_reason) in CODES
            .iter()
            .zip(self.failed.get().into_iter().flat_map(|b| b.iter()))
        {
            for (reason, count) in Reason::ALL.iter().zip(by_reason) {
                let count = count.load(Relaxed);
                if count > 0 {
                    each(code, reason.as_str(), count);
                }
            }
        }
    }

    pub(crate) fn totals(&self) -> Totals {
        // `ended` first: a request that ends in between is then still in flight, never minus one.
        let ended = self.ended.load(Relaxed);
        Totals {
            requests: ended,
            failures: self.failures.load(Relaxed),
            duration_ms: self.duration_ns.load(Relaxed) as f64 / 1e6,
            request_bytes: self.request_bytes.load(Relaxed),
            response_bytes: self.response_bytes.load(Relaxed),
            in_flight: self.begun.load(Relaxed).saturating_sub(ended),
        }
    }
}

/// Why a request was sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RetryCause {
    /// No connection: refused, unreachable, or not established in time.
    Connect,
    /// TLS failed, or the peer's identity was not allowed.
    Untrusted,
    /// The connection broke before the response's head, or the stream was refused.
    Reset,
    /// A response status that the policy names.
    Status,
    /// A gRPC status that the policy names.
    GrpcStatus,
    /// The clock of one try ran out.
    Timeout,
    /// The endpoint's sidecar refused it at once, because it would have waited for too long there.
    Busy,
}

impl RetryCause {
    /// In the order of the discriminants.
    pub const ALL: [RetryCause; 7] = [
        RetryCause::Connect,
        RetryCause::Untrusted,
        RetryCause::Reset,
        RetryCause::Status,
        RetryCause::GrpcStatus,
        RetryCause::Timeout,
        RetryCause::Busy,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            RetryCause::Connect => "connect",
            RetryCause::Untrusted => "untrusted",
            RetryCause::Reset => "reset",
            RetryCause::Status => "status",
            RetryCause::GrpcStatus => "grpc-status",
            RetryCause::Timeout => "timeout",
            RetryCause::Busy => "busy",
        }
    }
}

/// Why a request was not sent again, though its failure is one that the policy retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RetryRefusal {
    /// The service's retry budget is spent.
    Budget,
    /// The request's body is longer than what is kept for a replay.
    BodyTooLarge,
    /// The method may not be repeated.
    Method,
    /// All tries were used.
    Attempts,
    /// The server asked for a longer pause than the policy's longest, or not to be asked again.
    Pushback,
    /// The next try would begin after the request's time is up.
    Deadline,
    /// The service has as many retries under way as its limits allow.
    Limit,
    /// The model that the request names could not be replaced by a fallback's.
    ModelNotReplaced,
}

impl RetryRefusal {
    /// In the order of the discriminants.
    pub const ALL: [RetryRefusal; 8] = [
        RetryRefusal::Budget,
        RetryRefusal::BodyTooLarge,
        RetryRefusal::Method,
        RetryRefusal::Attempts,
        RetryRefusal::Pushback,
        RetryRefusal::Deadline,
        RetryRefusal::Limit,
        RetryRefusal::ModelNotReplaced,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            RetryRefusal::Budget => "budget",
            RetryRefusal::BodyTooLarge => "body-too-large",
            RetryRefusal::Method => "method",
            RetryRefusal::Attempts => "attempts",
            RetryRefusal::Pushback => "pushback",
            RetryRefusal::Deadline => "deadline",
            RetryRefusal::Limit => "limit",
            RetryRefusal::ModelNotReplaced => "model-not-replaced",
        }
    }
}

/// Retries, by why they were made or not made.
#[derive(Debug, Default)]
pub struct RouteRetries {
    made: [AtomicU64; RetryCause::ALL.len()],
    refused: [AtomicU64; RetryRefusal::ALL.len()],
    pub hedges: Hedges,
}

impl RouteRetries {
    /// A request was sent again.
    pub fn made(&self, cause: RetryCause) {
        self.made[cause as usize].fetch_add(1, Relaxed);
    }

    /// A request was not sent again.
    pub fn refused(&self, why: RetryRefusal) {
        self.refused[why as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn read_made(&self) -> impl Iterator<Item = (RetryCause, u64)> {
        RetryCause::ALL
            .into_iter()
            .map(|cause| (cause, self.made[cause as usize].load(Relaxed)))
    }

    pub(super) fn read_refused(&self) -> impl Iterator<Item = (RetryRefusal, u64)> {
        RetryRefusal::ALL
            .into_iter()
            .map(|why| (why, self.refused[why as usize].load(Relaxed)))
    }
}
