//! Endpoints that sidecars announce: who is there, until when, and for which services.
//!
//! An announcement lives as long as its sidecar is heard of ([`Registry::touch`]); a sidecar that falls silent loses its
//! endpoints when its lease ends, whether its stream is open or not. Whether a sidecar may serve what it announces is
//! decided where endpoints are compiled, since the service may change, or come, later.

mod persist;
mod registry;

use std::sync::Arc;

pub use persist::{keep_workloads, restore};
pub use registry::{Registry, RegistryError, Signals};

use crate::ca::SpiffeId;
use crate::model::{EndpointState, Labels};

/// Labels that say in which zone a workload runs, the well-known one of Kubernetes first.
const ZONE_LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "zone"];

/// An endpoint as announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// `<namespace>/<name>`.
    pub service: Arc<str>,
    pub port: u16,
    /// At least 1.
    pub weight: u32,
    pub state: EndpointState,
}

/// Who a sidecar is.
#[derive(Clone, Debug)]
pub struct Sidecar {
    pub instance: Arc<str>,
    pub identity: Arc<SpiffeId>,
    /// Where peers reach it; none for one that only calls.
    pub address: Option<Arc<str>>,
    pub labels: Arc<Labels>,
    /// As it said itself; empty: not said.
    pub zone: Arc<str>,
}

/// A sidecar that serves a service, as endpoints are compiled from.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub instance: Arc<str>,
    pub identity: Arc<SpiffeId>,
    pub address: Arc<str>,
    pub labels: Arc<Labels>,
    /// As the sidecar said itself; empty: not said.
    pub zone: Arc<str>,
    /// Ports that take requests, with their weights.
    pub ready_ports: Vec<(u32, u32)>,
}

impl Candidate {
    /// Its zone, the one in its labels where it named none; empty where there is none.
    pub fn zone(&self) -> &str {
        if !self.zone.is_empty() {
            return &self.zone;
        }
        ZONE_LABELS
            .iter()
            .find_map(|label| self.labels.get(*label))
            .map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests;
