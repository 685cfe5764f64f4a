//! Endpoints that this sidecar keeps requests away from.

use outrigger_proto::telemetry::v1 as proto;
use proto::endpoint_health::State;

use crate::balance::Endpoint;
use crate::policy::Snapshot;
use crate::resilience::health::HealthState;

/// The contract's limit.
const MAX_ENDPOINTS: usize = 1000;
/// The contract's limit, bytes.
const MAX_DETAIL: usize = 200;

pub(super) fn endpoints(snapshot: &Snapshot) -> Vec<proto::EndpointHealth> {
    let mut found = Vec::new();
    for upstream in snapshot.upstreams() {
        for endpoint in upstream.endpoints.endpoints() {
            if found.len() >= MAX_ENDPOINTS {
                return found;
            }
            found.extend(endpoint_health(&upstream.service, endpoint));
        }
    }
    found
}

fn endpoint_health(service: &str, endpoint: &Endpoint) -> Option<proto::EndpointHealth> {
    let view = endpoint.health.view();
    let state = match view.state {
        HealthState::Available => return None,
        HealthState::Ejected => State::Ejected,
        HealthState::Unhealthy => State::Unhealthy,
        HealthState::Probing => State::Probing,
    };
    let mut detail = match &view.last_failure {
        Some(failure) if state == State::Unhealthy => failure.text.clone(),
        _ => String::new(),
    };
    detail.truncate(detail.floor_char_boundary(MAX_DETAIL));
    Some(proto::EndpointHealth {
        service: service.to_owned(),
        address: endpoint.address.to_string(),
        instance: endpoint.instance.to_string(),
        state: state.into(),
        reason: view.reason().unwrap_or_default().to_owned(),
        detail,
        since: view.since_time().map(Into::into),
        until: view.until_time().map(Into::into),
        times_ejected: view.times,
    })
}
