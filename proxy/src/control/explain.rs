//! What a configuration would make of requests, without a sidecar: for the control plane.

use std::sync::Arc;

use outrigger_proto::dataplane::v1 as wire;

use super::resources::Resources;
use super::snapshot::{Applications, Builder};
use crate::dns::Names;
use crate::policy::Snapshot;
use crate::telemetry::metrics::Metrics;

/// The snapshot that a sidecar of the trust domain makes of its first delta, and what it refuses of it. No name is looked up
/// and nothing is sent.
pub(crate) fn snapshot(delta: wire::Delta, trust_domain: &str) -> (Snapshot, Vec<wire::Refusal>) {
    let mut resources = Resources::new(false);
    let refusals = resources.apply(delta, trust_domain, |_| true);
    let metrics = Arc::new(Metrics::new());
    let names = Names::unresolved(metrics.clone());
    // In no zone: which one a sidecar is in has no part in where its requests may go, only in where most of them do.
    let zone = Arc::from("");
    let mut builder = Builder::new(trust_domain, zone, Applications::new(), metrics, names);
    (builder.build(&resources), refusals)
}
