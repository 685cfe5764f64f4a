//! Services and their rules.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method, StatusCode};
use outrigger_proto::dataplane::v1 as wire;
use rustls_pki_types::ServerName;
use wire::string_match::Kind;

use super::recovery::recovery;
use super::{
    BackendSpec, Reason, RuleSpec, ServiceSpec, balancing, connections, health, inference, limits,
    list, outside, port, protocol, timeout,
};
use crate::policy::matching::HostMatch;
use crate::policy::{
    GrpcMatch, HeaderMatch, Match, QueryParamMatch, Retry, ServicePort, StringMatch, Timeouts,
};
use crate::resilience::Backoff;

/// The contract's default where a service does not say it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The contract's default; Linkerd's cap for replayed bodies.
const MAX_BODY_BYTES: usize = 64 << 10;
/// The contract's default budget: percent, and retries per second on top. Finagle's and tower's.
const BUDGET: (u32, u32) = (20, 10);

pub(super) fn service(service: &wire::Service, trust_domain: &str) -> Result<ServiceSpec, Reason> {
    let full = format!("{}/{}", service.namespace, service.name);
    let name = super::service_name("namespace/name", &full)?;
    let ports = list("ports", &service.ports, |wire: &wire::ServicePort| {
        Ok(ServicePort {
            port: port("port", wire.port)?,
            name: wire.name.as_str().into(),
            protocol: protocol("protocol", wire.protocol)?,
            detection: connections::detection(wire.detection_timeout, wire.server_first)?,
        })
    })?;
    for service_port in &ports {
        // Only the length can be wrong: namespace and name are labels.
        server_name(&name, service_port.port, trust_domain)
            .ok_or("name: too long for a server name together with namespace and trust domain")?;
    }
    let identities = list("server_identities", &service.server_identities, |text| {
        text.parse().map_err(|error| format!(": {error}"))
    })?;
    if identities.is_empty() {
        return Err("server_identities: empty, nobody could serve it".into());
    }
    let balancing = balancing::settings(service.load_balancing.as_ref())
        .map_err(|problem| format!("load_balancing.{problem}"))?;
    let pool = service.connection_pool.as_ref();
    let pool = connections::connection_pool("connection_pool", pool)?;
    Ok(ServiceSpec {
        balancing: Arc::new(balancing),
        identities,
        rules: list("rules", &service.rules, rule)?,
        connect_timeout: timeout("connect_timeout", service.connect_timeout)?
            .unwrap_or(CONNECT_TIMEOUT),
        tcp: connections::tcp_limits(service.tcp_idle_timeout, service.tcp_lifetime)?,
        pool: Arc::new(pool),
        tls: service.tls.as_ref().map(outside::tls).transpose()?,
        outlier_detection: health::outlier_detection(service.outlier_detection.as_ref())?,
        health_checks: health::checks(&service.health_checks, &ports)?,
        ports,
        limits: limits::of_callers(service.limits.as_ref())?,
        inference: inference::inference(service.inference.as_ref())?,
        name,
    })
}

/// A service that no resource stands for, with its own name in place of a qualified one.
pub(in crate::control) fn made_up(
    wire: &wire::Service,
    name: &str,
    trust_domain: &str,
) -> Option<ServiceSpec> {
    let mut spec = service(wire, trust_domain).ok()?;
    spec.name = name.into();
    for backend in spec.rules.iter_mut().flat_map(|rule| &mut rule.backends) {
        backend.service = spec.name.clone();
    }
    Some(spec)
}

/// What is sent as SNI to a sidecar that serves this: `<port>.<service>.<namespace>.<trust domain>`.
pub(in crate::control) fn server_name(
    service: &str,
    port: u16,
    trust_domain: &str,
) -> Option<ServerName<'static>> {
    ServerName::try_from(sni(service, port, trust_domain)).ok()
}

/// The text of [`server_name`].
pub(in crate::control) fn sni(service: &str, port: u16, trust_domain: &str) -> String {
    match service.split_once('/') {
        Some((namespace, name)) => format!("{port}.{name}.{namespace}.{trust_domain}"),
        None => format!("{port}.{service}.{trust_domain}"),
    }
}

fn rule(rule: &wire::Rule) -> Result<RuleSpec, Reason> {
    let backends = list("backends", &rule.backends, backend)?;
    let total_weight = backends
        .iter()
        .try_fold(0_u32, |sum, backend| sum.checked_add(backend.weight))
        .ok_or("backends: the sum of the weights is above 4294967295")?;
    if total_weight == 0 {
        return Err("backends: at least one must have a weight above 0".into());
    }
    let (retry, budget) = match &rule.retry {
        Some(wire) => {
            let (retry, budget) = retry(wire).map_err(|problem| format!("retry.{problem}"))?;
            (Some(retry), budget)
        }
        None => (None, BUDGET),
    };
    Ok(RuleSpec {
        route: rule.route.as_str().into(),
        matches: list("matches", &rule.matches, one_match)?,
        backends,
        total_weight,
        timeouts: timeouts(rule.timeouts.as_ref())
            .map_err(|problem| format!("timeouts.{problem}"))?,
        retry,
        budget,
        recovery: recovery(rule)?,
        filters: list("filters", &rule.filters, super::filters::filter)?,
        session: balancing::session(rule.session_persistence.as_ref())
            .map_err(|problem| format!("session_persistence.{problem}"))?,
    })
}

pub(super) fn backend(wire: &wire::Backend) -> Result<BackendSpec, Reason> {
    Ok(BackendSpec {
        service: super::service_name("service", &wire.service)?,
        port: port("port", wire.port)?,
        weight: wire.weight,
        subset: wire.subset.clone().into_iter().collect(),
    })
}

pub(super) fn header_match(wire: &wire::HeaderMatch) -> Result<HeaderMatch, Reason> {
    Ok(HeaderMatch {
        name: HeaderName::from_bytes(wire.name.as_bytes())
            .map_err(|_| format!("name: {:?} is not a header's name", wire.name))?,
        value: string_match("value", wire.value.as_ref())?
            .ok_or("value: unset; exact, prefix or regex is wanted")?,
    })
}

pub(super) fn one_match(wire: &wire::Match) -> Result<Match, Reason> {
    let method = match wire.method.as_str() {
        "" => None,
        text => Some(method("method", text)?),
    };
    let headers = list("headers", &wire.headers, header_match)?;
    let query_params = list(
        "query_params",
        &wire.query_params,
        |param: &wire::QueryParamMatch| {
            if param.name.is_empty() {
                return Err("name: empty, no parameter has that name".into());
            }
            Ok(QueryParamMatch {
                name: param.name.as_str().into(),
                value: whole_value("value", param.value.as_ref())?
                    .ok_or("value: unset; exact or regex is wanted")?,
            })
        },
    )?;
    let grpc = |wire: &wire::GrpcMatch| {
        Ok::<_, Reason>(GrpcMatch {
            service: whole_value("grpc.service", wire.service.as_ref())?,
            method: whole_value("grpc.method", wire.method.as_ref())?,
        })
    };
    Ok(Match {
        hosts: wire.hosts.iter().map(|host| HostMatch::new(host)).collect(),
        path: string_match("path", wire.path.as_ref())?,
        method,
        headers,
        query_params,
        grpc: wire.grpc.as_ref().map(grpc).transpose()?,
        port: match wire.port {
            0 => None,
            number => Some(port("port", number)?),
        },
        model: wire
            .model
            .as_ref()
            .map(inference::model_match)
            .transpose()?,
    })
}

fn string_match(
    field: &str,
    wire: Option<&wire::StringMatch>,
) -> Result<Option<StringMatch>, Reason> {
    let Some(wire) = wire else {
        return Ok(None);
    };
    match &wire.kind {
        Some(Kind::Exact(value)) => Ok(Some(StringMatch::exact(value))),
        Some(Kind::Prefix(value)) => Ok(Some(StringMatch::prefix(value))),
        Some(Kind::Regex(pattern)) => StringMatch::regex(pattern)
            .map(Some)
            .map_err(|error| format!("{field}.regex: {error}")),
        None => Err(format!("{field}: neither exact nor prefix nor regex")),
    }
}

/// A pattern where prefixes, which are made of path segments, mean nothing.
fn whole_value(
    field: &str,
    wire: Option<&wire::StringMatch>,
) -> Result<Option<StringMatch>, Reason> {
    match string_match(field, wire)? {
        Some(StringMatch::Prefix(_)) => Err(format!("{field}: a prefix; exact or regex is wanted")),
        found => Ok(found),
    }
}

pub(super) fn method(field: &str, text: &str) -> Result<Method, Reason> {
    Method::from_bytes(text.as_bytes())
        .map_err(|_| format!("{field}: {text:?} is not an HTTP method"))
}

fn timeouts(wire: Option<&wire::Timeouts>) -> Result<Timeouts, Reason> {
    let Some(wire) = wire else {
        return Ok(Timeouts::default());
    };
    Ok(Timeouts {
        request: timeout("request", wire.request)?,
        per_try: timeout("per_try", wire.per_try)?,
        response_headers: timeout("response_headers", wire.response_headers)?,
        first_byte: timeout("first_byte", wire.first_byte)?,
        stream_idle: timeout("stream_idle", wire.stream_idle)?,
        stream_lifetime: timeout("stream_lifetime", wire.stream_lifetime)?,
    })
}

fn retry(wire: &wire::Retry) -> Result<(Retry, (u32, u32)), Reason> {
    let base = timeout("backoff_base", wire.backoff_base)?.unwrap_or(Backoff::default().base);
    let max = timeout("backoff_max", wire.backoff_max)?.unwrap_or(base.saturating_mul(10));
    if max < base {
        return Err(format!(
            "backoff_max: {max:?} is below backoff_base, {base:?}"
        ));
    }
    let statuses = list("statuses", &wire.statuses, |status| {
        u16::try_from(*status)
            .ok()
            .and_then(|status| StatusCode::from_u16(status).ok())
            .ok_or_else(|| format!(": {status} is not an HTTP status"))
    })?;
    let retry = Retry {
        max_retries: wire.max_retries,
        statuses,
        grpc_codes: wire.grpc_codes.clone(),
        methods: list("methods", &wire.methods, |text| method("", text))?,
        on_reset: wire.on_reset,
        on_timeout: wire.on_timeout,
        backoff: Backoff { base, max },
        max_body_bytes: match wire.max_body_bytes {
            0 => MAX_BODY_BYTES,
            bytes => usize::try_from(bytes)
                .map_err(|_| format!("max_body_bytes: {bytes} is more than memory can have"))?,
        },
    };
    let or = |value: u32, default: u32| if value == 0 { default } else { value };
    let budget = (
        or(wire.budget_percent, BUDGET.0),
        or(wire.budget_min_per_second, BUDGET.1),
    );
    Ok((retry, budget))
}
