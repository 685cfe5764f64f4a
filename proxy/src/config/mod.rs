//! Bootstrap: what the sidecar must know before it can talk to the control plane. Flags win over the environment, which
//! wins over the YAML file.

pub mod duration;
mod file;
mod flags;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::address::Address;
use crate::identity::JoinToken;
use crate::identity::spiffe::check_label;
use crate::identity::token::InvalidToken;
use crate::listener::proxy_protocol;
use crate::policy::AccessLogMode;

pub use flags::{AccessLogFlag, Flags, ProxiedListener};

/// Everything from flags, environment and file, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// `host:port` of the control plane's sidecar port.
    pub control_plane: String,
    pub join: Option<JoinSource>,
    /// Where identity and last good configuration survive restarts. `None`: memory only.
    pub data_dir: Option<PathBuf>,
    pub outbound_listen: SocketAddr,
    /// `None`: no listener for TLS that is passed on.
    pub tls_listen: Option<SocketAddr>,
    /// Listeners whose connections begin with a PROXY protocol header.
    pub proxy_protocol: Vec<ProxiedListener>,
    pub inbound_listen: SocketAddr,
    pub admin_listen: SocketAddr,
    pub metrics_listen: SocketAddr,
    /// Where peers reach the inbound listener. `None`: the local address used towards the control plane.
    pub inbound_advertise: Option<SocketAddr>,
    pub serve: Vec<Serve>,
    pub tcp: Vec<TcpListener>,
    /// Asked for names outside the mesh. Empty: those of the system.
    pub dns_servers: Vec<SocketAddr>,
    pub labels: BTreeMap<String, String>,
    /// Where the workload runs; empty: not known.
    pub zone: String,
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
    pub application: Address,
    /// Relative share of the load, at least 1.
    pub weight: u32,
    pub readiness: Readiness,
    /// Connections of bytes to the application begin with a header that names the client.
    pub proxy_protocol: Option<proxy_protocol::Version>,
}

/// How the sidecar finds out that the application takes requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Path of an HTTP GET that answers 2xx or 3xx. `None`: a TCP connection is enough.
    pub path: Option<String>,
    /// Between two probes.
    pub interval: Duration,
}

impl Default for Readiness {
    fn default() -> Readiness {
        Readiness {
            path: None,
            interval: Duration::from_secs(1),
        }
    }
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

/// What is wrong with the settings: one line.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path}: {error}")]
    Unreadable {
        path: PathBuf,
        error: std::io::Error,
    },
    /// `place` is `file:line:column`.
    #[error("{place}: {problem}")]
    File { place: String, problem: String },
    #[error(
        "no control plane: give --control-plane HOST:PORT (or OUTRIGGER_CONTROL_PLANE, or controlPlane in the file)"
    )]
    NoControlPlane,
    #[error("control plane {0:?} is not HOST:PORT")]
    ControlPlane(String),
    #[error("the file gives both joinToken and joinTokenFile; one is enough")]
    TwoTokens,
    #[error(transparent)]
    Token(#[from] InvalidToken),
    #[error("serve {service}:{port}: {problem}")]
    Serve {
        service: String,
        port: u16,
        problem: String,
    },
    #[error("tcp {service}:{port}: {problem}")]
    Tcp {
        service: String,
        port: u16,
        problem: String,
    },
    #[error("zone {0:?}; at most 63 letters, digits and -_. are allowed")]
    Zone(String),
    #[error("{0} workers; 1 to {MAX_WORKERS} are allowed")]
    Workers(usize),
    #[error("inbound-advertise {0} is no address that others can reach")]
    Advertise(SocketAddr),
}

/// More threads than any machine has cores for a sidecar.
const MAX_WORKERS: usize = 256;

impl Config {
    /// Puts flags (which hold the environment already) over the file, checks everything and fills in the defaults.
    pub fn load(flags: Flags) -> Result<Config, ConfigError> {
        let file = match &flags.config {
            Some(path) => file::read(path)?,
            None => file::File::default(),
        };
        merge(flags, file)
    }
}

fn merge(flags: Flags, file: file::File) -> Result<Config, ConfigError> {
    let join = match (flags.join_token, flags.join_token_file) {
        (Some(token), _) => Some(JoinSource::Token(token)),
        (None, Some(path)) => Some(JoinSource::File(path)),
        (None, None) => match (file.join_token, file.join_token_file) {
            (Some(_), Some(_)) => return Err(ConfigError::TwoTokens),
            (Some(token), None) => Some(JoinSource::Token(token)),
            (None, path) => path.map(JoinSource::File),
        },
    };
    if let Some(JoinSource::Token(token)) = &join {
        JoinToken::parse(token)?;
    }
    let serve = match flags.serve.is_empty() {
        true => file.serve.into_iter().map(Serve::from).collect(),
        false => flags.serve,
    };
    check_serve(&serve)?;
    let tcp = match flags.tcp.is_empty() {
        true => file.tcp.into_iter().map(TcpListener::from).collect(),
        false => flags.tcp,
    };
    check_tcp(&tcp)?;
    // Single labels win over the file's, as single settings do.
    let mut labels = file.labels;
    labels.extend(flags.labels);
    let zone = flags.zone.or(file.zone);
    let zone = zone.unwrap_or_else(|| labelled_zone(&labels));
    if !is_zone(&zone) {
        return Err(ConfigError::Zone(zone));
    }
    let workers = flags.workers.or(file.workers).unwrap_or(1);
    if !(1..=MAX_WORKERS).contains(&workers) {
        return Err(ConfigError::Workers(workers));
    }
    let inbound_advertise = flags.inbound_advertise.or(file.inbound_advertise);
    if let Some(address) = inbound_advertise
        && (address.ip().is_unspecified() || address.port() == 0)
    {
        return Err(ConfigError::Advertise(address));
    }
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let or = |flag: Option<_>, file: Option<_>, default| flag.or(file).unwrap_or(default);
    let access_log = flags.access_log.or(file.access_log);
    Ok(Config {
        control_plane: control_plane(flags.control_plane.or(file.control_plane))?,
        join,
        data_dir: flags.data_dir.or(file.data_dir),
        outbound_listen: or(flags.outbound_listen, file.outbound_listen, local(15001)),
        inbound_listen: or(flags.inbound_listen, file.inbound_listen, any(15006)),
        tls_listen: flags.tls_listen.or(file.tls_listen),
        proxy_protocol: match flags.proxy_protocol.is_empty() {
            true => file.proxy_protocol,
            false => flags.proxy_protocol,
        },
        admin_listen: or(flags.admin_listen, file.admin_listen, local(15000)),
        metrics_listen: or(flags.metrics_listen, file.metrics_listen, any(15020)),
        inbound_advertise,
        serve,
        tcp,
        dns_servers: match flags.dns_servers.is_empty() {
            true => file.dns_servers.into_iter().map(|it| it.0).collect(),
            false => flags.dns_servers,
        },
        labels,
        zone,
        workers,
        access_log: access_log.unwrap_or(AccessLogFlag::Errors).into(),
        access_log_format: flags
            .access_log_format
            .or(file.access_log_format)
            .unwrap_or(LogFormat::Json),
        log_level: flags
            .log_level
            .or(file.log_level)
            .unwrap_or_else(|| "info".into()),
        log_format: flags
            .log_format
            .or(file.log_format)
            .unwrap_or(LogFormat::Text),
        drain_timeout: flags
            .drain_timeout
            .or(file.drain_timeout)
            .unwrap_or(Duration::from_secs(30)),
    })
}

/// Labels that say in which zone a workload runs, the well-known one of Kubernetes first. As the control plane reads them.
const ZONE_LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "zone"];

fn labelled_zone(labels: &BTreeMap<String, String>) -> String {
    let zone = ZONE_LABELS.iter().find_map(|label| labels.get(*label));
    zone.cloned().unwrap_or_default()
}

/// What the control plane accepts: at most 63 of the characters that a label's value may have.
fn is_zone(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    text.len() <= 63 && text.bytes().all(allowed)
}

fn control_plane(address: Option<String>) -> Result<String, ConfigError> {
    let address = address.ok_or(ConfigError::NoControlPlane)?;
    let valid = address.rsplit_once(':').is_some_and(|(host, port)| {
        // More than one colon: an IPv6 address needs its brackets.
        let host_is_valid = !host.is_empty() && (!host.contains(':') || host.ends_with(']'));
        host_is_valid && !host.contains('/') && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    if !valid {
        return Err(ConfigError::ControlPlane(address));
    }
    Ok(address)
}

fn check_names(namespace: Option<&str>, service: &str) -> Result<(), String> {
    if let Some(namespace) = namespace {
        check_label("namespace", namespace).map_err(|error| error.to_string())?;
    }
    check_label("service", service).map_err(|error| error.to_string())
}

fn check_serve(all: &[Serve]) -> Result<(), ConfigError> {
    let mut seen = BTreeSet::new();
    for serve in all {
        let problem = || -> Result<(), String> {
            check_names(serve.namespace.as_deref(), &serve.service)?;
            if serve.port == 0
                || serve
                    .application
                    .ip()
                    .is_some_and(|address| address.port() == 0)
            {
                return Err("0 is not a port".into());
            }
            if serve.weight == 0 {
                return Err("weight: 0; at least 1 is allowed".into());
            }
            if serve.readiness.interval.is_zero() {
                return Err("readiness.interval: 0; more is needed".into());
            }
            match &serve.readiness.path {
                Some(path) if !is_path(path) => Err(format!(
                    "readiness.path: {path:?} must begin with a slash and have neither spaces nor control characters"
                )),
                _ => Ok(()),
            }
        };
        let error = |problem| ConfigError::Serve {
            service: serve.service.clone(),
            port: serve.port,
            problem,
        };
        problem().map_err(error)?;
        if !seen.insert((&serve.namespace, &serve.service, serve.port)) {
            return Err(error("given twice".into()));
        }
    }
    Ok(())
}

/// What can stand in a request line as it is.
fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn check_tcp(all: &[TcpListener]) -> Result<(), ConfigError> {
    for tcp in all {
        let problem = match check_names(tcp.namespace.as_deref(), &tcp.service) {
            Err(problem) => problem,
            Ok(()) if tcp.port == 0 => "0 is not a port".into(),
            Ok(()) => continue,
        };
        return Err(ConfigError::Tcp {
            service: tcp.service.clone(),
            port: tcp.port,
            problem,
        });
    }
    Ok(())
}

impl From<file::ServeFile> for Serve {
    fn from(file: file::ServeFile) -> Serve {
        Serve {
            namespace: file.namespace,
            service: file.service,
            port: file.port,
            application: file.application,
            weight: file.weight.unwrap_or(1),
            proxy_protocol: file.proxy_protocol,
            readiness: Readiness {
                path: file.readiness.path,
                interval: file
                    .readiness
                    .interval
                    .unwrap_or(Readiness::default().interval),
            },
        }
    }
}

impl From<file::TcpFile> for TcpListener {
    fn from(file: file::TcpFile) -> TcpListener {
        TcpListener {
            namespace: file.namespace,
            service: file.service,
            port: file.port,
            listen: file.listen,
        }
    }
}

/// `<namespace>/<name>`.
pub fn full_name(namespace: &str, name: &str) -> Arc<str> {
    format!("{namespace}/{name}").into()
}

#[cfg(test)]
mod tests;
