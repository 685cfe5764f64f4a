//! Fallbacks that lead nowhere new, and retries that never happen.
//!
//! A fallback goes straight to the backend that it names, without the routes of its service: a request can only come back to
//! where it failed through its own rule. So it is enough to look at each rule by itself.

use std::collections::BTreeSet;

use super::{IndexedProblem, ResourceKey, View, warn_about_port};
use crate::model::{
    BackendRef, Fallback, FallbackCause, GrpcCode, Labels, Resource, Retry, RouteRule, RouteSpec,
};

/// A place that requests go to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    service: ResourceKey,
    /// As it is in effect. `None`: the service does not exist yet.
    port: Option<u16>,
    subset: Labels,
}

impl Place {
    fn of(reference: &BackendRef, own_namespace: &str, view: &dyn View) -> Place {
        let namespace = reference.namespace.as_deref().unwrap_or(own_namespace);
        let service = ResourceKey::service(namespace, &reference.name);
        let default = || Some(view.service(&service)?.default_port()?.port);
        Place {
            port: reference.port.or_else(default),
            subset: reference.subset.clone(),
            service,
        }
    }

    fn describe(&self) -> String {
        let labels: Vec<String> = self
            .subset
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        if labels.is_empty() {
            self.service.to_string()
        } else {
            format!("{} where {}", self.service, labels.join(", "))
        }
    }
}

/// Checks the fallbacks of all rules of a route.
pub(super) fn check_fallbacks(
    index: usize,
    resource: &Resource,
    spec: &RouteSpec,
    view: &dyn View,
    findings: &mut super::Findings,
) {
    let own = resource.metadata.namespace.as_str();
    for (rule_index, rule) in spec.rules.iter().enumerate() {
        let field = |position: usize, rest: &str| {
            format!("spec.rules[{rule_index}].fallbacks[{position}]{rest}")
        };
        let from = places_of(rule, spec, own, view);
        let mut seen: Vec<(Place, usize)> = Vec::new();
        // Causes after which nothing further is tried.
        let mut answered: BTreeSet<FallbackCause> = BTreeSet::new();
        for (position, fallback) in rule.fallbacks.iter().enumerate() {
            let mut refuse = |rest: &str, message: String| {
                let problem = IndexedProblem::new(index, field(position, rest), message);
                findings.errors.push(problem);
            };
            if fallback.on().iter().all(|cause| answered.contains(cause)) {
                refuse(
                    "",
                    "is never reached: a directResponse before it answers all of its causes".into(),
                );
            }
            let Some(reference) = &fallback.backend_ref else {
                answered.extend(fallback.on());
                continue;
            };
            let place = Place::of(&reference.as_backend(), own, view);
            if from.len() == 1 && from.contains(&place) {
                refuse(
                    ".backendRef",
                    format!(
                        "leads back to {}, which is where the rule sends its requests; name another service or another subset",
                        place.describe()
                    ),
                );
            }
            if let Some((_, earlier)) = seen.iter().find(|(other, _)| *other == place) {
                refuse(
                    ".backendRef",
                    format!(
                        "leads to {} as {} does; give it once, with all of its causes",
                        place.describe(),
                        field(*earlier, "")
                    ),
                );
            }
            warn(
                index,
                field(position, ".backendRef"),
                fallback,
                &place,
                view,
                findings,
            );
            seen.push((place, position));
        }
    }
}

/// Where a rule sends its requests, weights of 0 left out.
fn places_of(
    rule: &RouteRule,
    spec: &RouteSpec,
    own_namespace: &str,
    view: &dyn View,
) -> BTreeSet<Place> {
    if !rule.backend_refs.is_empty() {
        let backends = rule.backend_refs.iter();
        return backends
            .filter(|backend| backend.weight() > 0)
            .map(|backend| Place::of(backend, own_namespace, view))
            .collect();
    }
    let parents = spec.parent_refs.iter().map(|parent| BackendRef {
        name: parent.name.clone(),
        namespace: parent.namespace.clone(),
        port: parent.port,
        weight: None,
        subset: Labels::new(),
    });
    parents
        .map(|parent| Place::of(&parent, own_namespace, view))
        .collect()
}

fn warn(
    index: usize,
    field: String,
    fallback: &Fallback,
    place: &Place,
    view: &dyn View,
    findings: &mut super::Findings,
) {
    let key = &place.service;
    let Some(service) = view.service(key) else {
        let message = format!("there is no {key}; the fallback fails until there is");
        let problem = IndexedProblem::new(index, field, message);
        return findings.warnings.push(problem);
    };
    let port = fallback.backend_ref.as_ref().and_then(|to| to.port);
    if let Some(port) = port {
        let field = format!("{field}.port");
        warn_about_port(index, field, port, key, service, &mut findings.warnings);
    }
}

/// A gRPC call is a POST: codes without that method are never used. Default codes are not worth a word.
pub(super) fn warn_about_grpc_codes(
    index: usize,
    field: String,
    retry: Option<&Retry>,
    warnings: &mut Vec<IndexedProblem>,
) {
    let Some(retry) = retry else { return };
    let codes: Option<&[GrpcCode]> = retry.grpc_codes.as_deref();
    let named = codes.is_some_and(|codes| !codes.is_empty());
    if named && !retry.methods().iter().any(|method| method == "POST") {
        warnings.push(IndexedProblem::new(
            index,
            format!("{field}.grpcCodes"),
            "has no effect: gRPC calls are POST requests, and POST is not among methods",
        ));
    }
}
