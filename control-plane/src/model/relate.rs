//! What can be wrong between resources.
//!
//! A host that would mean two services and a foreign trust domain are errors. References to what does not exist are
//! warnings: resources may be written in any order, and what a route refers to may come, go and change after it.

mod recovery;

use std::collections::BTreeMap;

use super::{
    BackendRef, IndexedProblem, RateLimitSpec, Resource, ResourceKey, RouteSpec, ServiceSpec,
};

/// The resources as they would be after a write.
pub trait View {
    /// All services.
    fn services(&self) -> Box<dyn Iterator<Item = &Resource> + '_>;
    /// The service with this key.
    fn service(&self, key: &ResourceKey) -> Option<&ServiceSpec>;
    /// The CA's trust domain. `None`: not known, e.g. offline.
    fn trust_domain(&self) -> Option<&str>;
}

/// What was found between resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Refuse the write.
    pub errors: Vec<IndexedProblem>,
    /// Are told to who wrote it.
    pub warnings: Vec<IndexedProblem>,
}

/// Checks the resources of a write against each other and against all there are.
pub fn validate_against(written: &[Resource], view: &dyn View) -> Findings {
    let mut findings = Findings {
        errors: same_key_twice(written),
        warnings: Vec::new(),
    };
    let hosts = hosts_of_all(view);
    for (index, resource) in written.iter().enumerate() {
        if let Some(spec) = resource.as_service() {
            service(index, resource, spec, &hosts, view, &mut findings);
            let retry = spec.retry.as_ref();
            let warnings = &mut findings.warnings;
            recovery::warn_about_grpc_codes(index, "spec.retry".into(), retry, warnings);
        } else if let Some(spec) = resource.as_route() {
            route(index, resource, spec, view, &mut findings.warnings);
            recovery::check_fallbacks(index, resource, spec, view, &mut findings);
            for (number, rule) in spec.rules.iter().enumerate() {
                let (field, retry) = (format!("spec.rules[{number}].retry"), rule.retry.as_ref());
                let warnings = &mut findings.warnings;
                recovery::warn_about_grpc_codes(index, field, retry, warnings);
            }
        } else if let Some(spec) = resource.as_rate_limit() {
            rate_limit(index, resource, spec, view, &mut findings.warnings);
        } else if let Some(spec) = resource.as_mesh()
            && let (Some(found), Some(ours)) = (&spec.trust_domain, view.trust_domain())
            && found != ours
        {
            let message = format!(
                "\"{found}\" is not the trust domain of this mesh; it is \"{ours}\", fixed when its CA was made"
            );
            findings
                .errors
                .push(IndexedProblem::new(index, "spec.trustDomain", message));
        }
    }
    findings
}

/// Hosts that mean a service without being listed in `spec.hosts`. Its bare name is one more, within its namespace.
pub fn implied_hosts(namespace: &str, name: &str) -> [String; 3] {
    [
        format!("{name}.{namespace}"),
        format!("{name}.{namespace}.svc"),
        format!("{name}.{namespace}.svc.cluster.local"),
    ]
}

fn same_key_twice(written: &[Resource]) -> Vec<IndexedProblem> {
    let mut first = BTreeMap::new();
    let mut problems = Vec::new();
    for (index, resource) in written.iter().enumerate() {
        let key = resource.key();
        if let Some(earlier) = first.get(&key) {
            let message = format!(
                "{key} is given twice, as the resources {} and {}; give it once",
                earlier + 1,
                index + 1
            );
            problems.push(IndexedProblem::new(index, "metadata.name", message));
        } else {
            first.insert(key, index);
        }
    }
    problems
}

/// For each host the services that it means.
type Hosts = BTreeMap<String, Vec<ResourceKey>>;

fn hosts_of_all(view: &dyn View) -> Hosts {
    let mut hosts = Hosts::new();
    for resource in view.services() {
        let key = resource.key();
        let listed = resource.as_service().map_or(&[][..], |spec| &spec.hosts);
        for host in listed
            .iter()
            .cloned()
            .chain(implied_hosts(&key.namespace, &key.name))
        {
            let owners = hosts.entry(host).or_default();
            if owners.last() != Some(&key) {
                owners.push(key.clone());
            }
        }
    }
    hosts
}

fn other_owner<'a>(hosts: &'a Hosts, host: &str, own: &ResourceKey) -> Option<&'a ResourceKey> {
    hosts.get(host)?.iter().find(|owner| *owner != own)
}

fn service(
    index: usize,
    resource: &Resource,
    spec: &ServiceSpec,
    hosts: &Hosts,
    view: &dyn View,
    findings: &mut Findings,
) {
    let own = resource.key();
    for (position, host) in spec.hosts.iter().enumerate() {
        if let Some(owner) = other_owner(hosts, host, &own) {
            let message = format!(
                "\"{host}\" already means {owner}; a host means one service, so remove it from one of the two"
            );
            findings.errors.push(IndexedProblem::new(
                index,
                format!("spec.hosts[{position}]"),
                message,
            ));
        }
    }
    for host in implied_hosts(&own.namespace, &own.name) {
        if !spec.hosts.contains(&host)
            && let Some(owner) = other_owner(hosts, &host, &own)
        {
            let message = format!(
                "the name makes \"{host}\" a host of this service, but {owner} claims it in spec.hosts; remove it there"
            );
            findings
                .errors
                .push(IndexedProblem::new(index, "metadata.name", message));
        }
    }
    if let Some(ours) = view.trust_domain() {
        for (position, id) in spec.identities.iter().enumerate() {
            let domain = id
                .trim_start_matches("spiffe://")
                .split('/')
                .next()
                .unwrap_or_default();
            if domain != ours {
                let message = format!(
                    "\"{id}\" is of another trust domain than this mesh's, \"{ours}\"; no sidecar here can have it"
                );
                findings.warnings.push(IndexedProblem::new(
                    index,
                    format!("spec.identities[{position}]"),
                    message,
                ));
            }
        }
    }
}

fn route(
    index: usize,
    resource: &Resource,
    spec: &RouteSpec,
    view: &dyn View,
    warnings: &mut Vec<IndexedProblem>,
) {
    let own_namespace = &resource.metadata.namespace;
    let mut parents = Vec::new();
    for (position, parent) in spec.parent_refs.iter().enumerate() {
        let field = format!("spec.parentRefs[{position}]");
        let key = ResourceKey::service(
            parent.namespace.as_ref().unwrap_or(own_namespace),
            &parent.name,
        );
        match view.service(&key) {
            None => warnings.push(IndexedProblem::new(
                index,
                field,
                format!("there is no {key}; the route does nothing until there is"),
            )),
            Some(service) => {
                if let Some(port) = parent.port {
                    warn_about_port(
                        index,
                        format!("{field}.port"),
                        port,
                        &key,
                        service,
                        warnings,
                    );
                }
                if service.inference.is_none() {
                    warn_about_models(index, &key, spec, warnings);
                }
                parents.push((key, service));
            }
        }
    }
    for (rule_index, rule) in spec.rules.iter().enumerate() {
        for (position, backend) in rule.backend_refs.iter().enumerate() {
            let field = format!("spec.rules[{rule_index}].backendRefs[{position}]");
            let lost = "its share of the requests fails until there is";
            warn_about_backend(index, field, backend, own_namespace, lost, view, warnings);
        }
        for (position, filter) in rule.filters.iter().enumerate() {
            if let Some(mirror) = &filter.request_mirror {
                let field = format!(
                    "spec.rules[{rule_index}].filters[{position}].requestMirror.backendRef"
                );
                let backend = mirror.backend_ref.as_backend();
                let lost = "copies of requests are lost until there is";
                warn_about_backend(index, field, &backend, own_namespace, lost, view, warnings);
            }
        }
    }
    // Where a parent is missing it may be the one with the host.
    if parents.len() == spec.parent_refs.len() {
        for (position, hostname) in spec.hostnames.iter().enumerate() {
            if !parents
                .iter()
                .any(|(key, service)| answers_to(key, service, hostname))
            {
                warnings.push(IndexedProblem::new(
                    index,
                    format!("spec.hostnames[{position}]"),
                    format!("\"{hostname}\" is no host of a parent of this route; no request can match it"),
                ));
            }
        }
    }
}

/// A sidecar reads what a request asks for only where the service says so.
fn warn_about_models(
    index: usize,
    key: &ResourceKey,
    spec: &RouteSpec,
    warnings: &mut Vec<IndexedProblem>,
) {
    for (rule_index, rule) in spec.rules.iter().enumerate() {
        if rule.continuation.is_some() {
            warnings.push(IndexedProblem::new(
                index,
                format!("spec.rules[{rule_index}].continuation"),
                format!("{key} has no spec.inference, so none of its streams can be continued; add inference: {{}} there"),
            ));
        }
        for (position, _) in rule
            .matches
            .iter()
            .enumerate()
            .filter(|(_, each)| each.model.is_some())
        {
            warnings.push(IndexedProblem::new(
                index,
                format!("spec.rules[{rule_index}].matches[{position}].model"),
                format!("{key} has no spec.inference, so its requests name no model that a rule could match; add inference: {{}} there"),
            ));
        }
    }
}

fn rate_limit(
    index: usize,
    resource: &Resource,
    spec: &RateLimitSpec,
    view: &dyn View,
    warnings: &mut Vec<IndexedProblem>,
) {
    for (position, target) in spec.target_refs.iter().enumerate() {
        let key = ResourceKey::service(&resource.metadata.namespace, &target.name);
        let message = match view.service(&key) {
            None => format!("there is no {key}; the limits do nothing until there is"),
            Some(service) if !service.ports.iter().any(|port| port.protocol.is_http()) => {
                format!("{key} has TCP ports only; the limits are for requests")
            }
            Some(service)
                if service.inference.is_none()
                    && spec.limits.iter().any(|limit| limit.tokens.is_some()) =>
            {
                format!(
                    "{key} has no spec.inference, so nothing is known of its tokens and limits of tokens do nothing; add inference: {{}} there"
                )
            }
            Some(_) => continue,
        };
        warnings.push(IndexedProblem::new(
            index,
            format!("spec.targetRefs[{position}]"),
            message,
        ));
    }
}

fn warn_about_backend(
    index: usize,
    field: String,
    backend: &BackendRef,
    own_namespace: &str,
    lost: &str,
    view: &dyn View,
    warnings: &mut Vec<IndexedProblem>,
) {
    let namespace = backend.namespace.as_deref().unwrap_or(own_namespace);
    let key = ResourceKey::service(namespace, &backend.name);
    match view.service(&key) {
        None => warnings.push(IndexedProblem::new(
            index,
            field,
            format!("there is no {key}; {lost}"),
        )),
        Some(service) => {
            if let Some(port) = backend.port {
                let field = format!("{field}.port");
                warn_about_port(index, field, port, &key, service, warnings);
            }
        }
    }
}

fn warn_about_port(
    index: usize,
    field: String,
    port: u16,
    key: &ResourceKey,
    service: &ServiceSpec,
    warnings: &mut Vec<IndexedProblem>,
) {
    let message = match service.port(port) {
        Some(found) if found.protocol.is_http() => return,
        Some(found) => {
            let protocol = match found.protocol {
                super::Protocol::Tls => "tls",
                _ => "tcp",
            };
            format!("port {port} of {key} has the protocol {protocol}; routes are for requests")
        }
        None => {
            let ports: Vec<String> = service
                .ports
                .iter()
                .map(|port| port.port.to_string())
                .collect();
            format!("{key} has no port {port}; it has {}", ports.join(", "))
        }
    };
    warnings.push(IndexedProblem::new(index, field, message));
}

/// Whether requests to `hostname`, exact or `*.suffix`, may reach the service.
fn answers_to(key: &ResourceKey, service: &ServiceSpec, hostname: &str) -> bool {
    let implied = implied_hosts(&key.namespace, &key.name);
    implied
        .iter()
        .map(String::as_str)
        .chain(service.hosts.iter().map(String::as_str))
        .chain([key.name.as_str()])
        .any(|host| overlaps(host, hostname))
}

fn overlaps(one: &str, other: &str) -> bool {
    let covers = |pattern: &str, host: &str| {
        pattern
            .strip_prefix('*')
            .is_some_and(|suffix| host.trim_start_matches('*').ends_with(suffix))
    };
    one == other || covers(one, other) || covers(other, one)
}

#[cfg(test)]
mod tests;
