//! What the sidecar was told to do: pure data, made once from what the control plane sends, never changed afterwards.
//!
//! A request loads one [`Snapshot`] and sees one consistent configuration from its first byte to its last. What lives
//! longer than a snapshot (load of endpoints, retry budgets, metric handles) is shared between snapshots through `Arc`s
//! and is found again by name when the next snapshot is built.

mod connection;
pub mod filters;
mod hash;
pub mod health;
pub mod inference;
mod limits;
pub mod matching;
mod outside;
mod recovery;
mod session;
mod split;
mod tracing;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::address::Address;
use crate::balance::EndpointSet;
use crate::dns::Name;
use crate::error::Reason;
use crate::identity::SpiffePattern;
use crate::listener::proxy_protocol;
use crate::resilience::RetryBudget;
use crate::telemetry::metrics::RequestMetrics;
use crate::tls::OriginTls;

pub use outside::{Outside, OutsideTls};

pub use connection::{ConnectionPool, Detection, KeepAlive, TcpLimits};
pub use filters::Filters;
pub use hash::{HashCookie, HashInput, HashKey, HashPolicy};
pub use inference::{EngineSource, Inference, IsolatedBy, Isolation, Model, TokenStreams};
pub use limits::{CallerLimits, Concurrency, ServerLimits};
pub use matching::{
    GrpcMatch, HeaderMatch, HostMatch, Match, ModelMatch, QueryParamMatch, StringMatch,
};
pub use recovery::{
    Cause, Causes, Continuation, ContinuationMode, Fallback, FallbackModel, FallbackTo, Hedge,
    Recovery,
};
pub use session::{Carrier, Session, SessionSettings, Token};
pub use split::Turns;
pub use tracing::Tracing;

/// Everything the data path needs to know, at one version.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Version of the configuration as the control plane counts it. 0: nothing received yet.
    pub version: u64,
    pub mesh: MeshPolicy,
    /// By authority as a request names it: lower case, `name` or `name:port`.
    pub hosts: HashMap<Box<str>, HostEntry>,
    /// By `<namespace>/<name>`. For TCP listeners, which name a service and not a host.
    pub services: HashMap<Arc<str>, Arc<Service>>,
    /// What this sidecar serves, by the SNI peers use: `<port>.<service>.<namespace>.<trust domain>`.
    pub inbound: HashMap<Box<str>, Arc<InboundPort>>,
    /// Resources (`host/…`, `service/…`) that the control plane answered about and that cannot be used all the same: they
    /// do not exist, were refused, or lead to one such. Nobody has to wait for them.
    pub unusable: HashSet<Box<str>>,
    /// DNS names that endpoints come from.
    pub names: Vec<Arc<Name>>,
}

impl Snapshot {
    /// Every service that requests can go to, by name: those that hosts and TCP listeners name, and those that only
    /// routes lead to.
    pub fn upstreams(&self) -> Vec<&Arc<Upstream>> {
        let mut by_name = std::collections::BTreeMap::new();
        for service in self.services.values() {
            by_name.insert(&service.upstream.service, &service.upstream);
            for backend in service.rules.iter().flat_map(|rule| rule.destinations()) {
                by_name
                    .entry(&backend.upstream.service)
                    .or_insert(&backend.upstream);
            }
        }
        by_name.into_values().collect()
    }
}

/// What a host name means.
#[derive(Clone, Debug)]
pub enum HostEntry {
    /// The control plane knows no such host (and says so when that changes).
    Absent,
    Service {
        service: Arc<Service>,
        port: u16,
    },
}

#[derive(Clone, Debug, Default)]
pub struct MeshPolicy {
    /// Plaintext peers are let in, without an identity.
    pub permissive: bool,
    /// `None`: the sidecar's own setting.
    pub access_log: Option<AccessLogMode>,
    /// Requests for hosts that no service answers to go where DNS says.
    pub pass_through: bool,
    /// `None`: requests leave no traces.
    pub tracing: Option<Arc<Tracing>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLogMode {
    Off,
    /// Requests that failed: status 5xx, or a [`Reason`](crate::error::Reason).
    Errors,
    All,
}

/// What a port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// The application speaks HTTP/1.1; gRPC content reaches it over h2c.
    Http,
    /// h2c with prior knowledge.
    Http2,
    /// As `Http2`; errors made by the proxy are gRPC statuses.
    Grpc,
    Tcp,
    /// TLS between the application and its callers, which is passed on unopened.
    Tls,
    /// Found out for each connection.
    Auto,
}

impl Protocol {
    /// Whether it has requests: those that have none are bytes.
    pub const fn has_requests(self) -> bool {
        !matches!(self, Protocol::Tcp | Protocol::Tls)
    }
}

/// A service that this sidecar calls.
#[derive(Debug)]
pub struct Service {
    /// `<namespace>/<name>`.
    pub name: Arc<str>,
    pub ports: Vec<ServicePort>,
    /// In order of precedence; the first match wins.
    pub rules: Vec<Arc<Rule>>,
    /// The service itself as a destination (what TCP listeners connect to).
    pub upstream: Arc<Upstream>,
    pub tcp: TcpLimits,
}

#[derive(Clone, Debug)]
pub struct ServicePort {
    pub port: u16,
    pub name: Arc<str>,
    pub protocol: Protocol,
    /// For [`Protocol::Auto`].
    pub detection: Detection,
}

/// Stands for a service's name where a host belongs to none and is passed through. No service is called so: it has no
/// namespace.
pub const PASS_THROUGH: &str = "passthrough";

/// Where requests for a service can go, whichever route leads there.
#[derive(Debug)]
pub struct Upstream {
    /// `<namespace>/<name>`.
    pub service: Arc<str>,
    pub ports: Vec<ServicePort>,
    /// Who may serve it. Never empty.
    pub identities: Vec<SpiffePattern>,
    pub connect_timeout: Duration,
    pub pool: Arc<ConnectionPool>,
    /// All endpoints. Subsets are sets of their own, held by [`Backend`].
    pub endpoints: Arc<EndpointSet>,
    pub health: health::ServiceHealth,
    /// DNS names that endpoints come from.
    pub names: Box<[Arc<Name>]>,
    /// Towards endpoints outside the mesh. `None`: plaintext.
    pub tls: Option<Arc<OriginTls>>,
    /// An address of a name was left out, because it is a listener of this sidecar.
    pub has_loop: bool,
    /// What may be under way to it. `None`: everything.
    pub limits: Option<Arc<crate::admission::Breaker>>,
    /// Its requests are for models. `None`: they are requests like any other.
    pub inference: Option<Arc<Inference>>,
}

impl Upstream {
    /// Why there is no endpoint, where DNS or a loop is the reason.
    pub fn why_none(&self) -> Option<Reason> {
        if self.has_loop {
            return Some(Reason::LoopDetected);
        }
        let troubled = |name: &Arc<Name>| name.standing().trouble.is_some();
        let failed = self.endpoints.is_empty() && self.names.iter().any(troubled);
        failed.then_some(Reason::DnsFailed)
    }
}

/// One rule of a route: which requests, and what happens to them.
#[derive(Debug)]
pub struct Rule {
    /// `<namespace>/<name>` of the route; empty for a service's built-in last rule.
    pub route: Arc<str>,
    /// Any of them; empty: everything.
    pub matches: Vec<Match>,
    /// Never empty; at least one has a weight above 0.
    pub backends: Vec<Backend>,
    /// Sum of the backends' weights.
    pub total_weight: u32,
    /// Whose turn it is. Survives changes of configuration.
    pub turns: Arc<Turns>,
    pub timeouts: Timeouts,
    /// `None`: only what was certainly not sent is tried again.
    pub retry: Option<Retry>,
    /// Shared by all rules of the service; survives changes of configuration.
    pub budget: Arc<RetryBudget>,
    pub recovery: Recovery,
    /// `None`: requests and responses are passed on as they are.
    pub filters: Option<Box<Filters>>,
    /// `None`: each request is balanced for itself.
    pub session: Option<Box<Session>>,
}

#[derive(Debug)]
pub struct Backend {
    pub upstream: Arc<Upstream>,
    pub port: u16,
    pub protocol: Protocol,
    pub weight: u32,
    /// The endpoints of this backend's subset and port.
    pub endpoints: Arc<EndpointSet>,
    /// Of those the ones that serve a model, for each model of the service (`upstream.inference`). Empty: all serve all.
    pub model_endpoints: Box<[Arc<EndpointSet>]>,
    /// SNI for connections to sidecars: `<port>.<service>.<namespace>.<trust domain>`.
    pub server_name: rustls_pki_types::ServerName<'static>,
    /// Handles for (outbound, parent service, route, this backend).
    pub metrics: Arc<RequestMetrics>,
}

/// `None`: that clock does not run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From the request's head to the response's last byte.
    pub request: Option<Duration>,
    /// From the start of a try to the response's head.
    pub per_try: Option<Duration>,
    /// From the request's head to the response's head, over all tries.
    pub response_headers: Option<Duration>,
    /// From the request's head to the first byte of the response's body, over all tries.
    pub first_byte: Option<Duration>,
    /// Between two chunks, either way, after the response's head.
    pub stream_idle: Option<Duration>,
    /// From the response's head to its last byte.
    pub stream_lifetime: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Tries after the first.
    pub max_retries: u32,
    pub statuses: Vec<http::StatusCode>,
    pub grpc_codes: Vec<u32>,
    pub methods: Vec<http::Method>,
    pub on_reset: bool,
    pub on_timeout: bool,
    pub backoff: crate::resilience::Backoff,
    /// Bytes.
    pub max_body_bytes: usize,
}

/// A port that this sidecar serves: where its requests go.
#[derive(Debug)]
pub struct InboundPort {
    /// `<namespace>/<name>`.
    pub service: Arc<str>,
    pub port: u16,
    pub protocol: Protocol,
    /// The application.
    pub application: Address,
    /// Connections of bytes to it begin with a PROXY protocol header.
    pub proxy_protocol: Option<proxy_protocol::Version>,
    /// `None`: never.
    pub stream_idle_timeout: Option<Duration>,
    /// Connections of bytes.
    pub tcp: TcpLimits,
    /// For [`Protocol::Auto`].
    pub detection: Detection,
    /// Connections to the application; accepted ones have its age.
    pub pool: Arc<ConnectionPool>,
    /// Requests that the application has at a time. `None`: all there are.
    pub gate: Option<Arc<crate::admission::Gate>>,
    /// How many requests there may be. `None`: any number.
    pub rate_limits: Option<Arc<crate::admission::RateLimits>>,
    /// Its requests are for models. `None`: they are requests like any other.
    pub inference: Option<Arc<Inference>>,
    /// What is known of its model server's load. `None`: without inference.
    pub signals: Option<Arc<crate::inference::engine::Signals>>,
}

impl InboundPort {
    /// Whether there are limits that only requests can be held to, and all that it takes are requests.
    pub fn has_limits_of_requests(&self) -> bool {
        let isolates = |inference: &Arc<Inference>| inference.isolation.is_some();
        let is_limited = self.gate.is_some()
            || self.rate_limits.is_some()
            || self.inference.as_ref().is_some_and(isolates);
        is_limited && self.protocol.has_requests() && self.protocol != Protocol::Auto
    }
}
