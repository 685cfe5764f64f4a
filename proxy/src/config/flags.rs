//! Command line and environment.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use super::{LogFormat, Readiness, Serve, TcpListener, duration};
use crate::identity::spiffe::check_label;
use crate::policy::AccessLogMode;

/// The sidecar of an Outrigger mesh: stands beside an application, sends its requests to other services over mutual TLS,
/// and takes requests for it.
///
/// Every flag can be given in the environment (OUTRIGGER_...) or in a YAML file (--config) as well; flags win over the
/// environment, which wins over the file.
#[derive(Clone, Debug, Default, Parser)]
#[command(
    name = "outrigger-proxy",
    version,
    max_term_width = 110,
    after_help = "EXAMPLES:\n  \
        In front of a model server, as replica of the service `chat`:\n    \
        outrigger-proxy --control-plane 10.0.0.1:15010 --join-token-file token --serve chat:80=127.0.0.1:8000\n  \
        Beside a client, which then uses http://127.0.0.1:15001 with the header `Host: chat`:\n    \
        outrigger-proxy --control-plane 10.0.0.1:15010 --join-token-file token\n\n\
        EXIT CODES: 0 ended as told, 1 could not start or lost its way, 2 wrong usage"
)]
pub struct Flags {
    /// YAML file with settings
    #[arg(long, value_name = "FILE", env = "OUTRIGGER_CONFIG")]
    pub config: Option<PathBuf>,

    /// Where the control plane listens for sidecars
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "OUTRIGGER_CONTROL_PLANE",
        help_heading = "Mesh"
    )]
    pub control_plane: Option<String>,

    /// Join token (see `outriggerctl token create`). Visible to others in the list of processes: prefer a file
    #[arg(
        long,
        value_name = "TOKEN",
        env = "OUTRIGGER_JOIN_TOKEN",
        hide_env_values = true,
        help_heading = "Mesh"
    )]
    pub join_token: Option<String>,

    /// File with the join token
    #[arg(
        long,
        value_name = "FILE",
        env = "OUTRIGGER_JOIN_TOKEN_FILE",
        conflicts_with = "join_token",
        help_heading = "Mesh"
    )]
    pub join_token_file: Option<PathBuf>,

    /// Where identity and last good configuration survive restarts [default: memory only]
    #[arg(
        long,
        value_name = "DIR",
        env = "OUTRIGGER_DATA_DIR",
        help_heading = "Mesh"
    )]
    pub data_dir: Option<PathBuf>,

    /// Label of this workload, selected by subsets; repeatable
    #[arg(
        long = "label",
        value_name = "KEY=VALUE",
        env = "OUTRIGGER_LABEL",
        value_delimiter = ',',
        value_parser = label,
        help_heading = "Mesh"
    )]
    pub labels: Vec<(String, String)>,

    /// Zone in which this workload runs, for services that prefer endpoints of the caller's zone
    /// [default: the label topology.kubernetes.io/zone or zone]
    #[arg(
        long,
        value_name = "ZONE",
        env = "OUTRIGGER_ZONE",
        help_heading = "Mesh"
    )]
    pub zone: Option<String>,

    /// Application that this sidecar serves requests for; repeatable. None: a sidecar that only calls
    #[arg(
        long,
        value_name = "[NS/]SERVICE:PORT=IP:PORT|unix:/PATH",
        env = "OUTRIGGER_SERVE",
        value_delimiter = ',',
        value_parser = serve,
        help_heading = "Services"
    )]
    pub serve: Vec<Serve>,

    /// Local listener whose connections go to a TCP service; repeatable
    #[arg(
        long,
        value_name = "[NS/]SERVICE:PORT=IP:PORT",
        env = "OUTRIGGER_TCP",
        value_delimiter = ',',
        value_parser = tcp,
        help_heading = "Services"
    )]
    pub tcp: Vec<TcpListener>,

    /// DNS server for names outside the mesh; repeatable [default: those of /etc/resolv.conf]
    #[arg(
        long = "dns-server",
        value_name = "IP[:PORT]",
        env = "OUTRIGGER_DNS_SERVER",
        value_delimiter = ',',
        value_parser = dns_server,
        help_heading = "Services"
    )]
    pub dns_servers: Vec<SocketAddr>,

    /// For requests of the application [default: 127.0.0.1:15001]
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "OUTRIGGER_OUTBOUND_LISTEN",
        help_heading = "Listeners"
    )]
    pub outbound_listen: Option<SocketAddr>,

    /// For TLS connections of the application's own, which go to the service that their ClientHello names
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "OUTRIGGER_TLS_LISTEN",
        help_heading = "Listeners"
    )]
    pub tls_listen: Option<SocketAddr>,

    /// Listeners whose connections must begin with a PROXY protocol header; repeatable
    #[arg(
        long,
        value_name = "LISTENER",
        env = "OUTRIGGER_PROXY_PROTOCOL",
        value_delimiter = ',',
        help_heading = "Listeners"
    )]
    pub proxy_protocol: Vec<ProxiedListener>,

    /// For requests of other sidecars; open only with --serve [default: 0.0.0.0:15006]
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "OUTRIGGER_INBOUND_LISTEN",
        help_heading = "Listeners"
    )]
    pub inbound_listen: Option<SocketAddr>,

    /// Where other sidecars reach the inbound listener [default: the local address used towards the control plane]
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "OUTRIGGER_INBOUND_ADVERTISE",
        help_heading = "Listeners"
    )]
    pub inbound_advertise: Option<SocketAddr>,

    /// For people on this machine [default: 127.0.0.1:15000]
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "OUTRIGGER_ADMIN_LISTEN",
        help_heading = "Listeners"
    )]
    pub admin_listen: Option<SocketAddr>,

    /// For Prometheus and health checks [default: 0.0.0.0:15020]
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "OUTRIGGER_METRICS_LISTEN",
        help_heading = "Listeners"
    )]
    pub metrics_listen: Option<SocketAddr>,

    /// Threads of the data path [default: 1]
    #[arg(
        long,
        value_name = "N",
        env = "OUTRIGGER_WORKERS",
        help_heading = "Running"
    )]
    pub workers: Option<usize>,

    /// How long requests under way may take after SIGTERM [default: 30s]
    #[arg(
        long,
        value_name = "DURATION",
        env = "OUTRIGGER_DRAIN_TIMEOUT",
        value_parser = duration::parse,
        help_heading = "Running"
    )]
    pub drain_timeout: Option<Duration>,

    /// Which requests get a line on standard output, where the mesh does not say [default: errors]
    #[arg(
        long,
        value_name = "WHICH",
        env = "OUTRIGGER_ACCESS_LOG",
        help_heading = "Logs"
    )]
    pub access_log: Option<AccessLogFlag>,

    /// Form of those lines [default: json]
    #[arg(
        long,
        value_name = "FORM",
        env = "OUTRIGGER_ACCESS_LOG_FORMAT",
        help_heading = "Logs"
    )]
    pub access_log_format: Option<LogFormat>,

    /// Program log, on standard error: error, warn, info, debug, trace [default: info]
    #[arg(
        long,
        value_name = "LEVEL",
        env = "OUTRIGGER_LOG_LEVEL",
        help_heading = "Logs"
    )]
    pub log_level: Option<String>,

    /// Form of the program log [default: text]
    #[arg(
        long,
        value_name = "FORM",
        env = "OUTRIGGER_LOG_FORMAT",
        help_heading = "Logs"
    )]
    pub log_format: Option<LogFormat>,
}

/// Kinds of listeners that can stand behind a load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxiedListener {
    Outbound,
    Inbound,
    /// Those of --tcp and --tls-listen
    Tcp,
}

/// The words for [`AccessLogMode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessLogFlag {
    Off,
    /// Status 5xx, or a reason set by the proxy
    Errors,
    All,
}

impl From<AccessLogFlag> for AccessLogMode {
    fn from(flag: AccessLogFlag) -> AccessLogMode {
        match flag {
            AccessLogFlag::Off => AccessLogMode::Off,
            AccessLogFlag::Errors => AccessLogMode::Errors,
            AccessLogFlag::All => AccessLogMode::All,
        }
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label is written KEY=VALUE".into()),
    }
}

fn serve(text: &str) -> Result<Serve, String> {
    let (namespace, service, port, application) =
        service_and_address(text, "IP:PORT or unix:/PATH")?;
    Ok(Serve {
        namespace,
        service,
        port,
        application,
        weight: 1,
        proxy_protocol: None,
        readiness: Readiness::default(),
    })
}

fn tcp(text: &str) -> Result<TcpListener, String> {
    let (namespace, service, port, listen) = service_and_address(text, "IP:PORT")?;
    Ok(TcpListener {
        namespace,
        service,
        port,
        listen,
    })
}

/// An address, with DNS' own port where none is given.
pub(super) fn dns_server(text: &str) -> Result<SocketAddr, String> {
    const PORT: u16 = 53;
    let address = match text.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, PORT),
        Err(_) => text.parse().map_err(|_| {
            format!("{text:?} is not IP or IP:PORT, e.g. 10.96.0.10 or [fd00::a]:53")
        })?,
    };
    if address.port() == 0 || address.ip().is_unspecified() {
        return Err(format!("{text:?} is no address that can be asked"));
    }
    Ok(address)
}

fn service_and_address<A: FromStr>(
    text: &str,
    form: &str,
) -> Result<(Option<String>, String, u16, A), String> {
    let shape = || format!("written [NAMESPACE/]SERVICE:PORT={form}, e.g. chat:80=127.0.0.1:8000");
    let (target, address) = text.split_once('=').ok_or_else(shape)?;
    let (name, port) = target.rsplit_once(':').ok_or_else(shape)?;
    let (namespace, service) = match name.split_once('/') {
        Some((namespace, service)) => (Some(namespace.to_owned()), service),
        None => (None, name),
    };
    if let Some(namespace) = &namespace {
        check_label("namespace", namespace).map_err(|error| error.to_string())?;
    }
    check_label("service", service).map_err(|error| error.to_string())?;
    let port = port
        .parse()
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| format!("{port:?} is not a port (1 to 65535)"))?;
    let address = address
        .parse()
        .map_err(|_| format!("{address:?} is not {form}"))?;
    Ok((namespace, service.to_owned(), port, address))
}
