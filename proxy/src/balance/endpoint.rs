//! One place that requests can be sent to, and the requests that are there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::clock;
use super::load::{FAILURE_PENALTY, Load};
use super::model::work::Task;
use crate::identity::SpiffeId;
use crate::policy::Outside;
use crate::resilience::health::{Health, Watch};
use crate::resilience::outlier::Fault;

/// An endpoint as the control plane described it, its load and its health.
///
/// A changed description is a new `Endpoint`; give it the `load` and the `health` of the one with the same
/// [`EndpointKey`], so that what is in flight stays counted, the latency stays known, and what was ejected stays so.
#[derive(Debug)]
pub struct Endpoint {
    /// The peer sidecar's inbound listener, or the application where `mtls` is false.
    pub address: SocketAddr,
    pub mtls: bool,
    /// What it announced itself with; `None` for static endpoints.
    pub identity: Option<SpiffeId>,
    /// Ports of the service that it serves. Empty: all.
    pub ports: Box<[u16]>,
    pub labels: BTreeMap<String, String>,
    /// Relative share of the load; 0 counts as 1.
    pub weight: u32,
    pub zone: Arc<str>,
    /// The sidecar's run; empty for static endpoints.
    pub instance: Arc<str>,
    /// A server outside the mesh that has a name or TLS. `None`: a sidecar, or an address without either.
    pub outside: Option<Arc<Outside>>,
    pub load: Arc<Load>,
    pub health: Arc<Health>,
}

/// What makes two endpoints the same server: a sidecar that was started again behind the same address is another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointKey {
    pub address: SocketAddr,
    pub mtls: bool,
    pub instance: Arc<str>,
}

impl Endpoint {
    pub fn key(&self) -> EndpointKey {
        EndpointKey {
            address: self.address,
            mtls: self.mtls,
            instance: self.instance.clone(),
        }
    }

    /// Whether it serves this port of its service.
    pub fn serves(&self, port: u16) -> bool {
        self.ports.is_empty() || self.ports.contains(&port)
    }

    /// Whether it carries all labels of a subset.
    pub fn carries<'a>(&self, subset: impl IntoIterator<Item = (&'a String, &'a String)>) -> bool {
        subset
            .into_iter()
            .all(|(name, value)| self.labels.get(name) == Some(value))
    }

    /// Whether both stand for the same server (see [`EndpointKey`]), in whatever version.
    pub fn is_same(&self, other: &Endpoint) -> bool {
        Arc::ptr_eq(&self.load, &other.load)
    }

    /// Counts a request from now until the guard is dropped.
    pub fn begin(self: &Arc<Endpoint>) -> InFlight {
        let now = clock::now();
        self.load.begin(now);
        self.begun(now)
    }

    /// As [`begin`](Self::begin). `None`: another thread has taken the last place there was, choose again.
    pub fn try_begin(self: &Arc<Endpoint>) -> Option<InFlight> {
        let now = clock::now();
        self.load.try_begin(now).then(|| self.begun(now))
    }

    pub(super) fn begun(&self, now: u64) -> InFlight {
        InFlight {
            load: self.load.clone(),
            begun_at: now,
            judged: false,
            watch: self.health.watch(),
            task: None,
        }
    }
}

/// A request at an endpoint. Drop it with the last byte of the response, or when the request is given up.
#[derive(Debug)]
#[must_use = "the request counts as ended when this is dropped"]
pub struct InFlight {
    load: Arc<Load>,
    begun_at: u64,
    /// The latency was sampled, or the failure charged.
    judged: bool,
    /// `None`: outlier detection is off.
    watch: Option<Watch>,
    /// Its prompt and its stream, where the policy is for models.
    task: Option<Task>,
}

impl InFlight {
    /// Counts the prompt: so many tokens of it are not in the endpoint's cache, by all that is known.
    pub fn prompt(&mut self, uncached: u32) {
        if self.task.is_none() {
            self.task = Some(Task::begin(self.load.work(), self.begun_at, uncached));
        }
    }

    /// Whether its prompt counts as one that is read.
    pub fn is_prompt(&self) -> bool {
        self.task.as_ref().is_some_and(|task| !task.is_read())
    }

    /// The first token of the answer is here; where tokens are not understood, the first byte of its body. The prompt is
    /// read. Further calls do nothing.
    pub fn first_token(&mut self) {
        if self.task.is_some() {
            self.first_token_at(clock::now());
        }
    }

    pub(super) fn first_token_at(&mut self, now: u64) {
        if let Some(task) = &mut self.task {
            task.first_token(self.load.work(), now);
        }
    }

    /// The first byte of the response is here: samples the latency. Further calls do nothing.
    pub fn first_byte(&mut self) {
        if !self.judged {
            self.first_byte_at(clock::now());
        }
        if let Some(watch) = &mut self.watch {
            watch.answered();
        }
    }

    pub(super) fn first_byte_at(&mut self, now: u64) {
        self.judged = true;
        self.load.sample(now, now.saturating_sub(self.begun_at));
    }

    /// The endpoint failed: it refused the connection, broke it, or answered that it cannot (5xx, 429). Not for what the
    /// request was to blame for, nor for a client that went away.
    ///
    /// Counts as a latency that is longer by [`FAILURE_PENALTY`] and falls back evenly within that time, in place of the
    /// request's own; after [`first_byte`](Self::first_byte) as well, for a stream that broke.
    pub fn failed(&mut self) {
        self.failed_for(FAILURE_PENALTY);
    }

    /// As [`failed`](Self::failed), where the server said when to come again (`Retry-After`). At most
    /// [`MAX_PENALTY`](super::load::MAX_PENALTY).
    pub fn failed_for(&mut self, pause: Duration) {
        self.judged = true;
        self.load.penalise(clock::now(), pause);
    }

    /// Whether another request is its endpoint's probation, begun in the moment of this choice: choose again.
    pub fn is_late(&self) -> bool {
        self.watch.as_ref().is_some_and(Watch::is_late)
    }

    /// For outlier detection: dropped without an answer after this moment it was the endpoint that took too long.
    pub fn answer_by(&mut self, at: impl FnOnce() -> Option<Instant>) {
        if let Some(watch) = &mut self.watch {
            watch.answer_by(at());
        }
    }

    /// For outlier detection: the endpoint did all that was asked of it.
    pub fn succeeded(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.succeeded();
        }
    }

    /// For outlier detection: what went wrong was the endpoint's fault.
    pub fn fault(&mut self, fault: Fault) {
        if let Some(watch) = &mut self.watch {
            watch.failed(fault);
        }
    }

    /// For outlier detection: the outcome says nothing of the endpoint.
    pub fn ignore(&mut self) {
        self.watch = None;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !self.judged {
            // Given up while waiting: it would have taken at least so long. Without this, an endpoint that hangs would
            // keep the good latency that it had before.
            let now = clock::now();
            self.load
                .sample_at_least(now, now.saturating_sub(self.begun_at));
        }
        if let Some(task) = &self.task {
            task.end(self.load.work());
        }
        self.load.end();
    }
}
