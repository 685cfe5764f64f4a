//! What there is to say about each kind.

use jiff::Timestamp;
use outrigger_control_plane::model::{
    BackendRef, MeshSpec, PathMatchType, Resource as Typed, ResourceKey, RouteMatch, RouteRule,
    RouteSpec, ServiceSpec, ServiceTls, TlsMode, UnknownHosts, ValueMatchType, WorkloadSpec,
    relate::implied_hosts,
};
use outrigger_proto::api::v1::Resource;

use super::sheet::Sheet;
use super::{Surroundings, balancing, connections, filters, health, limits, policy, recovery};
use crate::commands::get::{endpoint_state, local, subset, word};
use crate::output::table::Table;
use crate::output::{age, json};

const THE_MESHS: &str = "<the mesh's>";
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

pub fn service(resource: &Typed, spec: &ServiceSpec, around: &Surroundings, sheet: &mut Sheet) {
    let (namespace, name) = (
        resource.metadata.namespace.as_str(),
        resource.metadata.name.as_str(),
    );
    let mut hosts = vec![format!("{name} (within {namespace})")];
    hosts.extend(implied_hosts(namespace, name));
    hosts.extend(spec.hosts.iter().cloned());
    sheet.field("Hosts", hosts.join("\n"));
    let ports = spec.ports.iter().map(|port| {
        let name = port
            .name
            .as_ref()
            .map_or_else(String::new, |name| format!(" ({name})"));
        let found_out = connections::detection(port);
        format!("{}/{}{name}{found_out}", port.port, word(&port.protocol))
    });
    sheet.field("Ports", ports.collect::<Vec<_>>().join("\n"));
    let mut servers: Vec<String> = spec
        .service_accounts
        .iter()
        .map(|account| format!("account {account} of {namespace}"))
        .collect();
    if servers.is_empty() {
        servers.push(format!("any account of {namespace}"));
    }
    servers.extend(spec.identities.iter().cloned());
    sheet.field("May be served by", servers.join("\n"));
    if let Some(tls) = &spec.tls {
        sheet.field("TLS", tls_words(tls));
    }
    sheet.field(
        "Load balancing",
        balancing::load_balancing(&spec.load_balancing),
    );
    let timeouts = policy::timeouts(
        spec.timeouts.connect,
        spec.timeouts.for_requests(),
        [spec.timeouts.tcp_idle, spec.timeouts.tcp_lifetime],
    );
    sheet.field("Timeouts", timeouts.as_deref().unwrap_or(THE_MESHS));
    sheet.field(
        "Retry",
        spec.retry
            .as_ref()
            .map_or_else(|| THE_MESHS.to_owned(), policy::retry),
    );
    if let Some(pool) = connections::pool(&spec.connection_pool) {
        sheet.field("Connections", pool);
    }
    if let Some(limits) = spec.limits.as_ref().and_then(limits::limits) {
        sheet.field("Limits", limits);
    }
    let rate_limits: Vec<String> = limits::rate_limits_of(resource, &around.resources).collect();
    if !rate_limits.is_empty() {
        sheet.field("Rate limits", rate_limits.join("\n"));
    }
    sheet.field(
        "Outliers",
        spec.outlier_detection
            .as_ref()
            .map_or_else(|| THE_MESHS.to_owned(), health::outlier_detection),
    );
    if !spec.health_checks.is_empty() {
        let checks: Vec<String> = spec.health_checks.iter().map(health::check).collect();
        sheet.field("Health checks", checks.join("\n"));
    }
    endpoints(resource, spec, around, sheet);
    routes(&resource.key(), around, sheet);
}

fn tls_words(tls: &ServiceTls) -> String {
    if tls.mode() == TlsMode::Disable {
        return "none: plaintext".to_owned();
    }
    let roots = match tls.ca_certificates {
        Some(_) => "the given CA",
        None => "the roots of each sidecar's system",
    };
    let sni = tls.sni.as_deref().unwrap_or("the endpoint's name");
    let names = match tls.subject_alt_names.as_slice() {
        [] => sni.to_owned(),
        names => names.join(" or "),
    };
    format!("to endpoints outside the mesh\nverified by {roots}, for {names}\nSNI {sni}")
}

fn endpoints(resource: &Typed, spec: &ServiceSpec, around: &Surroundings, sheet: &mut Sheet) {
    let mut table = Table::new(vec!["ADDRESS", "FROM", "PORT", "WEIGHT", "STATE", "LABELS"]);
    for endpoint in &spec.endpoints.fixed {
        let from = if endpoint.mtls() {
            "static, mTLS"
        } else {
            "static, plaintext"
        };
        table.row(vec![
            endpoint.address.to_string().into(),
            from.into(),
            "all".into(),
            endpoint.weight().to_string().into(),
            "-".into(),
            subset(&endpoint.labels).into(),
        ]);
    }
    for dns in &spec.endpoints.dns {
        let host = &dns.host;
        let address = dns
            .port
            .map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
        table.row(vec![
            address.into(),
            "DNS, each sidecar".into(),
            "all".into(),
            dns.weight().to_string().into(),
            "-".into(),
            subset(&dns.labels).into(),
        ]);
    }
    let own = resource.qualified_name();
    for workload in &around.resources {
        let Some(announced) = workload.as_workload() else {
            continue;
        };
        for endpoint in announced
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.service == own)
        {
            table.row(vec![
                announced.address.as_str().into(),
                format!("workload {}", workload.metadata.name).into(),
                endpoint.port.to_string().into(),
                endpoint.weight.to_string().into(),
                endpoint_state(endpoint.state),
                subset(&announced.labels).into(),
            ]);
        }
    }
    sheet.section("Endpoints");
    if table.is_empty() {
        sheet.line("<none>: requests fail with 503 no-endpoints until a sidecar serves it");
    } else {
        sheet.table(&table);
    }
}

fn routes(service: &ResourceKey, around: &Surroundings, sheet: &mut Sheet) {
    let routes: Vec<String> = around
        .resources
        .iter()
        .filter_map(|route| Some((route, route.as_route()?)))
        .filter(|(route, spec)| parents(spec, &route.metadata.namespace).contains(service))
        .map(|(route, spec)| match spec.rules.len() {
            1 => format!("{} (1 rule)", route.key()),
            rules => format!("{} ({rules} rules)", route.key()),
        })
        .collect();
    sheet.section("Routes");
    if routes.is_empty() {
        sheet.line("<none>: all requests go to its own endpoints");
    }
    for route in routes {
        sheet.line(route);
    }
}

/// The services that a route is for.
pub fn parents(spec: &RouteSpec, own: &str) -> Vec<ResourceKey> {
    let key = |parent: &outrigger_control_plane::model::ParentRef| {
        ResourceKey::service(
            parent.namespace.as_deref().unwrap_or(own),
            parent.name.as_str(),
        )
    };
    spec.parent_refs.iter().map(key).collect()
}

pub fn route(spec: &RouteSpec, own: &str, sheet: &mut Sheet) {
    let parents: Vec<String> = spec
        .parent_refs
        .iter()
        .map(|parent| {
            let port = parent
                .port
                .map_or_else(String::new, |port| format!(", port {port}"));
            format!(
                "service {}/{}{port}",
                parent.namespace.as_deref().unwrap_or(own),
                parent.name
            )
        })
        .collect();
    sheet.field("For", parents.join("\n"));
    let hostnames = if spec.hostnames.is_empty() {
        "<all of the service>".to_owned()
    } else {
        spec.hostnames.join(", ")
    };
    sheet.field("Hostnames", hostnames);
    for (index, rule) in spec.rules.iter().enumerate() {
        let name = rule
            .name
            .as_ref()
            .map_or_else(String::new, |name| format!(" \"{name}\""));
        sheet.section(&format!("Rule {}{name}", index + 1));
        for line in rule_lines(rule, own) {
            sheet.line(line);
        }
    }
}

fn rule_lines(rule: &RouteRule, own: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut field = |label: &str, value: &str| {
        for (index, line) in value.lines().enumerate() {
            let label = if index == 0 { label } else { "" };
            lines.push(format!("{label:<10}{line}"));
        }
    };
    if rule.matches.is_empty() {
        field("when", "always");
    }
    for (index, condition) in rule.matches.iter().enumerate() {
        field(
            if index == 0 { "when" } else { "or" },
            &condition_words(condition),
        );
    }
    for (index, filter) in rule.filters.iter().enumerate() {
        let label = if index == 0 { "filters" } else { "" };
        field(label, &filters::words(filter, own));
    }
    if filters::answers(&rule.filters) {
        // Nothing is sent anywhere.
    } else if rule.backend_refs.is_empty() {
        field("to", "the service itself");
    } else {
        field("to", &backends(&rule.backend_refs, own).join("\n"));
    }
    if let Some(timeouts) = policy::timeouts(None, rule.timeouts, [None; 2]) {
        field("timeouts", &timeouts);
    }
    if let Some(retry) = &rule.retry {
        field("retry", &policy::retry(retry));
    }
    if let Some(hedge) = &rule.hedge {
        field("hedge", &recovery::hedge(hedge));
    }
    field("fallbacks", &recovery::fallbacks(&rule.fallbacks, own));
    if rule.expose_attempts() {
        field("shows", "x-outrigger-attempts on responses");
    }
    if let Some(session) = &rule.session_persistence {
        field("session", &balancing::session(session));
    }
    lines
}

pub fn condition_words(condition: &RouteMatch) -> String {
    let mut parts = Vec::new();
    if let Some(method) = &condition.method {
        parts.push(format!("method {method}"));
    }
    if let Some(path) = &condition.path {
        let how = match path.match_type() {
            PathMatchType::Exact => "is",
            PathMatchType::PathPrefix => "under",
            PathMatchType::RegularExpression => "matches",
        };
        parts.push(format!("path {how} {}", path.value()));
    }
    for header in &condition.headers {
        let how = how(header.match_type());
        parts.push(format!("header {} {how} \"{}\"", header.name, header.value));
    }
    for param in &condition.query_params {
        let how = how(param.match_type());
        parts.push(format!(
            "query parameter {} {how} \"{}\"",
            param.name, param.value
        ));
    }
    if let Some(grpc) = &condition.grpc {
        let how = how(grpc.match_type());
        for (what, name) in [("service", &grpc.service), ("method", &grpc.method)] {
            if let Some(name) = name {
                parts.push(format!("gRPC {what} {how} {name}"));
            }
        }
    }
    if parts.is_empty() {
        "always".to_owned()
    } else {
        parts.join(", ")
    }
}

fn how(kind: ValueMatchType) -> &'static str {
    match kind {
        ValueMatchType::Exact => "is",
        ValueMatchType::RegularExpression => "matches",
    }
}

/// Each backend with its share of the requests.
fn backends(backends: &[BackendRef], own: &str) -> Vec<String> {
    let total: u64 = backends
        .iter()
        .map(|backend| u64::from(backend.weight()))
        .sum();
    let line = |backend: &BackendRef| {
        let name = local(backend.namespace.as_deref(), &backend.name, own);
        let port = backend
            .port
            .map_or_else(String::new, |port| format!(":{port}"));
        let labels = subset(&backend.subset);
        let labels = if labels.is_empty() {
            labels
        } else {
            format!(" where {labels}")
        };
        let share = match (backends.len(), total) {
            (1, 1..) => String::new(),
            (_, 0) => " (no requests: weight 0)".to_owned(),
            _ => format!(
                " ({:.4} %)",
                100.0 * f64::from(backend.weight()) / total as f64
            )
            .replace(".0000 %", " %"),
        };
        format!("service {name}{port}{labels}{share}")
    };
    backends.iter().map(line).collect()
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
