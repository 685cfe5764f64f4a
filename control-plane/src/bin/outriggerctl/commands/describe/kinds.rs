//! What there is to say about each kind; services and routes have files of their own.

use jiff::Timestamp;
use outrigger_control_plane::model::{MeshSpec, UnknownHosts, WorkloadSpec};
use outrigger_proto::api::v1::Resource;

use super::sheet::Sheet;
use super::{health, policy};
use crate::commands::get::{endpoint_state, subset, word};
use crate::output::table::Table;
use crate::output::{age, json};

const NONE: &str = "<none>";

/// Name and bookkeeping.
pub fn head(resource: &Resource, now: Timestamp, sheet: &mut Sheet) {
    let meta = resource.metadata.clone().unwrap_or_default();
    sheet.field("Kind", &resource.kind);
    sheet.field("Name", &meta.name);
    if !meta.namespace.is_empty() {
        sheet.field("Namespace", &meta.namespace);
    }
    for (label, pairs) in [("Labels", &meta.labels), ("Annotations", &meta.annotations)] {
        if !pairs.is_empty() {
            let mut pairs: Vec<String> = pairs
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            pairs.sort_unstable();
            sheet.field(label, pairs.join("\n"));
        }
    }
    if let Some(created) = json::time(meta.creation_timestamp.as_ref()) {
        sheet.field(
            "Created",
            format!("{} ({} ago)", age::point(created), age::age(created, now)),
        );
    }
    if meta.generation > 0 {
        sheet.field("Generation", meta.generation.to_string());
    }
}

pub fn mesh(spec: &MeshSpec, sheet: &mut Sheet) {
    sheet.field(
        "Trust domain",
        spec.trust_domain.as_deref().unwrap_or("<the CA's>"),
    );
    let mode = word(&spec.mtls.mode());
    let meaning = match mode.as_str() {
        "strict" => " (peers without a certificate of the mesh are refused)",
        "permissive" => " (plaintext peers are let in, without an identity)",
        _ => "",
    };
    sheet.field("mTLS", format!("{mode}{meaning}"));
    sheet.field(
        "Access log",
        spec.telemetry
            .access_log
            .map_or("<each sidecar's own setting>".to_owned(), |log| word(&log)),
    );
    if let Some(tracing) = &spec.telemetry.tracing {
        let percent = tracing.sampling_percent();
        let new = match percent.0 {
            0 => "what arrives sampled".to_owned(),
            _ => format!("what arrives sampled, and {percent}% of what begins here"),
        };
        sheet.field("Traces", format!("to {} ({new})", tracing.endpoint));
    }
    if let Some(unknown) = spec.outbound.unknown_hosts {
        let meaning = match unknown {
            UnknownHosts::Refuse => " (404 no-route)",
            UnknownHosts::PassThrough => " (requests go where DNS says)",
        };
        sheet.field("Unknown hosts", format!("{}{meaning}", word(&unknown)));
    }
    let timeouts = policy::timeouts(
        spec.timeouts.connect,
        spec.timeouts.for_requests(),
        [None; 2],
    );
    sheet.field(
        "Timeouts",
        timeouts.unwrap_or_else(|| "<built-in: connect 1s, streamIdle 5m>".to_owned()),
    );
    sheet.field(
        "Retry",
        spec.retry
            .as_ref()
            .map_or_else(|| NONE.to_owned(), policy::retry),
    );
    sheet.field(
        "Outliers",
        spec.outlier_detection
            .as_ref()
            .map_or_else(|| "off".to_owned(), health::outlier_detection),
    );
}

pub fn workload(spec: &WorkloadSpec, sheet: &mut Sheet) {
    sheet.field("Instance", &spec.instance);
    sheet.field("Identity", &spec.identity);
    sheet.field(
        "Address",
        if spec.address.is_empty() {
            "<only calls>"
        } else {
            &spec.address
        },
    );
    let labels = subset(&spec.labels).replace(',', "\n");
    sheet.field("Sidecar labels", labels);
    sheet.section("Serves");
    let mut table = Table::new(vec!["SERVICE", "PORT", "WEIGHT", "STATE"]);
    for endpoint in &spec.endpoints {
        table.row(vec![
            endpoint.service.as_str().into(),
            endpoint.port.to_string().into(),
            endpoint.weight.to_string().into(),
            endpoint_state(endpoint.state),
        ]);
    }
    if table.is_empty() {
        sheet.line(NONE);
    } else {
        sheet.table(&table);
    }
}
