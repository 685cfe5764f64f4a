//! Settings: flags, and environment variables of the same name.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use outrigger_proxy::telemetry::logging;

use crate::ca::init::{CaMode, Source};
use crate::ca::spiffe::check_trust_domain;
use crate::model;

/// Outrigger's control plane: resources, identities and configuration for the sidecars of a mesh.
#[derive(Clone, Debug, Parser)]
#[command(name = "outrigger-control-plane", version, about)]
pub struct Config {
    /// Where the CA, the store and the context file of administrators are. Made at the first start.
    #[arg(long, env = "OUTRIGGER_DATA_DIR", value_name = "DIR")]
    pub data_dir: PathBuf,

    /// Trust domain of the mesh [default: that of the CA; at the first start outrigger.local].
    #[arg(long, env = "OUTRIGGER_TRUST_DOMAIN", value_name = "NAME", value_parser = trust_domain)]
    pub trust_domain: Option<String>,

    /// Where sidecars connect.
    #[arg(
        long,
        env = "OUTRIGGER_SIDECAR_LISTEN",
        value_name = "IP:PORT",
        default_value = "0.0.0.0:15010"
    )]
    pub sidecar_listen: SocketAddr,

    /// Where the management API is.
    #[arg(
        long,
        env = "OUTRIGGER_MANAGEMENT_LISTEN",
        value_name = "IP:PORT",
        default_value = "127.0.0.1:15011"
    )]
    pub management_listen: SocketAddr,

    /// Where metrics and probes are, plain HTTP.
    #[arg(
        long,
        env = "OUTRIGGER_METRICS_LISTEN",
        value_name = "IP:PORT",
        default_value = "127.0.0.1:15014"
    )]
    pub metrics_listen: SocketAddr,

    /// Lifetime of the sidecars' certificates, and the longest that one can ask for.
    #[arg(long, env = "OUTRIGGER_CERTIFICATE_LIFETIME", value_name = "DURATION", default_value = "24h", value_parser = certificate_lifetime)]
    pub certificate_lifetime: Duration,

    /// What signs certificates. Only at the first start.
    #[arg(long, env = "OUTRIGGER_CA_MODE", value_enum, default_value = "root")]
    pub ca_mode: CaMode,

    /// Certificate of your own CA, PEM, with its issuers below the root. Only at the first start.
    #[arg(
        long,
        env = "OUTRIGGER_CA_CERT",
        value_name = "FILE",
        requires = "ca_key"
    )]
    pub ca_cert: Option<PathBuf>,

    /// Key of your own CA, PEM.
    #[arg(
        long,
        env = "OUTRIGGER_CA_KEY",
        value_name = "FILE",
        requires = "ca_cert"
    )]
    pub ca_key: Option<PathBuf>,

    /// Root certificate of your own CA, PEM, where --ca-cert is an intermediate.
    #[arg(
        long,
        env = "OUTRIGGER_CA_ROOT",
        value_name = "FILE",
        requires = "ca_cert"
    )]
    pub ca_root: Option<PathBuf>,

    /// Endpoints of a sidecar that is silent for this long are taken out.
    #[arg(long, env = "OUTRIGGER_LEASE", value_name = "DURATION", default_value = "5s", value_parser = lease)]
    pub lease: Duration,

    /// What is logged: error, warn, info, debug or trace, or a filter such as `info,outrigger_control_plane::push=debug`.
    #[arg(
        long,
        env = "OUTRIGGER_LOG_LEVEL",
        value_name = "LEVEL",
        default_value = "info", value_parser = log_level
    )]
    pub log_level: String,

    /// How it is logged, to stderr.
    #[arg(long, env = "OUTRIGGER_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,

    /// Context file for outriggerctl, written at the first start [default: admin.yaml in the data directory].
    #[arg(long, env = "OUTRIGGER_ADMIN_CONTEXT", value_name = "FILE")]
    pub admin_context: Option<PathBuf>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

impl Config {
    /// Where the CA of a first start comes from.
    pub fn ca_source(&self) -> Source {
        match (&self.ca_cert, &self.ca_key) {
            (Some(certificate), Some(key)) => Source::Given {
                certificate: certificate.clone(),
                key: key.clone(),
                root: self.ca_root.clone(),
            },
            _ => Source::Generate(self.ca_mode),
        }
    }

    /// Where the context file goes.
    pub fn admin_context(&self) -> PathBuf {
        match &self.admin_context {
            Some(path) => path.clone(),
            None => self.data_dir.join("admin.yaml"),
        }
    }
}

fn trust_domain(text: &str) -> Result<String, String> {
    check_trust_domain(text)
        .map(|()| text.to_owned())
        .map_err(|error| error.to_string())
}

fn log_level(text: &str) -> Result<String, String> {
    logging::parse(text)
        .map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}

fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<model::Duration>()
        .map(Duration::from)
        .map_err(|error| error.to_string())
}

fn within(text: &str, least: Duration, most: Duration, range: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration < least || duration > most {
        return Err(format!("{range} is allowed"));
    }
    Ok(duration)
}

fn certificate_lifetime(text: &str) -> Result<Duration, String> {
    let most = Duration::from_secs(90 * 24 * 3600);
    within(text, Duration::from_secs(5), most, "5s to 2160h (90 days)")
}

/// Below, a busy machine's pauses would take endpoints out.
fn lease(text: &str) -> Result<Duration, String> {
    let (least, most) = (Duration::from_millis(500), Duration::from_secs(300));
    within(text, least, most, "500ms to 300s")
}

#[cfg(test)]
mod tests;
