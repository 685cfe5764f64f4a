//! `/endpoints`: where requests can go, and what is known of the load there.

use serde_json::{Value, json};

use crate::balance::EndpointStats;
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
                "endpoints": stats.iter().map(endpoint).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({ "version": snapshot.version, "services": services })
}

fn endpoint(stats: &EndpointStats) -> Value {
    let endpoint = &stats.endpoint;
    json!({
        "address": endpoint.address.to_string(),
        "state": stats.state.as_str(),
        "weight": endpoint.weight.max(1),
        "labels": endpoint.labels,
        "ports": endpoint.ports,
        "mtls": endpoint.mtls,
        "identity": endpoint.identity.as_ref().map(|id| id.as_str()),
        "zone": &*endpoint.zone,
        "instance": &*endpoint.instance,
        "in_flight": stats.in_flight,
        "ewma_ms": (stats.latency.as_secs_f64() * 1e6).round() / 1e3,
        "picks": stats.picks,
        "failures": stats.failures,
    })
}
