//! How endpoints are chosen.

use serde_json::{Value, json};

use super::millis;
use crate::balance::EndpointSet;
use crate::policy::{Carrier, HashInput, HashKey, SessionSettings};

pub(super) fn settings(set: &EndpointSet) -> Value {
    let settings = set.settings();
    let hash = settings.hash.as_ref();
    json!({
        "policy": settings.policy.as_str(),
        "ewma_decay_ms": millis(settings.decay),
        "panic_threshold_percent": settings.panic_percent,
        "hash": hash.map(|hash| hash.inputs.iter().map(input).collect::<Vec<_>>()),
        "places": set.table_len(),
        "prompts_again": set.prompts_again(),
        "bounded_load_percent": settings.bounded_load,
        "zone": settings.zone.as_ref().map(|zone| json!({
            "own": &*zone.own,
            "overprovisioning_percent": zone.overprovisioning,
            "min_local_percent": zone.min_local_percent,
        })),
        "slow_start": settings.slow_start.map(|slow_start| json!({
            "window_ms": millis(slow_start.window),
            "aggression": slow_start.aggression,
            "min_percent": slow_start.min_percent,
        })),
    })
}

fn input(input: &HashInput) -> Value {
    let (kind, name) = match &input.key {
        HashKey::Header(name) => ("header", Some(name.as_str())),
        HashKey::Cookie(cookie) => ("cookie", Some(&*cookie.name)),
        HashKey::SourceIdentity => ("source-identity", None),
        HashKey::Path => ("path", None),
        HashKey::QueryParameter(name) => ("query-parameter", Some(&**name)),
    };
    json!({ "type": kind, "name": name, "terminal": input.terminal })
}

/// Without the key, which is a secret.
pub(super) fn session(settings: &SessionSettings) -> Value {
    let (kind, name) = match &settings.carrier {
        Carrier::Cookie(name) => ("cookie", &**name),
        Carrier::Header(name) => ("header", name.as_str()),
    };
    json!({
        "type": kind,
        "name": name,
        "absolute_timeout_ms": settings.absolute_timeout.map(millis),
        "permanent": settings.permanent,
    })
}
