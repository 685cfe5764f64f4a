//! The columns of each kind.

use jiff::Timestamp;
use outrigger_control_plane::model::{
    EndpointState, Kind, RateLimitSpec, Resource as Typed, RouteSpec, ServiceSpec, Spec,
    WorkloadSpec,
};
use outrigger_proto::api::v1::Resource;
use serde::Serialize;

use crate::commands::describe::limits::short;
use crate::output::style::{GREEN, RED, YELLOW};
use crate::output::table::{Cell, Table};
use crate::output::{age, json};

/// How a table of resources looks.
#[derive(Debug, Clone)]
pub struct Options {
    pub wide: bool,
    /// A column for the namespace.
    pub namespace: bool,
    /// `service/chat` instead of `chat`, where tables of several kinds follow each other.
    pub kind_in_name: bool,
    /// A column for what happened.
    pub event: bool,
    pub now: Timestamp,
}

/// `service/default/chat`.
pub fn name(resource: &Resource) -> String {
    let kind = resource.kind.to_ascii_lowercase();
    match resource.metadata.as_ref() {
        Some(meta) if meta.namespace.is_empty() => format!("{kind}/{}", meta.name),
        Some(meta) => format!("{kind}/{}/{}", meta.namespace, meta.name),
        None => kind,
    }
}

/// An empty table for resources of a kind.
pub fn table(kind: Kind, options: &Options) -> Table {
    let mut header = Vec::new();
    if options.event {
        header.push("EVENT");
    }
    if options.namespace && kind.is_namespaced() {
        header.push("NAMESPACE");
    }
    header.push("NAME");
    let (narrow, wide): (&[_], &[_]) = match kind {
        Kind::Mesh => (&["TRUST-DOMAIN", "MTLS"], &["ACCESS-LOG", "GENERATION"]),
        Kind::Service => (
            &["PORTS", "HOSTS", "ENDPOINTS"],
            &["LOAD-BALANCING", "STATIC", "SERVED-BY", "GENERATION"],
        ),
        Kind::Route => (
            &["SERVICES", "RULES", "BACKENDS"],
            &["HOSTNAMES", "GENERATION"],
        ),
        Kind::RateLimit => (&["SERVICES", "LIMITS"], &["GENERATION"]),
        Kind::Workload => (
            &["ADDRESS", "SERVES", "STATE"],
            &["LABELS", "IDENTITY", "INSTANCE"],
        ),
    };
    header.extend(narrow);
    if has_answers(kind) {
        header.push("ACCEPTED");
    }
    header.push("AGE");
    if options.wide {
        header.extend(wide);
    }
    Table::new(header)
}

/// A resource's row in [`table`].
pub fn row(kind: Kind, resource: &Resource, event: Option<&str>, options: &Options) -> Vec<Cell> {
    let meta = resource.metadata.clone().unwrap_or_default();
    let mut row: Vec<Cell> = Vec::new();
    if options.event {
        row.push(event.unwrap_or_default().into());
    }
    if options.namespace && kind.is_namespaced() {
        row.push(meta.namespace.as_str().into());
    }
    row.push(if options.kind_in_name {
        format!("{}/{}", kind.lower(), meta.name).into()
    } else {
        meta.name.as_str().into()
    });
    let value = json::resource(resource);
    let typed: Option<Typed> = serde_json::from_value(value.clone()).ok();
    let generation: Cell = meta.generation.to_string().into();
    let (narrow, wide): (Vec<Cell>, Vec<Cell>) = match typed.map(|typed| typed.spec) {
        Some(Spec::Mesh(spec)) => (
            vec![
                spec.trust_domain.clone().unwrap_or_default().into(),
                word(&spec.mtls.mode()).into(),
            ],
            vec![
                spec.telemetry
                    .access_log
                    .map_or_else(String::new, |log| word(&log))
                    .into(),
                generation,
            ],
        ),
        Some(Spec::Service(spec)) => (
            service(&spec, endpoint_count(&value)),
            [service_wide(&spec), vec![generation]].concat(),
        ),
        Some(Spec::Route(spec)) => (
            route(&spec, &meta.namespace),
            vec![spec.hostnames.join(",").into(), generation],
        ),
        Some(Spec::RateLimit(spec)) => (rate_limit(&spec), vec![generation]),
        Some(Spec::Workload(spec)) => (workload(&spec), workload_wide(&spec)),
        // A newer control plane's: it is shown that it is there.
        None => {
            let columns = match kind {
                Kind::Mesh | Kind::RateLimit => 2,
                _ => 3,
            };
            (vec!["?".into(); columns], Vec::new())
        }
    };
    row.extend(narrow);
    if has_answers(kind) {
        row.push(accepted(&value));
    }
    let created = json::time(meta.creation_timestamp.as_ref());
    row.push(
        created
            .map_or_else(String::new, |at| age::age(at, options.now))
            .into(),
    );
    if options.wide {
        row.extend(wide);
    }
    row
}

/// Whether sidecars answer to resources of this kind. A workload they do not receive.
fn has_answers(kind: Kind) -> bool {
    kind != Kind::Workload
}

/// `2/2`: sidecars that have it in effect, of those that were sent it and have answered.
fn accepted(resource: &serde_json::Value) -> Cell {
    let count = |key: &str| resource["status"][key].as_u64();
    let refused = count("refusedBy").unwrap_or(0);
    match count("acceptedBy") {
        None => "-".into(),
        Some(accepted) if refused > 0 => {
            Cell::colored(format!("{accepted}/{}", accepted + refused), RED)
        }
        Some(0) => "-".into(),
        Some(accepted) => format!("{accepted}/{accepted}").into(),
    }
}

/// How many endpoints a service has; none is worth a colour.
fn endpoint_count(resource: &serde_json::Value) -> Cell {
    match resource["status"]["endpoints"].as_u64() {
        None => "-".into(),
        Some(0) => Cell::colored("0", RED),
        Some(count) => count.to_string().into(),
    }
}

/// A value as it is written in YAML, e.g. `peak-ewma`.
pub fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(other) => other.to_string(),
        Err(_) => "?".to_owned(),
    }
}

fn service(spec: &ServiceSpec, endpoints: Cell) -> Vec<Cell> {
    let ports: Vec<String> = spec
        .ports
        .iter()
        .map(|port| format!("{}/{}", port.port, word(&port.protocol)))
        .collect();
    vec![ports.join(",").into(), few(&spec.hosts).into(), endpoints]
}

fn service_wide(spec: &ServiceSpec) -> Vec<Cell> {
    let mut by: Vec<String> = spec.service_accounts.clone();
    by.extend(spec.identities.iter().cloned());
    let by = if by.is_empty() {
        "<any of its namespace>".to_owned()
    } else {
        by.join(",")
    };
    vec![
        word(&spec.load_balancing.policy()).into(),
        spec.endpoints.fixed.len().to_string().into(),
        by.into(),
    ]
}

fn route(spec: &RouteSpec, own: &str) -> Vec<Cell> {
    let parents: Vec<String> = spec
        .parent_refs
        .iter()
        .map(|parent| {
            let port = parent
                .port
                .map_or_else(String::new, |port| format!(":{port}"));
            format!(
                "{}{port}",
                local(parent.namespace.as_deref(), &parent.name, own)
            )
        })
        .collect();
    let mut backends: Vec<String> = Vec::new();
    for backend in spec.rules.iter().flat_map(|rule| &rule.backend_refs) {
        let name = local(backend.namespace.as_deref(), &backend.name, own);
        let name = match subset(&backend.subset) {
            subset if subset.is_empty() => name,
            subset => format!("{name}[{subset}]"),
        };
        if !backends.contains(&name) {
            backends.push(name);
        }
    }
    vec![
        parents.join(",").into(),
        spec.rules.len().to_string().into(),
        few(&backends).into(),
    ]
}

fn rate_limit(spec: &RateLimitSpec) -> Vec<Cell> {
    let services: Vec<String> = spec
        .target_refs
        .iter()
        .map(|target| target.name.clone())
        .collect();
    let limits: Vec<String> = spec.limits.iter().map(short).collect();
    vec![few(&services).into(), few(&limits).into()]
}

/// A name as it would be written next to resources of namespace `own`.
pub fn local(namespace: Option<&str>, name: &str, own: &str) -> String {
    match namespace {
        Some(namespace) if namespace != own => format!("{namespace}/{name}"),
        _ => name.to_owned(),
    }
}

/// `version=v2,zone=a`.
pub fn subset(labels: &outrigger_control_plane::model::Labels) -> String {
    let labels: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    labels.join(",")
}

fn workload(spec: &WorkloadSpec) -> Vec<Cell> {
    let serves: Vec<String> = spec
        .endpoints
        .iter()
        .map(|endpoint| format!("{}:{}", endpoint.service, endpoint.port))
        .collect();
    vec![
        spec.address.as_str().into(),
        few(&serves).into(),
        state(spec),
    ]
}

/// The worst state of its endpoints.
fn state(spec: &WorkloadSpec) -> Cell {
    let has = |state: EndpointState| {
        spec.endpoints
            .iter()
            .any(|endpoint| endpoint.state == state)
    };
    let worst = [
        EndpointState::Draining,
        EndpointState::NotReady,
        EndpointState::Ready,
    ];
    worst
        .into_iter()
        .find(|state| has(*state))
        .map_or_else(|| "-".into(), endpoint_state)
}

/// The state of an endpoint, in its colour.
pub fn endpoint_state(state: EndpointState) -> Cell {
    let color = match state {
        EndpointState::Ready => GREEN,
        EndpointState::NotReady => RED,
        EndpointState::Draining => YELLOW,
    };
    Cell::colored(word(&state), color)
}

fn workload_wide(spec: &WorkloadSpec) -> Vec<Cell> {
    vec![
        subset(&spec.labels).into(),
        spec.identity.as_str().into(),
        spec.instance.as_str().into(),
    ]
}

/// The first three of a list; tables are for looking at, `-o yaml` has them all.
fn few(items: &[String]) -> String {
    match items {
        [a, b, c, rest @ ..] if !rest.is_empty() => format!("{a},{b},{c} + {} more", rest.len()),
        _ => items.join(","),
    }
}
