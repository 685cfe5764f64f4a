//! `/config`: the configuration in effect. It holds no secret: keys, tokens and certificates are not in what it shows.

mod balancing;
mod filters;
mod health;
mod inference;
mod limits;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::policy::{
    AccessLogMode, Backend, Cause, ConnectionPool, Continuation, Fallback, FallbackTo, Hedge,
    HostEntry, InboundPort, Match, Protocol, Retry, Rule, Service, Snapshot, StringMatch, Timeouts,
};
use crate::shared::Shared;
use crate::tls::OriginSettings;

pub(super) fn describe(shared: &Shared) -> Value {
    let snapshot = shared.snapshot.load();
    json!({
        "version": snapshot.version,
        "proxy_version": env!("CARGO_PKG_VERSION"),
        "drain": shared.drain.phase().as_str(),
        "identity": identity(shared),
        "mesh": {
            "mtls": if snapshot.mesh.permissive { "permissive" } else { "strict" },
            "access_log": snapshot.mesh.access_log.map(access_log),
            "tracing": snapshot.mesh.tracing.as_ref().map(|tracing| json!({
                "endpoint": tracing.endpoint,
                "sampling_percent": tracing.sampling_percent,
            })),
            "unknown_hosts": if snapshot.mesh.pass_through { "pass-through" } else { "refuse" },
        },
        "hosts": hosts(&snapshot),
        "services": services(&snapshot),
        "inbound": inbound(&snapshot),
    })
}

fn identity(shared: &Shared) -> Value {
    shared.tls.load().as_ref().map_or(Value::Null, |tls| {
        json!({
            "id": tls.id.as_str(),
            "trust_domain": tls.id.trust_domain(),
            "certificate_expires_at": rfc3339(tls.not_after),
        })
    })
}

pub(super) fn rfc3339(time: SystemTime) -> Option<String> {
    jiff::Timestamp::try_from(time)
        .ok()
        .map(|time| format!("{time:.0}"))
}

fn access_log(mode: AccessLogMode) -> &'static str {
    match mode {
        AccessLogMode::Off => "off",
        AccessLogMode::Errors => "errors",
        AccessLogMode::All => "all",
    }
}

pub(crate) fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "http",
        Protocol::Http2 => "http2",
        Protocol::Grpc => "grpc",
        Protocol::Tcp => "tcp",
        Protocol::Tls => "tls",
        Protocol::Auto => "auto",
    }
}

/// Authority → service and port; `null` for hosts that the control plane does not know.
fn hosts(snapshot: &Snapshot) -> BTreeMap<&str, Value> {
    let meaning = |entry: &HostEntry| match entry {
        HostEntry::Absent => Value::Null,
        HostEntry::Service { service, port } => json!({ "service": &*service.name, "port": port }),
    };
    snapshot
        .hosts
        .iter()
        .map(|(host, entry)| (&**host, meaning(entry)))
        .collect()
}

fn services(snapshot: &Snapshot) -> BTreeMap<&str, Value> {
    snapshot
        .services
        .iter()
        .map(|(name, it)| (&**name, service(it)))
        .collect()
}

pub(crate) fn service(service: &Service) -> Value {
    let ports = service.ports.iter().map(|port| {
        json!({ "port": port.port, "name": &*port.name, "protocol": protocol(port.protocol) })
    });
    let upstream = &service.upstream;
    json!({
        "ports": ports.collect::<Vec<_>>(),
        "server_identities": upstream.identities.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "load_balancing": balancing::settings(&upstream.endpoints),
        "endpoints": upstream.endpoints.endpoints().len(),
        "dns": upstream.names.iter().map(|name| &*name.host).collect::<Vec<_>>(),
        "tls": upstream.tls.as_ref().map(|tls| origin_tls(&tls.settings)),
        "limits": upstream.limits.as_deref().map(limits::of_callers),
        "health": health::describe(&upstream.health),
        "connect_timeout_ms": millis(upstream.connect_timeout),
        "tcp_idle_timeout_ms": service.tcp.idle.map(millis),
        "tcp_lifetime_ms": service.tcp.lifetime.map(millis),
        "connection_pool": connection_pool(&upstream.pool),
        "inference": upstream.inference.as_deref().map(inference::describe),
        "rules": service.rules.iter().map(|each| rule(each)).collect::<Vec<_>>(),
    })
}

fn connection_pool(pool: &ConnectionPool) -> Value {
    json!({
        "http1": { "idle_timeout_ms": millis(pool.http1_idle), "max_idle": pool.http1_max_idle },
        "http2": {
            "max_concurrent_streams": pool.http2_streams,
            "max_connections": pool.http2_connections,
            "keep_alive_interval_ms": millis(pool.keep_alive.interval),
            "keep_alive_timeout_ms": millis(pool.keep_alive.timeout),
        },
        "max_age_ms": pool.max_age.map(millis),
        "max_requests": pool.max_requests,
        "pre_warm": pool.pre_warm,
    })
}

fn origin_tls(settings: &OriginSettings) -> Value {
    json!({
        "sni": settings.server_name.as_ref().map(|name| name.to_str()),
        "ca_certificates": if settings.roots.is_empty() { "system" } else { "given" },
        "subject_alt_names": settings.names.iter().map(|name| name.to_str()).collect::<Vec<_>>(),
    })
}

pub(crate) fn rule(rule: &Rule) -> Value {
    json!({
        "route": &*rule.route,
        "matches": rule.matches.iter().map(condition).collect::<Vec<_>>(),
        "backends": rule.backends.iter().map(backend).collect::<Vec<_>>(),
        "timeouts": timeouts(&rule.timeouts),
        "retry": rule.retry.as_ref().map(retry),
        "filters": rule.filters.as_ref().map_or_else(Vec::new, |filters| filters::describe(filters)),
        "session": rule.session.as_ref().map(|session| balancing::session(&session.settings)),
        "retry_budget": { "percent": rule.budget.percent(), "min_per_second": rule.budget.min_per_second() },
        "hedge": rule.recovery.hedge.as_ref().map(hedge),
        "continuation": rule.recovery.continuation.as_deref().map(continuation),
        "fallbacks": rule.recovery.fallbacks.iter().map(fallback).collect::<Vec<_>>(),
        "expose_attempts": rule.recovery.expose_attempts,
    })
}

pub(crate) fn condition(condition: &Match) -> Value {
    let headers = condition
        .headers
        .iter()
        .map(|header| json!({ "name": header.name.as_str(), "value": string(&header.value) }));
    let query_params = condition
        .query_params
        .iter()
        .map(|param| json!({ "name": &*param.name, "value": string(&param.value) }));
    let grpc = condition.grpc.as_ref().map(|grpc| {
        json!({
            "service": grpc.service.as_ref().map(string),
            "method": grpc.method.as_ref().map(string),
        })
    });
    json!({
        "hosts": condition.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "path": condition.path.as_ref().map(string),
        "method": condition.method.as_ref().map(|method| method.as_str()),
        "headers": headers.collect::<Vec<_>>(),
        "query_params": query_params.collect::<Vec<_>>(),
        "grpc": grpc,
        "port": condition.port,
        "model": condition.model.as_ref().map(|model| json!({ "type": model.kind(), "value": model.value() })),
    })
}

fn string(pattern: &StringMatch) -> Value {
    json!({ "type": pattern.kind(), "value": pattern.value() })
}

fn backend(backend: &Backend) -> Value {
    json!({
        "service": &*backend.upstream.service,
        "port": backend.port,
        "protocol": protocol(backend.protocol),
        "weight": backend.weight,
        "endpoints": backend.endpoints.endpoints().len(),
    })
}

pub(crate) fn timeouts(timeouts: &Timeouts) -> Value {
    json!({
        "request_ms": timeouts.request.map(millis),
        "per_try_ms": timeouts.per_try.map(millis),
        "response_headers_ms": timeouts.response_headers.map(millis),
        "first_byte_ms": timeouts.first_byte.map(millis),
        "stream_idle_ms": timeouts.stream_idle.map(millis),
        "stream_lifetime_ms": timeouts.stream_lifetime.map(millis),
    })
}

fn hedge(hedge: &Hedge) -> Value {
    json!({
        "delay_ms": millis(hedge.delay),
        "max_requests": hedge.max_requests,
        "methods": hedge.methods.iter().map(|method| method.as_str()).collect::<Vec<_>>(),
    })
}

fn continuation(continuation: &Continuation) -> Value {
    json!({
        "mode": continuation.mode.as_str(),
        "max_attempts": continuation.max_attempts,
        "max_bytes": continuation.max_bytes,
    })
}

fn fallback(fallback: &Fallback) -> Value {
    let causes: Vec<_> = fallback.on.iter().map(Cause::as_str).collect();
    match &fallback.to {
        FallbackTo::Backend(to) => {
            let mut value = json!({ "on": causes, "backend": backend(to) });
            if let Some(model) = &fallback.model {
                value["model"] = (&*model.name).into();
            }
            value
        }
        FallbackTo::Response(to) => json!({ "on": causes, "response": to.status.as_u16() }),
    }
}

fn retry(retry: &Retry) -> Value {
    json!({
        "max_retries": retry.max_retries,
        "statuses": retry.statuses.iter().map(|status| status.as_u16()).collect::<Vec<_>>(),
        "grpc_codes": retry.grpc_codes,
        "methods": retry.methods.iter().map(|method| method.as_str()).collect::<Vec<_>>(),
        "on_reset": retry.on_reset,
        "on_timeout": retry.on_timeout,
        "backoff_ms": millis(retry.backoff.base),
        "max_backoff_ms": millis(retry.backoff.max),
        "max_body_bytes": retry.max_body_bytes,
    })
}

/// By the SNI that peers use.
fn inbound(snapshot: &Snapshot) -> BTreeMap<&str, Value> {
    let port = |port: &InboundPort| {
        json!({
            "service": &*port.service,
            "port": port.port,
            "protocol": protocol(port.protocol),
            "application": port.application.to_string(),
            "stream_idle_timeout_ms": port.stream_idle_timeout.map(millis),
            "limits": port.gate.as_deref().map(limits::concurrency),
            "rate_limits": port.rate_limits.as_deref().map(limits::rate_limits),
            "inference": port.inference.as_deref().map(inference::describe),
            "tcp_idle_timeout_ms": port.tcp.idle.map(millis),
            "tcp_lifetime_ms": port.tcp.lifetime.map(millis),
            "connection_pool": connection_pool(&port.pool),
        })
    };
    snapshot
        .inbound
        .iter()
        .map(|(sni, it)| (&**sni, port(it)))
        .collect()
}

pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
