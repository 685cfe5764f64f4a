//! What a sidecar would be sent first.

use std::collections::HashMap;
use std::sync::Arc;

use outrigger_proto::dataplane::v1 as wire;
use wire::resource::Body;

use super::holdings::Holdings;
use crate::compile::{Compiled, Shared};

/// The delta for a sidecar of this namespace that holds nothing, serves nothing, and wants `names`.
pub fn first_delta(state: &Compiled, namespace: &str, names: Vec<String>) -> wire::Delta {
    let workload = Arc::new(Shared::new(
        "workload",
        Body::Workload(wire::Workload::default()),
    ));
    let mut holdings = Holdings::new(namespace, HashMap::new());
    holdings.subscribe(names);
    let mut delta = wire::Delta {
        version: state.version,
        ..wire::Delta::default()
    };
    // In pieces, as a stream would.
    while let Some(difference) = holdings.difference(state, &workload) {
        let resources = difference.resources.iter().map(|it| it.decode());
        delta.resources.extend(resources);
        let removed = difference.removed.iter().map(ToString::to_string);
        delta.removed.extend(removed);
    }
    delta
}
