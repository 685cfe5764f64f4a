//! `/endpoints`: where requests can go, and what is known of the load there.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::config::millis;
use crate::balance::{EndpointStats, LoadReport};
use crate::dns::Name;
use crate::policy::InboundPort;
use crate::resilience::health::View;
use crate::shared::Shared;

pub(super) fn describe(shared: &Shared) -> Value {
    let snapshot = shared.snapshot.load();
    let services: Vec<Value> = snapshot
        .upstreams()
        .into_iter()
        .map(|upstream| {
            let stats = upstream.endpoints.stats();
            json!({
                "service": &*upstream.service,
                "policy": upstream.endpoints.policy().as_str(),
                "panic": upstream.endpoints.is_panic(),
                "local_share": upstream.endpoints.local_share(),
                "endpoints": stats.iter().map(endpoint).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "version": snapshot.version,
        "services": services,
        "model_servers": snapshot.inbound.values().filter_map(|port| model_server(port)).collect::<Vec<_>>(),
        "dns": snapshot.names.iter().map(|each| name(each)).collect::<Vec<_>>(),
    })
}

/// A DNS name, and what came of looking it up.
fn name(name: &Name) -> Value {
    let standing = name.standing();
    json!({
        "service": &*name.service,
        "host": &*name.host,
        "addresses": standing.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "ttl_s": standing.answered_at.map(|_| standing.ttl.as_secs()),
        "answer_age_s": standing.answered_at.map(|at| at.elapsed().as_secs()),
        "error": standing.trouble.as_ref().map(|(trouble, _)| trouble.to_string()),
        "error_at": standing.trouble.as_ref().and_then(|(_, at)| super::config::rfc3339(*at)),
    })
}

fn endpoint(stats: &EndpointStats) -> Value {
    let endpoint = &stats.endpoint;
    json!({
        "address": endpoint.address.to_string(),
        "state": stats.state.as_str(),
        "weight": endpoint.weight.max(1),
        "weight_in_effect": (stats.weight * 1e3).round() / 1e3,
        "available": stats.available,
        "labels": endpoint.labels,
        "ports": endpoint.ports,
        "mtls": endpoint.mtls,
        "host": endpoint.outside.as_ref().and_then(|outside| outside.host.as_deref()),
        "tls": endpoint.outside.as_ref().is_some_and(|outside| outside.tls.is_some()),
        "identity": endpoint.identity.as_ref().map(|id| id.as_str()),
        "zone": &*endpoint.zone,
        "instance": &*endpoint.instance,
        "in_flight": stats.in_flight,
        "ewma_ms": stats.latency.map(|latency| (latency.as_secs_f64() * 1e6).round() / 1e3),
        "prompt_tokens": stats.work.prompt_tokens,
        "streams": stats.work.streams,
        "prefill_rate": stats.work.prefill_rate.map(f64::round),
        "reported_work": stats.work.reported_work.map(f64::round),
        "kv_usage": stats.work.kv_usage,
        "picks": stats.picks,
        "failures": stats.failures,
        "reported": endpoint.load.reported().map(|(report, age)| reported(&report, age)),
        "health": health(&endpoint.health.view()),
    })
}

/// What the endpoint's sidecar said last of its load.
fn reported(report: &LoadReport, age: Duration) -> Value {
    json!({
        "waiting": report.waiting,
        "running": report.running,
        "kv_usage": report.kv_usage.map(thousandths),
        "prompt_tokens": report.prompt_tokens,
        "age_ms": millis(age),
    })
}

/// A model server behind this sidecar.
fn model_server(port: &InboundPort) -> Option<Value> {
    let signals = port.signals.as_ref()?;
    let source = port.inference.as_ref()?.engine.as_ref()?;
    let seen = signals.seen();
    let figures = seen.as_ref().map(|seen| &seen.figures);
    Some(json!({
        "service": &*port.service,
        "port": port.port,
        "engine": signals.engine(source).map(|engine| engine.as_str()),
        "waiting": figures.and_then(|it| it.waiting),
        "running": figures.and_then(|it| it.running),
        "kv_usage": figures.and_then(|it| it.kv_usage).map(thousandths),
        "age_ms": seen.as_ref().map(|seen| millis(seen.at.elapsed())),
        "in_flight": signals.in_flight_at(port),
        "last_scrape": signals.last_scrape().map(|it| it.as_str()),
    }))
}

fn thousandths(part: f32) -> f64 {
    (f64::from(part) * 1e3).round() / 1e3
}

/// Why requests keep away, and how the last check failed that did; null where there is nothing to tell.
fn health(view: &View) -> Value {
    json!({
        "reason": view.reason(),
        "since": view.since_time().map(time),
        "until": view.until_time().map(time),
        "times_ejected": view.times,
        "last_check_failure": view.last_failure.as_ref().map(|failure| &failure.text),
    })
}

/// RFC 3339, to the millisecond.
fn time(at: SystemTime) -> Value {
    let at = jiff::Timestamp::try_from(at).and_then(|at| at.round(jiff::Unit::Millisecond));
    at.map_or(Value::Null, |at| at.to_string().into())
}
