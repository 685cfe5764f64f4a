//! `Service`: what callers call.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::meta::is_default;
use super::{
    ConnectionPool, DnsEndpoint, Duration, HealthCheck, Inference, Labels, Limits, LoadBalancing,
    OutlierDetection, Retry, ServiceTimeouts, ServiceTls,
};

/// Spec of a `Service`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceSpec {
    /// Further hosts that mean this service: exact, or `*.suffix`. Lower case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// At least one.
    pub ports: Vec<ServicePort>,
    /// Accounts of the service's namespace that may serve it. Empty: any account of the namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_accounts: Vec<String>,
    /// Further SPIFFE ids that may serve it. May end in `/*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identities: Vec<String>,
    /// Endpoints besides those that sidecars announce.
    #[serde(default, skip_serializing_if = "is_default")]
    pub endpoints: ServiceEndpoints,
    /// Towards endpoints outside the mesh. Unset: plaintext.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServiceTls>,
    /// How an endpoint is chosen.
    #[serde(default, skip_serializing_if = "is_default")]
    pub load_balancing: LoadBalancing,
    /// Override the mesh's.
    #[serde(default, skip_serializing_if = "is_default")]
    pub timeouts: ServiceTimeouts,
    /// Default for rules without their own. Unset: the mesh's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Connections to its endpoints, and of the sidecars that serve it to their applications.
    #[serde(default, skip_serializing_if = "is_default")]
    pub connection_pool: ConnectionPool,
    /// How much is let through. Unset: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Unset: the mesh's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlier_detection: Option<OutlierDetection>,
    /// At most four. An endpoint takes requests while none of them fails.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub health_checks: Vec<HealthCheck>,
    /// Its requests are for models. Unset: they are requests like any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inference: Option<Inference>,
}

impl ServiceSpec {
    /// The port with this number.
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.port == number)
    }

    /// The port that is meant where none is named: 80 if there is one, else the only one, else the first that speaks
    /// HTTP, else the first.
    pub fn default_port(&self) -> Option<&ServicePort> {
        self.port(80)
            .or_else(|| self.ports.iter().find(|port| port.protocol.is_http()))
            .or_else(|| self.ports.first())
    }
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServicePort {
    /// Unique in the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// 1 to 65535, unique in the service.
    pub port: u16,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// `auto`: how long a connection's first bytes are waited for. Default [`ServicePort::DETECTION_TIMEOUT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detection_timeout: Option<Duration>,
    /// `auto`: the application speaks first; nothing is waited for. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_first: Option<bool>,
}

impl ServicePort {
    /// Default `detection_timeout`. Clients that speak first do so at once; what is left is the caller's own delay.
    pub const DETECTION_TIMEOUT: Duration = Duration::from_secs(1);

    /// The value in effect.
    pub fn detection_timeout(&self) -> Duration {
        self.detection_timeout.unwrap_or(Self::DETECTION_TIMEOUT)
    }

    /// The value in effect.
    pub fn server_first(&self) -> bool {
        self.server_first.unwrap_or(false)
    }
}

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Protocol {
    /// The application speaks HTTP/1.1; callers may use HTTP/2 as well.
    Http,
    /// The application speaks HTTP/2 without TLS.
    Http2,
    /// As HTTP/2; errors made by the proxy are gRPC statuses.
    Grpc,
    /// Bytes.
    Tcp,
    /// TLS between the application and its callers, passed on unopened; found by the name in the ClientHello.
    Tls,
    /// Found out from each connection's first bytes: HTTP/1.1, HTTP/2, else bytes.
    Auto,
}

impl Protocol {
    /// Whether requests can be told apart.
    pub const fn is_http(self) -> bool {
        !matches!(self, Self::Tcp | Self::Tls)
    }
}

/// Where endpoints come from, besides the sidecars' announcements.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceEndpoints {
    /// `static`: written down here.
    #[serde(default, rename = "static", skip_serializing_if = "Vec::is_empty")]
    pub fixed: Vec<StaticEndpoint>,
    /// DNS names of servers outside the mesh.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<DnsEndpoint>,
}

/// An endpoint that is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StaticEndpoint {
    /// IP address and port. Serves all ports of the service.
    pub address: SocketAddr,
    /// Relative share of the load, at least 1. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Subsets select by these.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// A sidecar ends mTLS there. Default false: plaintext, outside the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtls: Option<bool>,
}

impl StaticEndpoint {
    /// The value in effect.
    pub fn weight(&self) -> u32 {
        self.weight.unwrap_or(1)
    }

    /// The value in effect.
    pub fn mtls(&self) -> bool {
        self.mtls.unwrap_or(false)
    }
}
