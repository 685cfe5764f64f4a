//! `Mesh`: settings of the mesh as a whole.

use serde::{Deserialize, Serialize};

use super::meta::is_default;
use super::{MeshOutbound, MeshTimeouts, OutlierDetection, Retry, Thousandths};

/// Spec of the one `Mesh`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MeshSpec {
    /// Must be the CA's. Unset: the CA's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_domain: Option<String>,
    /// Whether plaintext peers are let in.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mtls: Mtls,
    /// Defaults for all services.
    #[serde(default, skip_serializing_if = "is_default")]
    pub timeouts: MeshTimeouts,
    /// Default for services without their own. Unset: no retries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Default for services without their own. Unset: off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlier_detection: Option<OutlierDetection>,
    /// What sidecars write down.
    #[serde(default, skip_serializing_if = "is_default")]
    pub telemetry: Telemetry,
    /// What leaves the mesh.
    #[serde(default, skip_serializing_if = "is_default")]
    pub outbound: MeshOutbound,
}

/// Mutual TLS between sidecars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mtls {
    /// Unset: strict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<MtlsMode>,
}

impl Mtls {
    /// The value in effect.
    pub fn mode(self) -> MtlsMode {
        self.mode.unwrap_or_default()
    }
}

/// What sidecars do with a peer that has no certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MtlsMode {
    /// It is refused.
    #[default]
    Strict,
    /// It is let in, without an identity.
    Permissive,
}

/// What sidecars write down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Telemetry {
    /// Unset: each sidecar's own setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_log: Option<AccessLog>,
    /// Unset: requests leave no traces; what arrives of them is passed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracing: Option<Tracing>,
}

/// Requests leave traces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tracing {
    /// `http://host:port` or `https://host:port` of an OTLP receiver (gRPC).
    pub endpoint: String,
    /// Of requests that begin a trace, percent; those that belong to one follow it. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling_percent: Option<Thousandths>,
    /// For `https`: trusted roots, PEM. Default: those of each sidecar's system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_certificates: Option<String>,
}

impl Tracing {
    /// The value in effect.
    pub fn sampling_percent(&self) -> Thousandths {
        self.sampling_percent.unwrap_or(Thousandths(0))
    }
}

/// Which requests are written to the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AccessLog {
    /// None.
    Off,
    /// Those that failed.
    Errors,
    /// All.
    All,
}
