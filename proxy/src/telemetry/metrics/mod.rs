//! Metrics for Prometheus.
//!
//! The data path holds handles ([`RequestMetrics`], [`OpenConnection`]) and adds to their atomics. Everything else happens
//! when somebody scrapes: the figures are gathered under the names of the [`catalog`] and written out.

mod admission;
mod balancing;
pub mod catalog;
mod connection;
mod continuation;
mod dns;
mod engine;
mod exposition;
mod filters;
mod histogram;
mod inference;
mod isolation;
mod process;
mod protocols;
mod recovery;
mod request;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::admission::Refusals;
use crate::shared::Shared;
use crate::telemetry::Direction;
use crate::tls::HandshakeFailure;

pub use admission::QueueWaits;
pub use balancing::{BalancingMetrics, HashPick, SessionOutcome};
pub use connection::{OpenConnection, Side, Wire};
pub use continuation::{ContinuationMetrics, ContinuationResult, ContinuedBy};
pub use dns::DnsMetrics;
pub use engine::{LoadReports, Taken};
pub(crate) use exposition::CONTENT_TYPE;
pub use filters::{FilterAction, FilterMetrics, MirrorCopy, MirrorMetrics, MirrorOutcome};
pub use inference::{ModelMetrics, Probe};
pub use isolation::{SaltMetrics, Salting};
pub use protocols::{
    CloseCause, DetectionResult, ProtocolMetrics, ProxyHeaderRefusal, TlsPassthrough,
};
pub use recovery::{FallbackMetrics, HedgeResult};
pub use request::{RequestMetrics, RetryCause, RetryRefusal, RouteRetries};

use connection::{Connections, Handshakes};
pub(crate) use protocols::{PooledConnection, Waiting};
pub(crate) use request::Totals;
use request::{Labels, Latency};

/// Most different callers that are told apart; later ones are `other`. Prometheus' own advice is to stay below some hundreds of
/// values for a label; a thousand callers of one sidecar are more than a person looks at.
pub const MAX_PEERS: usize = 1000;

/// Most combinations of direction, service, route and peer; later ones are `other` throughout. About 10 MB of figures.
pub const MAX_KINDS: usize = 10_000;

/// What stands for labels past the bounds.
pub const OTHER: &str = "other";

/// All figures of this process.
#[derive(Debug, Default)]
pub struct Metrics {
    kinds: Mutex<Kinds>,
    balancing: Mutex<HashMap<Arc<str>, Arc<BalancingMetrics>>>,
    connections: Arc<Connections>,
    handshakes: Handshakes,
    fallbacks: recovery::Fallbacks,
    continuations: continuation::Continuations,
    pub(crate) protocols: ProtocolMetrics,
    rejections: Rejections,
    admission: admission::Admission,
    config_updates: AtomicU64,
    control_plane_connected: AtomicBool,
    renewals: [AtomicU64; 2],
    filters: filters::Registry,
    dns: dns::DnsServices,
    pub(crate) models: ModelMetrics,
    pub(crate) salts: SaltMetrics,
    pub(crate) load_reports: LoadReports,
}

#[derive(Debug, Default)]
struct Kinds {
    by_labels: HashMap<Labels, Arc<RequestMetrics>>,
    latencies: HashMap<(Direction, Arc<str>, Arc<str>), Arc<Latency>>,
    /// Callers, on inbound.
    peers: HashSet<Arc<str>>,
}

impl Metrics {
    pub fn new() -> Metrics {
        Metrics::default()
    }

    /// Handles for requests of one kind. Takes a lock and allocates: call it when a snapshot is built or a connection is
    /// accepted, not for each request. The same labels give the same handles.
    ///
    /// `service` is the one asked for as `<namespace>/<name>`; empty where it is unknown: never what a client made up.
    /// `route` is empty for the built-in rule and on inbound. `peer` is the caller's SPIFFE id on inbound (empty: plaintext),
    /// and on outbound the backend service (empty: none was chosen).
    pub fn request(
        &self,
        direction: Direction,
        service: &str,
        route: &str,
        peer: &str,
    ) -> Arc<RequestMetrics> {
        self.kinds().get(direction, service, route, peer)
    }

    /// Handles for a fallback of a route, with the same names as [`request`](Self::request). `to`: what the fallback is called;
    /// `model`: what it asks for there, empty where that is what the request names. Takes a lock and allocates: call it when a
    /// snapshot is built.
    pub fn fallback(
        &self,
        service: &str,
        route: &str,
        to: &str,
        model: &str,
    ) -> Arc<FallbackMetrics> {
        self.fallbacks.get(service, route, to, model)
    }

    /// Handles for the continued streams of a service. Takes a lock: for configurations, not for requests.
    pub fn continuation(&self, service: &str) -> Arc<ContinuationMetrics> {
        self.continuations.get(service)
    }

    /// Handles for what the filters of a route do to requests for a service. Takes a lock: for configurations, not for requests.
    pub fn filters(&self, service: &str, route: &str) -> Arc<FilterMetrics> {
        self.filters.filters(service, route)
    }

    /// As [`filters`](Self::filters), for copies to a backend.
    pub fn mirror(&self, service: &str, route: &str, backend: &str) -> Arc<MirrorMetrics> {
        self.filters.mirror(service, route, backend)
    }

    /// Handles for the balancing of one service (`<namespace>/<name>`), which is one of the configuration: to be called when
    /// a snapshot is built. The same name gives the same handles.
    pub fn balancing(&self, service: &str) -> Arc<BalancingMetrics> {
        let mut all = self.all_balancing();
        all.entry(service.into()).or_default().clone()
    }

    fn all_balancing(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<BalancingMetrics>>> {
        self.balancing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection as open until the value is dropped.
    pub fn connection(&self, direction: Direction, side: Side, wire: Wire) -> OpenConnection {
        OpenConnection::new(&self.connections, direction, side, wire)
    }

    /// Where refused requests of a service are counted. Takes a lock: call it when a snapshot is built.
    pub fn refusals(&self, direction: Direction, service: &Arc<str>) -> Arc<Refusals> {
        self.admission.refusals(direction, service)
    }

    /// Where waits of a service's requests are counted. Takes a lock: call it when a snapshot is built.
    pub fn queue_waits(&self, service: &Arc<str>) -> Arc<QueueWaits> {
        self.admission.waits(service)
    }

    /// A TLS handshake with a peer is over: accepted (inbound) or begun (outbound) by this sidecar.
    pub fn handshake(&self, direction: Direction, result: Result<(), HandshakeFailure>) {
        self.handshakes.count(direction, result);
    }

    /// A resource of the control plane was refused. `kind`: the part of its name before the first slash.
    pub fn config_rejected(&self, kind: &str) {
        self.rejections.count(kind);
    }

    /// A new snapshot is in effect.
    pub fn config_updated(&self) {
        self.config_updates.fetch_add(1, Relaxed);
    }

    /// The stream to the control plane is up (after its Welcome), or down.
    pub fn control_plane_connected(&self, connected: bool) {
        self.control_plane_connected.store(connected, Relaxed);
    }

    /// A certificate was asked for: the first one and renewals.
    pub fn certificate_renewed(&self, ok: bool) {
        self.renewals[usize::from(!ok)].fetch_add(1, Relaxed);
    }

    /// Handles for the lookups of a service's names. Takes a lock: call it when a name comes into use.
    pub fn dns(&self, service: &Arc<str>) -> Arc<DnsMetrics> {
        self.dns.get(service)
    }

    /// Everything, in Prometheus' text format (version 0.0.4).
    pub fn render(&self, shared: &Shared) -> String {
        exposition::render(self, shared)
    }

    /// All kinds there are.
    pub(crate) fn all_requests(&self) -> Vec<Arc<RequestMetrics>> {
        self.kinds().by_labels.values().cloned().collect()
    }

    fn kinds(&self) -> MutexGuard<'_, Kinds> {
        // Nothing under this lock leaves the maps half-changed.
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kinds {
    fn get(
        &mut self,
        direction: Direction,
        service: &str,
        route: &str,
        peer: &str,
    ) -> Arc<RequestMetrics> {
        let mut labels = Labels {
            direction,
            service: service.into(),
            route: route.into(),
            peer: match direction {
                Direction::Inbound => self.bounded_peer(peer),
                // A service of the configuration, which is bounded.
                Direction::Outbound => peer.into(),
            },
        };
        if self.by_labels.len() >= MAX_KINDS && !self.by_labels.contains_key(&labels) {
            let other: Arc<str> = OTHER.into();
            labels = Labels {
                direction,
                service: other.clone(),
                route: other.clone(),
                peer: other,
            };
        }
        if let Some(known) = self.by_labels.get(&labels) {
            return known.clone();
        }
        let latency = self
            .latencies
            .entry((direction, labels.service.clone(), labels.route.clone()))
            .or_default()
            .clone();
        let made = Arc::new(RequestMetrics::new(labels.clone(), latency));
        self.by_labels.insert(labels, made.clone());
        made
    }

    fn bounded_peer(&mut self, peer: &str) -> Arc<str> {
        if let Some(known) = self.peers.get(peer) {
            return known.clone();
        }
        if self.peers.len() >= MAX_PEERS && !peer.is_empty() {
            return OTHER.into();
        }
        let peer: Arc<str> = peer.into();
        self.peers.insert(peer.clone());
        peer
    }
}

/// Refused resources by kind.
#[derive(Debug, Default)]
struct Rejections {
    counts: [AtomicU64; REJECTED_KINDS.len()],
}

/// Kinds of resources that a control plane sends; the last one stands for anything else.
const REJECTED_KINDS: [&str; 6] = ["mesh", "workload", "host", "service", "endpoints", OTHER];

impl Rejections {
    fn count(&self, kind: &str) {
        let index = REJECTED_KINDS.iter().position(|known| *known == kind);
        self.counts[index.unwrap_or(REJECTED_KINDS.len() - 1)].fetch_add(1, Relaxed);
    }

    fn read(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REJECTED_KINDS
            .into_iter()
            .zip(self.counts.iter().map(|count| count.load(Relaxed)))
    }
}

#[cfg(test)]
mod tests;
