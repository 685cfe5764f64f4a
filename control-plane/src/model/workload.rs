//! `Workload`: a running sidecar and what it serves.

use serde::{Deserialize, Serialize};

use super::Labels;

/// Spec of a `Workload`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadSpec {
    /// Unique for each run of a sidecar.
    pub instance: String,
    /// SPIFFE id from its certificate.
    pub identity: String,
    /// Where peers reach it, `ip:port`. Empty for a sidecar that only calls.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// Its endpoints carry these.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Where it runs, if it said so itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// What it serves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<WorkloadEndpoint>,
}

/// One port of a service that a workload serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadEndpoint {
    /// `<namespace>/<name>` of the service.
    pub service: String,
    /// Port of the service.
    pub port: u16,
    /// Relative share of the load, at least 1.
    pub weight: u32,
    /// Whether it takes requests.
    pub state: EndpointState,
}

/// Whether an endpoint takes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndpointState {
    /// It does.
    Ready,
    /// The application does not accept requests (yet).
    NotReady,
    /// It finishes what it has.
    Draining,
}
