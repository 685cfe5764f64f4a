//! The endpoints of a set as they stand, for people.

use std::sync::Arc;
use std::time::Duration;

use super::clock;
use super::endpoint::Endpoint;
use super::model::work::WorkStats;
use super::set::EndpointSet;
use crate::resilience::health::HealthState;

impl EndpointSet {
    /// The endpoints with their load as it stands now, in the set's order.
    pub fn stats(&self) -> Vec<EndpointStats> {
        let now = clock::now();
        let slow_start = self.settings().slow_start.as_ref();
        self.endpoints()
            .iter()
            .map(|endpoint| EndpointStats {
                endpoint: endpoint.clone(),
                available: endpoint.health.is_available(),
                weight: f64::from(endpoint.weight.max(1))
                    * slow_start.map_or(1.0, |slow_start| endpoint.warmth(now, slow_start)),
                state: EndpointState::of(endpoint),
                in_flight: endpoint.load.in_flight(),
                latency: endpoint.load.latency(),
                picks: endpoint.load.begun(),
                failures: endpoint.load.failures(),
                work: endpoint.load.work().stats(now),
            })
            .collect()
    }
}

/// An endpoint and its load at one moment.
#[derive(Clone, Debug)]
pub struct EndpointStats {
    pub endpoint: Arc<Endpoint>,
    pub state: EndpointState,
    /// Health has nothing against it.
    pub available: bool,
    /// In effect: less than the endpoint's own while it is started slowly.
    pub weight: f64,
    pub in_flight: u32,
    /// The peak-EWMA estimate. `None`: it has not answered yet.
    pub latency: Option<Duration>,
    /// Requests sent to it.
    pub picks: u64,
    pub failures: u64,
    /// Only where the policy is for models.
    pub work: WorkStats,
}

/// How this sidecar sees an endpoint. Those that are not ready or draining are not in the configuration at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndpointState {
    Ready,
    /// It failed a moment ago.
    Penalised,
    /// Outlier detection took it out.
    Ejected,
    /// Active checks fail.
    Unhealthy,
    /// It was ejected, and one request decides whether it is back.
    Probing,
}

impl EndpointState {
    pub const ALL: [EndpointState; 5] = [
        EndpointState::Ready,
        EndpointState::Penalised,
        EndpointState::Ejected,
        EndpointState::Unhealthy,
        EndpointState::Probing,
    ];

    fn of(endpoint: &Endpoint) -> EndpointState {
        match endpoint.health.state() {
            HealthState::Available if endpoint.load.is_penalised() => EndpointState::Penalised,
            HealthState::Available => EndpointState::Ready,
            HealthState::Ejected => EndpointState::Ejected,
            HealthState::Unhealthy => EndpointState::Unhealthy,
            HealthState::Probing => EndpointState::Probing,
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            EndpointState::Ready => "ready",
            EndpointState::Penalised => "penalised",
            EndpointState::Ejected => "ejected",
            EndpointState::Unhealthy => "unhealthy",
            EndpointState::Probing => "probing",
        }
    }
}
