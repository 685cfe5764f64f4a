//! What there is to say about a service.

use outrigger_control_plane::model::{
    Resource as Typed, ResourceKey, ServiceSpec, ServiceTls, TlsMode, relate::implied_hosts,
};

use super::route::parents;
use super::sheet::Sheet;
use super::{Surroundings, balancing, connections, health, inference, limits, policy};
use crate::commands::get::{endpoint_state, subset, word};
use crate::output::table::Table;

const THE_MESHS: &str = "<the mesh's>";

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
    if let Some(spec) = &spec.inference {
        sheet.field("Inference", inference::inference(spec));
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
