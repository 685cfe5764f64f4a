//! The YAML file. Strict: a field that is not known is an error, since a typing error in it would otherwise be a setting
//! that silently does nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::flags::{AccessLogFlag, ProxiedListener};
use crate::listener::proxy_protocol;

use super::{ConfigError, LogFormat, duration};
use crate::address::Address;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct File {
    pub control_plane: Option<String>,
    pub join_token: Option<String>,
    pub join_token_file: Option<PathBuf>,
    pub data_dir: Option<PathBuf>,
    pub outbound_listen: Option<SocketAddr>,
    pub tls_listen: Option<SocketAddr>,
    pub proxy_protocol: Vec<ProxiedListener>,
    pub inbound_listen: Option<SocketAddr>,
    pub inbound_advertise: Option<SocketAddr>,
    pub admin_listen: Option<SocketAddr>,
    pub metrics_listen: Option<SocketAddr>,
    pub serve: Vec<ServeFile>,
    pub tcp: Vec<TcpFile>,
    pub dns_servers: Vec<DnsServer>,
    pub labels: BTreeMap<String, String>,
    pub zone: Option<String>,
    pub workers: Option<usize>,
    pub access_log: Option<AccessLogFlag>,
    pub access_log_format: Option<LogFormat>,
    pub log_level: Option<String>,
    pub log_format: Option<LogFormat>,
    #[serde(deserialize_with = "duration::deserialize")]
    pub drain_timeout: Option<Duration>,
}

/// Written `IP` or `IP:PORT`.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct DnsServer(pub SocketAddr);

impl TryFrom<String> for DnsServer {
    type Error = String;

    fn try_from(text: String) -> Result<DnsServer, String> {
        super::flags::dns_server(&text).map(DnsServer)
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ServeFile {
    pub namespace: Option<String>,
    pub service: String,
    pub port: u16,
    pub application: Address,
    pub weight: Option<u32>,
    pub proxy_protocol: Option<proxy_protocol::Version>,
    #[serde(default)]
    pub readiness: ReadinessFile,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct ReadinessFile {
    pub path: Option<String>,
    #[serde(deserialize_with = "duration::deserialize")]
    pub interval: Option<Duration>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TcpFile {
    pub namespace: Option<String>,
    pub service: String,
    pub port: u16,
    pub listen: SocketAddr,
}

/// Reads the file.
pub(super) fn read(path: &Path) -> Result<File, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
        path: path.to_owned(),
        error,
    })?;
    parse(&text).map_err(|(place, problem)| ConfigError::File {
        place: match place {
            Some((line, column)) => format!("{}:{line}:{column}", path.display()),
            None => path.display().to_string(),
        },
        problem,
    })
}

/// Line and column (from 1), where they are known, and the problem.
type Problem = (Option<(usize, usize)>, String);

pub(super) fn parse(text: &str) -> Result<File, Problem> {
    // A file of comments only is an empty one.
    let file: Option<File> = serde_yaml::from_str(text).map_err(|error| {
        let place = error.location().map(|at| (at.line(), at.column()));
        let message = error.to_string();
        // The place stands in front of the line instead.
        let message = message.split(" at line ").next().unwrap_or(&message);
        (place, with_suggestion(message))
    })?;
    Ok(file.unwrap_or_default())
}

/// Appends the nearest of the names that serde lists as allowed.
fn with_suggestion(message: &str) -> String {
    let Some((before, allowed)) = message.split_once("`, expected ") else {
        return message.to_owned();
    };
    let found = before.rsplit('`').next().unwrap_or_default();
    // The names stand at the odd places: `a`, `b`.
    let names = allowed.split('`').skip(1).step_by(2);
    let nearest = names
        .map(|name| {
            (
                strsim::osa_distance(&name.to_lowercase(), &found.to_lowercase()),
                name,
            )
        })
        .min()
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4);
    match nearest {
        Some((_, name)) => format!("{message}; did you mean `{name}`?"),
        None => message.to_owned(),
    }
}
