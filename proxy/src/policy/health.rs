//! How the health of a service's endpoints is watched: pure data. What is found is in [`crate::resilience`].

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::uri::{Authority, PathAndQuery};
use rustls_pki_types::ServerName;

use super::Protocol;
use crate::resilience::outlier::Outliers;

/// For one service.
#[derive(Clone, Debug, Default)]
pub struct ServiceHealth {
    /// Always there; without a policy it does nothing.
    pub outliers: Arc<Outliers>,
    pub checks: Arc<[Check]>,
}

/// An active check, and how endpoints are reached for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub what: HealthCheck,
    /// What the port speaks.
    pub protocol: Protocol,
    /// SNI for connections to sidecars.
    pub server_name: ServerName<'static>,
}

/// An active check as it was configured. All durations are above 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub kind: CheckKind,
    /// Port of the service.
    pub port: u16,
    /// Between two checks of an endpoint.
    pub interval: Duration,
    /// For the connection and the answer.
    pub timeout: Duration,
    /// Failures in a row that make it unhealthy, at least 1.
    pub unhealthy_threshold: u32,
    /// Successes in a row that make it healthy again, at least 1.
    pub healthy_threshold: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// GET.
    Http {
        path: PathAndQuery,
        host: Authority,
        /// Never empty.
        expected: Vec<RangeInclusive<u16>>,
    },
    /// `grpc.health.v1.Health/Check`.
    Grpc { service: String, host: Authority },
    /// A connection is accepted and stays open.
    Tcp,
}

impl CheckKind {
    pub const fn as_str(&self) -> &'static str {
        match self {
            CheckKind::Http { .. } => "http",
            CheckKind::Grpc { .. } => "grpc",
            CheckKind::Tcp => "tcp",
        }
    }
}

/// `http://<host><path>`.
pub(crate) fn uri(host: &Authority, path: PathAndQuery) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(http::uri::Scheme::HTTP);
    parts.authority = Some(host.clone());
    parts.path_and_query = Some(path);
    // With all three there is nothing to refuse.
    Uri::from_parts(parts).unwrap_or_default()
}
