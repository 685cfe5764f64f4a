//! One service: the resources that sidecars get for it, and what the control plane itself asks of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use outrigger_proto::dataplane::v1 as wire;
use wire::resource::Body;

use super::balancing::{self, SessionSecret};
use super::filters;
use super::health;
use super::inference;
use super::limits;
use super::policy::{self, Defaults};
use super::recovery;
use super::rules::{self, DefaultPort, Parent};
use super::shared::Shared;
use crate::ca::SpiffeId;
use crate::model::{MeshSpec, RequestTimeouts, Resource, ServiceSpec, ServiceTimeouts};

/// A compiled service. Endpoints are apart from it, see [`super::endpoints`]: they change far more often.
#[derive(Debug)]
pub struct CompiledService {
    /// `service/<namespace>/<name>`.
    pub resource: Arc<Shared>,
    /// Other services that its rules send requests to, `<namespace>/<name>`.
    pub backends: Vec<Arc<str>>,
    /// SPIFFE ids that may serve it; may end in `/*`.
    pub server_identities: Vec<String>,
    /// What a sidecar that serves it does on each of its ports.
    pub inbound: Vec<wire::InboundPort>,
}

impl CompiledService {
    /// Whether a sidecar with this identity may serve it.
    pub fn may_be_served_by(&self, identity: &SpiffeId) -> bool {
        self.server_identities
            .iter()
            .any(|pattern| identity_matches(pattern, identity.as_str()))
    }

    /// What a sidecar does on this port; none where the service has no such port.
    pub fn inbound_port(&self, port: u32) -> Option<&wire::InboundPort> {
        self.inbound.iter().find(|inbound| inbound.port == port)
    }
}

/// `…/*` stands for any account of that path: one more segment, not several.
fn identity_matches(pattern: &str, identity: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) if prefix.ends_with('/') => identity
            .strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty() && !rest.contains('/')),
        _ => pattern == identity,
    }
}

/// What a service is compiled from, besides itself.
#[derive(Clone, Copy)]
pub(super) struct Sources<'a> {
    pub trust_domain: &'a str,
    pub mesh: &'a MeshSpec,
    pub session_secret: &'a SessionSecret,
    /// Routes that are for it.
    pub routes: &'a [Arc<Resource>],
    /// Routes that send requests to it.
    pub routes_to_it: &'a [Arc<Resource>],
    /// Rate limits that are for it.
    pub rate_limits: &'a [Arc<Resource>],
    pub default_port: DefaultPort<'a>,
}

/// Compiles a service and the routes that are for it.
pub(super) fn compile(
    sources: Sources<'_>,
    resource: &Resource,
    spec: &ServiceSpec,
) -> CompiledService {
    let Sources {
        trust_domain,
        mesh,
        session_secret,
        routes,
        routes_to_it,
        rate_limits,
        default_port,
    } = sources;
    let namespace = resource.metadata.namespace.as_str();
    let name = resource.metadata.name.as_str();
    let defaults = Defaults::of(spec, mesh);
    let parent = Parent {
        namespace,
        name,
        spec,
        defaults: &defaults,
        session_secret,
    };
    let rules = rules::compile(parent, routes, default_port);
    let own = format!("{namespace}/{name}");
    let backends: BTreeSet<&str> = rules
        .iter()
        .flat_map(|rule| {
            let backends = rule.backends.iter().map(|backend| &*backend.service);
            backends
                .chain(recovery::services(rule))
                .chain(filters::services(rule))
        })
        .filter(|service| *service != own)
        .collect();
    let backends = backends.into_iter().map(Arc::from).collect();
    let server_identities = server_identities(trust_domain, namespace, spec);
    let ports = spec.ports.iter().map(|port| wire::ServicePort {
        port: port.port.into(),
        name: port.name.clone().unwrap_or_default(),
        protocol: policy::protocol(port.protocol).into(),
        detection_timeout: port.detection_timeout.and_then(policy::duration),
        server_first: port.server_first(),
    });
    let connect = spec
        .timeouts
        .connect
        .or(mesh.timeouts.connect)
        .unwrap_or(ServiceTimeouts::CONNECT);
    let inference = spec.inference.as_ref().map(inference::inference);
    let body = wire::Service {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        ports: ports.collect(),
        load_balancing: Some(balancing::load_balancing(&spec.load_balancing)),
        server_identities: server_identities.clone(),
        rules,
        connect_timeout: policy::duration(connect),
        tcp_idle_timeout: spec.timeouts.tcp_idle.and_then(policy::duration),
        tcp_lifetime: spec.timeouts.tcp_lifetime.and_then(policy::duration),
        connection_pool: policy::connection_pool(spec.connection_pool),
        limits: limits::of_callers(spec.limits.as_ref()),
        tls: spec.tls.as_ref().and_then(policy::tls),
        outlier_detection: health::outlier_detection(spec, mesh),
        health_checks: health::health_checks(spec, &format!("{name}.{namespace}")),
        inference: inference.clone(),
    };
    let stream_idle = longest_stream_idle(defaults.timeouts, routes.iter().chain(routes_to_it));
    let server_limits = limits::of_servers(spec.limits.as_ref());
    let rate_limits = limits::rate_limits(rate_limits);
    let inbound = spec.ports.iter().map(|port| wire::InboundPort {
        service: own.clone(),
        port: port.port.into(),
        protocol: policy::protocol(port.protocol).into(),
        stream_idle_timeout: if port.protocol.is_http() {
            stream_idle
        } else {
            spec.timeouts.tcp_idle.and_then(policy::duration)
        },
        tcp_idle_timeout: spec.timeouts.tcp_idle.and_then(policy::duration),
        tcp_lifetime: spec.timeouts.tcp_lifetime.and_then(policy::duration),
        detection_timeout: port.detection_timeout.and_then(policy::duration),
        server_first: port.server_first(),
        connection_pool: policy::connection_pool(spec.connection_pool),
        limits: server_limits.clone().filter(|_| port.protocol.is_http()),
        inference: inference.clone().filter(|_| port.protocol.is_http()),
        rate_limits: if port.protocol.is_http() {
            rate_limits.clone()
        } else {
            Vec::new()
        },
    });
    CompiledService {
        inbound: inbound.collect(),
        resource: Arc::new(Shared::new(format!("service/{own}"), Body::Service(body))),
        backends,
        server_identities,
    }
}

/// The serving sidecar does not know by which rule a stream came to it: it must not cut what any of them allows.
fn longest_stream_idle<'a>(
    default: RequestTimeouts,
    routes: impl Iterator<Item = &'a Arc<Resource>>,
) -> Option<prost_types::Duration> {
    routes
        .filter_map(|route| route.as_route())
        .flat_map(|route| &route.rules)
        .filter_map(|rule| rule.timeouts.stream_idle)
        .chain(default.stream_idle)
        .max()
        .and_then(policy::duration)
}

fn server_identities(trust_domain: &str, namespace: &str, spec: &ServiceSpec) -> Vec<String> {
    let account = |account: &str| format!("spiffe://{trust_domain}/ns/{namespace}/sa/{account}");
    let mut identities: Vec<String> = match spec.service_accounts.as_slice() {
        [] => vec![account("*")],
        accounts => accounts.iter().map(|name| account(name)).collect(),
    };
    for identity in &spec.identities {
        if !identities.contains(identity) {
            identities.push(identity.clone());
        }
    }
    identities
}
