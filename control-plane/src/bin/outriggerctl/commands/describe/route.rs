//! What there is to say about a route.

use outrigger_control_plane::model::{
    BackendRef, ModelMatchType, PathMatchType, ResourceKey, RouteMatch, RouteRule, RouteSpec,
    ValueMatchType,
};

use super::sheet::Sheet;
use super::{balancing, filters, policy, recovery};
use crate::commands::get::{local, subset};

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
    if let Some(continuation) = &rule.continuation {
        field("continues", &recovery::continuation(continuation));
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
    if let Some(model) = &condition.model {
        let how = match model.match_type() {
            ModelMatchType::Exact => "is",
            ModelMatchType::Glob => "like",
        };
        parts.push(format!("model {how} {}", model.value));
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
