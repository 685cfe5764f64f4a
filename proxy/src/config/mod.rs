//! Bootstrap: what the sidecar must know before it can talk to the control plane. Flags win over the environment, which
//! wins over the YAML file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::policy::AccessLogMode;

/// Everything from flags, environment and file, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// `host:port` of the control plane's sidecar port.
    pub control_plane: String,
    pub join: Option<JoinSource>,
    /// Where identity and last good configuration survive restarts. `None`: memory only.
    pub data_dir: Option<PathBuf>,
    pub outbound_listen: SocketAddr,
    pub inbound_listen: SocketAddr,
    pub admin_listen: SocketAddr,
    pub metrics_listen: SocketAddr,
    /// Where peers reach the inbound listener. `None`: the local address used towards the control plane.
    pub inbound_advertise: Option<SocketAddr>,
    pub serve: Vec<Serve>,
    pub tcp: Vec<TcpListener>,
    pub labels: std::collections::BTreeMap<String, String>,
    /// Threads of the data path, at least 1.
    pub workers: usize,
    pub access_log: AccessLogMode,
    pub access_log_format: LogFormat,
    pub log_level: String,
    pub log_format: LogFormat,
    /// From SIGTERM to the end of what is still under way.
    pub drain_timeout: Duration,
}

/// Where the join token comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum JoinSource {
    Token(String),
    File(PathBuf),
}

impl std::fmt::Debug for JoinSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // A token is a secret.
            JoinSource::Token(_) => f.write_str("Token(…)"),
            JoinSource::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// An application that this sidecar stands in front of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serve {
    /// `None`: the sidecar's own namespace.
    pub namespace: Option<String>,
    pub service: String,
    /// Port of the service.
    pub port: u16,
    pub application: SocketAddr,
    /// Relative share of the load, at least 1.
    pub weight: u32,
    pub readiness: Readiness,
}

/// How the sidecar finds out that the application takes requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Path of an HTTP GET that answers 2xx or 3xx. `None`: a TCP connection is enough.
    pub path: Option<String>,
    /// Between two probes.
    pub interval: Duration,
}

/// A listener of its own for one TCP service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpListener {
    /// `None`: the sidecar's own namespace.
    pub namespace: Option<String>,
    pub service: String,
    pub port: u16,
    pub listen: SocketAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// `<namespace>/<name>`.
pub fn full_name(namespace: &str, name: &str) -> Arc<str> {
    format!("{namespace}/{name}").into()
}
