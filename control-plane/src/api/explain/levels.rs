//! Where each clock of a request is set.

use outrigger_proto::api::v1 as api;
use outrigger_proxy::explain::Routed;
use serde_json::Value;

use crate::model::{Duration, Kind, RequestTimeouts, ResourceKey, ServiceTimeouts};
use crate::store::{Selector, Store};

/// The clocks that run, the request's own in the order of their names.
///
/// A clock that a rule sets to what its service says anyway is told as the service's: from outside they are the same.
pub(super) fn timeouts(route: &Routed, store: &dyn Store) -> Vec<api::ExplainedTimeout> {
    let service = route.service.split_once('/').and_then(|(namespace, name)| {
        let stored = store.get(&ResourceKey::service(namespace, name))?;
        serde_json::to_value(stored.as_service()?.timeouts).ok()
    });
    let mesh = store
        .list(&Selector::kind(Kind::Mesh))
        .first()
        .and_then(|stored| serde_json::to_value(stored.as_mesh()?.timeouts).ok());
    let levels = [("service", service), ("mesh", mesh)];
    let mut timeouts = Vec::new();
    let mut add = |name: &str, millis: u64, otherwise: &str| {
        let set = levels.iter().find_map(|(level, values)| {
            let text = values.as_ref()?.get(name)?.as_str()?;
            Some((*level, text.parse::<Duration>().ok()?.as_millis()))
        });
        let level = match set {
            Some((level, value)) if value == millis => level,
            Some(_) => "route",
            None => otherwise,
        };
        timeouts.push(api::ExplainedTimeout {
            name: name.to_owned(),
            after: Some(prost_types::Duration {
                seconds: i64::try_from(millis / 1000).unwrap_or(i64::MAX),
                // Below a second: it fits.
                nanos: (millis % 1000) as i32 * 1_000_000,
            }),
            level: level.to_owned(),
        });
    };
    let connect = millis(route.service_policy.get("connect_timeout_ms"));
    if let Some(connect) = connect {
        let is_default = connect == ServiceTimeouts::CONNECT.as_millis();
        // Routes cannot set it.
        add(
            "connect",
            connect,
            if is_default { "built-in" } else { "service" },
        );
    }
    let clocks = route.policy.get("timeouts").and_then(Value::as_object);
    for (field, value) in clocks.into_iter().flatten() {
        let Some(millis) = millis(Some(value)) else {
            continue;
        };
        let name = name(field);
        let built_in = name == "streamIdle" && millis == RequestTimeouts::STREAM_IDLE.as_millis();
        add(&name, millis, if built_in { "built-in" } else { "route" });
    }
    timeouts
}

fn millis(value: Option<&Value>) -> Option<u64> {
    value?.as_u64()
}

/// `response_headers_ms` of a sidecar is `responseHeaders` of a resource.
pub(super) fn name(field: &str) -> String {
    let field = field.strip_suffix("_ms").unwrap_or(field);
    if field == "per_try" {
        return "backendRequest".to_owned();
    }
    let mut words = field.split('_');
    let mut name = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        name.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        name.extend(letters);
    }
    name
}
