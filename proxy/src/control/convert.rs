//! First phase of a change: each resource by itself, from what came over the wire to what the snapshot is built of. All
//! validation is here: what passes can be put to use, and a resource that does not pass is refused alone.

mod balancing;
mod connections;
mod filters;
mod health;
mod inference;
mod limits;
mod outside;
mod recovery;
mod service;
mod tracing;

pub(super) use filters::FilterSpec;
pub(super) use limits::{RateLimitSpec, TokenSpec};
pub(super) use recovery::{FallbackToSpec, RecoverySpec};
pub(super) use service::{made_up, server_name, sni};

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::dataplane::v1 as wire;
use wire::resource::Body;

use crate::balance::{self, EndpointKey};
use crate::identity::spiffe::check_label;
use crate::identity::{SpiffeId, SpiffePattern};
use crate::policy::health::HealthCheck;
use crate::policy::{
    AccessLogMode, CallerLimits, ConnectionPool, Detection, Inference, Match, MeshPolicy, Outside,
    Protocol, Retry, ServerLimits, ServicePort, SessionSettings, TcpLimits, Timeouts,
};
use crate::resilience::outlier;
use crate::tls::OriginTls;

/// A resource, checked. References to other resources are names still.
#[derive(Clone, Debug)]
pub(super) enum Spec {
    Mesh(MeshPolicy),
    Workload(Vec<InboundSpec>),
    Host(HostSpec),
    Service(Arc<ServiceSpec>),
    Endpoints(EndpointsSpec),
}

#[derive(Clone, Debug)]
pub(super) struct InboundSpec {
    pub service: Arc<str>,
    pub port: u16,
    pub protocol: Protocol,
    pub stream_idle_timeout: Option<Duration>,
    pub tcp: TcpLimits,
    pub detection: Detection,
    pub pool: Arc<ConnectionPool>,
    pub limits: Option<ServerLimits>,
    pub rate_limits: Vec<RateLimitSpec>,
    pub inference: Option<Arc<Inference>>,
}

#[derive(Clone, Debug)]
pub(super) struct HostSpec {
    pub service: Arc<str>,
    pub port: u16,
}

#[derive(Debug)]
pub(super) struct ServiceSpec {
    pub name: Arc<str>,
    pub ports: Vec<ServicePort>,
    /// The own zone is not known here.
    pub balancing: Arc<balance::Settings>,
    pub identities: Vec<SpiffePattern>,
    pub rules: Vec<RuleSpec>,
    pub connect_timeout: Duration,
    pub tcp: TcpLimits,
    pub pool: Arc<ConnectionPool>,
    /// Towards endpoints outside the mesh. `None`: plaintext.
    pub tls: Option<Arc<OriginTls>>,
    pub outlier_detection: Option<Arc<outlier::Policy>>,
    pub health_checks: Vec<HealthCheck>,
    pub limits: Option<CallerLimits>,
    pub inference: Option<Arc<Inference>>,
}

#[derive(Debug)]
pub(super) struct RuleSpec {
    pub route: Arc<str>,
    pub matches: Vec<Match>,
    pub backends: Vec<BackendSpec>,
    pub total_weight: u32,
    pub timeouts: Timeouts,
    pub retry: Option<Retry>,
    /// Percent and minimum per second.
    pub budget: (u32, u32),
    pub recovery: RecoverySpec,
    pub filters: Vec<FilterSpec>,
    pub session: Option<SessionSettings>,
}

impl RuleSpec {
    /// Everywhere that its requests, or copies of them, may go.
    pub(super) fn destinations(&self) -> impl Iterator<Item = &BackendSpec> {
        let fallbacks = self.recovery.fallbacks.iter();
        let fallbacks = fallbacks.filter_map(|fallback| match &fallback.to {
            FallbackToSpec::Backend(backend) => Some(backend),
            FallbackToSpec::Response(_) => None,
        });
        let mirrors = self.filters.iter().filter_map(|filter| match filter {
            FilterSpec::Mirror(backend, _) => Some(backend),
            FilterSpec::Ready(_) => None,
        });
        self.backends.iter().chain(fallbacks).chain(mirrors)
    }
}

#[derive(Debug)]
pub(super) struct BackendSpec {
    pub service: Arc<str>,
    pub port: u16,
    pub weight: u32,
    pub subset: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct EndpointsSpec {
    /// By their addresses.
    pub fixed: Vec<EndpointSpec>,
    pub dns: Vec<DnsSpec>,
}

/// All addresses of a name.
#[derive(Clone, Debug)]
pub(super) struct DnsSpec {
    pub host: Arc<str>,
    /// `None`: the service's own, each.
    pub port: Option<u16>,
    pub labels: BTreeMap<String, String>,
    pub weight: u32,
    pub zone: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EndpointSpec {
    pub address: SocketAddr,
    pub ports: Box<[u16]>,
    pub identity: Option<SpiffeId>,
    pub labels: BTreeMap<String, String>,
    pub weight: u32,
    pub mtls: bool,
    pub zone: Arc<str>,
    pub instance: Arc<str>,
    /// Set where the service or a name makes it one; nothing on the wire.
    pub outside: Option<Arc<Outside>>,
}

impl EndpointSpec {
    pub(super) fn key(&self) -> EndpointKey {
        EndpointKey {
            address: self.address,
            mtls: self.mtls,
            instance: self.instance.clone(),
        }
    }
}

/// Why a resource is refused: which field, what was found, what is allowed.
pub(super) type Reason = String;

/// Whether a resource would be accepted.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn check(wire: &wire::Resource, trust_domain: &str) -> Result<(), Reason> {
    resource(wire, trust_domain).map(drop)
}

/// Checks one resource.
pub(super) fn resource(resource: &wire::Resource, trust_domain: &str) -> Result<Spec, Reason> {
    let body = resource
        .body
        .as_ref()
        .ok_or("body: none, or of a kind that this version does not know")?;
    let (kind, rest) = resource
        .name
        .split_once('/')
        .unwrap_or((&resource.name, ""));
    match (kind, body) {
        ("mesh", Body::Mesh(mesh)) => mesh_policy(mesh, trust_domain).map(Spec::Mesh),
        ("workload", Body::Workload(workload)) => inbound(workload).map(Spec::Workload),
        ("host", Body::Host(host)) => Ok(Spec::Host(HostSpec {
            service: service_name("service", &host.service)?,
            port: port("port", host.port)?,
        })),
        ("service", Body::Service(service)) => {
            let spec = service::service(service, trust_domain)?;
            same_name(rest, &spec.name)?;
            Ok(Spec::Service(Arc::new(spec)))
        }
        ("endpoints", Body::Endpoints(endpoints)) => {
            same_name(rest, &endpoints.service)?;
            Ok(Spec::Endpoints(EndpointsSpec {
                fixed: list("endpoints", &endpoints.endpoints, endpoint)?,
                dns: list("dns", &endpoints.dns, outside::dns_endpoint)?,
            }))
        }
        (kind, _) => Err(format!(
            "name: a resource called {kind:?} has another kind's body"
        )),
    }
}

fn same_name(of_resource: &str, of_body: &str) -> Result<(), Reason> {
    if of_resource == of_body {
        return Ok(());
    }
    Err(format!(
        "name: the resource is for {of_resource:?}, its body for {of_body:?}"
    ))
}

fn mesh_policy(mesh: &wire::Mesh, trust_domain: &str) -> Result<MeshPolicy, Reason> {
    if mesh.trust_domain != trust_domain {
        return Err(format!(
            "trust_domain: {:?}, this sidecar's identity is of {trust_domain:?}",
            mesh.trust_domain
        ));
    }
    let permissive = match mesh.mtls_mode() {
        wire::MtlsMode::Unspecified | wire::MtlsMode::Strict => false,
        wire::MtlsMode::Permissive => true,
    };
    // An unknown mode must not read as "strict" by accident, nor as "permissive".
    known::<wire::MtlsMode>("mtls_mode", mesh.mtls_mode)?;
    known::<wire::AccessLog>("access_log", mesh.access_log)?;
    let access_log = match mesh.access_log() {
        wire::AccessLog::Unspecified => None,
        wire::AccessLog::Off => Some(AccessLogMode::Off),
        wire::AccessLog::Errors => Some(AccessLogMode::Errors),
        wire::AccessLog::All => Some(AccessLogMode::All),
    };
    let pass_through = match known::<wire::UnknownHosts>("unknown_hosts", mesh.unknown_hosts)? {
        wire::UnknownHosts::Unspecified | wire::UnknownHosts::Refuse => false,
        wire::UnknownHosts::PassThrough => true,
    };
    let tracing = mesh.tracing.as_ref().map(tracing::tracing).transpose()?;
    Ok(MeshPolicy {
        permissive,
        access_log,
        pass_through,
        tracing: tracing.map(Arc::new),
    })
}

fn inbound(workload: &wire::Workload) -> Result<Vec<InboundSpec>, Reason> {
    list("ports", &workload.ports, |inbound| {
        let protocol = protocol("protocol", inbound.protocol)?;
        let stream_idle_timeout = timeout("stream_idle_timeout", inbound.stream_idle_timeout)?;
        let mut tcp = connections::tcp_limits(inbound.tcp_idle_timeout, inbound.tcp_lifetime)?;
        if !protocol.has_requests() {
            // The field that was there first.
            tcp.idle = tcp.idle.or(stream_idle_timeout);
        }
        let pool =
            connections::connection_pool("connection_pool", inbound.connection_pool.as_ref())?;
        Ok(InboundSpec {
            service: service_name("service", &inbound.service)?,
            port: port("port", inbound.port)?,
            protocol,
            stream_idle_timeout,
            tcp,
            detection: connections::detection(inbound.detection_timeout, inbound.server_first)?,
            pool: Arc::new(pool),
            limits: limits::of_servers(inbound.limits.as_ref())?,
            rate_limits: limits::rate_limits(&inbound.rate_limits)?,
            inference: inference::inference(inbound.inference.as_ref())?,
        })
    })
}

fn endpoint(endpoint: &wire::Endpoint) -> Result<EndpointSpec, Reason> {
    let address = endpoint
        .address
        .parse()
        .map_err(|_| format!("address: {:?} is not <IP>:<port>", endpoint.address))?;
    let identity = match endpoint.identity.as_str() {
        "" => None,
        id => Some(id.parse().map_err(|error| format!("identity: {error}"))?),
    };
    Ok(EndpointSpec {
        address,
        ports: list("ports", &endpoint.ports, |number| port("", *number))?.into(),
        identity,
        labels: endpoint.labels.clone().into_iter().collect(),
        weight: endpoint.weight.max(1),
        mtls: endpoint.mtls,
        zone: endpoint.zone.as_str().into(),
        instance: endpoint.instance.as_str().into(),
        outside: None,
    })
}

/// Converts each item; a problem is told with the item's index.
fn list<From, To>(
    field: &str,
    items: &[From],
    convert: impl Fn(&From) -> Result<To, Reason>,
) -> Result<Vec<To>, Reason> {
    let at = |(index, item)| {
        convert(item).map_err(|problem: Reason| {
            let dot = if problem.starts_with(':') { "" } else { "." };
            format!("{field}[{index}]{dot}{problem}")
        })
    };
    items.iter().enumerate().map(at).collect()
}

/// `<namespace>/<name>`, both DNS labels: they become parts of server names.
fn service_name(field: &str, text: &str) -> Result<Arc<str>, Reason> {
    let (namespace, name) = text
        .split_once('/')
        .ok_or_else(|| format!("{field}: {text:?} is not <namespace>/<name>"))?;
    check_label("namespace", namespace)
        .and_then(|()| check_label("name", name))
        .map_err(|error| format!("{field}: {error}"))?;
    Ok(text.into())
}

fn port(field: &str, number: u32) -> Result<u16, Reason> {
    u16::try_from(number)
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| format!("{field}: {number} is not a port (1 to 65535)"))
}

fn protocol(field: &str, number: i32) -> Result<Protocol, Reason> {
    match known::<wire::Protocol>(field, number)? {
        wire::Protocol::Unspecified | wire::Protocol::Http => Ok(Protocol::Http),
        wire::Protocol::Http2 => Ok(Protocol::Http2),
        wire::Protocol::Grpc => Ok(Protocol::Grpc),
        wire::Protocol::Tcp => Ok(Protocol::Tcp),
        wire::Protocol::Tls => Ok(Protocol::Tls),
        wire::Protocol::Auto => Ok(Protocol::Auto),
    }
}

/// A value of an enum that this version knows.
fn known<E: TryFrom<i32>>(field: &str, number: i32) -> Result<E, Reason> {
    E::try_from(number)
        .map_err(|_| format!("{field}: {number} is a value that this version does not know"))
}

/// A clock: unset is none, and zero would end everything before it began.
fn timeout(
    field: &str,
    duration: Option<prost_types::Duration>,
) -> Result<Option<Duration>, Reason> {
    let Some(wire) = duration else {
        return Ok(None);
    };
    let shown = format!("{}.{:09} s", wire.seconds, wire.nanos.unsigned_abs());
    Duration::try_from(wire)
        .ok()
        .filter(|duration| !duration.is_zero())
        .map(Some)
        .ok_or_else(|| format!("{field}: {shown} is not above 0"))
}

#[cfg(test)]
mod tests;
