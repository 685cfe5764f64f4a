//! The endpoints of one service: those written down in it, and those that sidecars announced and may serve.

use std::collections::BTreeMap;

use outrigger_proto::dataplane::v1 as wire;
use wire::resource::Body;

use super::service::CompiledService;
use super::shared::Shared;
use crate::discovery::Candidate;
use crate::model::{DnsEndpoint, ServiceSpec};

/// Compiles the endpoints of `service` (`<namespace>/<name>`).
///
/// `candidates` are all live announcements for it, oldest first; those that are not ready, name a port that the service
/// does not have, or come from an identity that may not serve it are left out. Returns how many there are, too.
pub(super) fn compile(
    service: &str,
    spec: &ServiceSpec,
    compiled: &CompiledService,
    candidates: &[Candidate],
) -> (Shared, usize) {
    // By address: of two sidecars that claim one, the newer is the one that is still there. Several weights of one
    // sidecar make several endpoints.
    let mut by_address: BTreeMap<&str, BTreeMap<u32, wire::Endpoint>> = BTreeMap::new();
    for candidate in candidates {
        if !compiled.may_be_served_by(&candidate.identity) {
            continue;
        }
        let mut by_weight: BTreeMap<u32, wire::Endpoint> = BTreeMap::new();
        for (port, weight) in &candidate.ready_ports {
            if compiled.inbound_port(*port).is_some() {
                by_weight
                    .entry(*weight)
                    .or_insert_with(|| announced(candidate, *weight))
                    .ports
                    .push(*port);
            }
        }
        if !by_weight.is_empty() {
            by_address.insert(&candidate.address, by_weight);
        }
    }
    let mut endpoints: Vec<wire::Endpoint> = by_address
        .into_values()
        .flat_map(BTreeMap::into_values)
        .collect();
    endpoints.extend(spec.endpoints.fixed.iter().map(|fixed| wire::Endpoint {
        address: fixed.address.to_string(),
        ports: Vec::new(),
        identity: String::new(),
        labels: fixed.labels.clone().into_iter().collect(),
        weight: fixed.weight().max(1),
        mtls: fixed.mtls(),
        zone: fixed.zone.clone().unwrap_or_default(),
        instance: String::new(),
    }));
    let count = endpoints.len();
    let body = Body::Endpoints(wire::Endpoints {
        service: service.to_owned(),
        endpoints,
        dns: spec.endpoints.dns.iter().map(dns).collect(),
    });
    (Shared::new(format!("endpoints/{service}"), body), count)
}

fn dns(endpoint: &DnsEndpoint) -> wire::DnsEndpoint {
    wire::DnsEndpoint {
        host: endpoint.host.clone(),
        port: endpoint.port.map_or(0, u32::from),
        labels: endpoint.labels.clone().into_iter().collect(),
        weight: endpoint.weight().max(1),
        zone: endpoint.zone.clone().unwrap_or_default(),
    }
}

fn announced(candidate: &Candidate, weight: u32) -> wire::Endpoint {
    wire::Endpoint {
        address: candidate.address.to_string(),
        ports: Vec::new(),
        identity: candidate.identity.as_str().to_owned(),
        labels: candidate.labels.as_ref().clone().into_iter().collect(),
        weight,
        mtls: true,
        zone: candidate.zone().to_owned(),
        instance: candidate.instance.to_string(),
    }
}
