//! Fallbacks that lead nowhere new, and retries that never happen.
//!
//! A fallback goes straight to the backend that it names, without the routes of its service: a request can only come back to
//! where it failed through its own rule. So it is enough to look at each rule by itself.

use std::collections::BTreeSet;

use super::{IndexedProblem, ResourceKey, View, warn_about_port};
use crate::model::{
    BackendRef, Fallback, FallbackCause, GrpcCode, Labels, ModelMatchType, Resource, Retry,
    RouteRule, RouteSpec, UnknownModels,
};

/// A place that requests go to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    service: ResourceKey,
    /// As it is in effect. `None`: the service does not exist yet.
    port: Option<u16>,
    subset: Labels,
    /// By its name in the service's list, if it stands there. `None`: the one that a request names.
    model: Option<String>,
}

impl Place {
    fn of(
        reference: &BackendRef,
        model: Option<&str>,
        own_namespace: &str,
        view: &dyn View,
    ) -> Place {
        let namespace = reference.namespace.as_deref().unwrap_or(own_namespace);
        let service = ResourceKey::service(namespace, &reference.name);
        let default = || Some(view.service(&service)?.default_port()?.port);
        Place {
            port: reference.port.or_else(default),
            subset: reference.subset.clone(),
            model: None,
            service,
        }
        .with_model(model, view)
    }

    /// The same place, for this model.
    fn with_model(&self, model: Option<&str>, view: &dyn View) -> Place {
        let spec = view.service(&self.service);
        let inference = spec.and_then(|spec| spec.inference.as_ref());
        let name = |model| {
            let listed = inference.and_then(|inference| inference.exact_model(model));
            listed.map_or(model, |listed| &listed.name).to_owned()
        };
        Place {
            model: model.map(name),
            ..self.clone()
        }
    }

    fn describe(&self) -> String {
        let labels: Vec<String> = self
            .subset
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let mut text = self.service.to_string();
        if !labels.is_empty() {
            text += &format!(" where {}", labels.join(", "));
        }
        if let Some(model) = &self.model {
            text += &format!(" with model {model}");
        }
        text
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
        let rule_model = model_of(rule);
        let from = places_of(rule, spec, rule_model, own, view);
        let backends = rule.backend_refs.iter();
        let backends = backends.filter(|backend| backend.weight() > 0).count();
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
            if fallback.direct_response.is_some() {
                answered.extend(fallback.on());
                continue;
            }
            let model = fallback.model.as_deref();
            let (place, named) = match &fallback.backend_ref {
                Some(reference) => {
                    let model = model.or(rule_model);
                    let place = Place::of(&reference.as_backend(), model, own, view);
                    (place, ".backendRef")
                }
                None if backends > 1 => {
                    let message = "the rule has several backendRefs; say with backendRef which of them is to be asked";
                    refuse(".model", message.into());
                    continue;
                }
                None => match from.iter().next() {
                    Some(from) => (from.with_model(model, view), ".model"),
                    None => continue,
                },
            };
            if from.len() == 1 && from.contains(&place) {
                refuse(
                    named,
                    format!(
                        "leads back to {}, which is where the rule sends its requests; name another service, another subset or another model",
                        place.describe()
                    ),
                );
            }
            if let Some((_, earlier)) = seen.iter().find(|(other, _)| *other == place) {
                refuse(
                    named,
                    format!(
                        "leads to {} as {} does; give it once, with all of its causes",
                        place.describe(),
                        field(*earlier, "")
                    ),
                );
            }
            if fallback.backend_ref.is_some() {
                let field = field(position, named);
                warn(index, field, fallback, &place, view, findings);
            }
            if model.is_some() {
                let field = field(position, ".model");
                let warnings = &mut findings.warnings;
                warn_about_model(index, field, &place, (spec, own), view, warnings);
            }
            seen.push((place, position));
        }
    }
}

/// The model that all requests of a rule name. `None`: several, or nobody knows.
fn model_of(rule: &RouteRule) -> Option<&str> {
    let mut models = rule.matches.iter().map(|found| {
        let model = found.model.as_ref()?;
        (model.match_type() == ModelMatchType::Exact).then_some(model.value.as_str())
    });
    let first = models.next()??;
    models.all(|model| model == Some(first)).then_some(first)
}

/// Where a rule sends its requests, weights of 0 left out.
fn places_of(
    rule: &RouteRule,
    spec: &RouteSpec,
    model: Option<&str>,
    own_namespace: &str,
    view: &dyn View,
) -> BTreeSet<Place> {
    if !rule.backend_refs.is_empty() {
        let backends = rule.backend_refs.iter();
        return backends
            .filter(|backend| backend.weight() > 0)
            .map(|backend| Place::of(backend, model, own_namespace, view))
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
        .map(|parent| Place::of(&parent, model, own_namespace, view))
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

/// A model in place of another one: requests must be read for it, and the service must know it.
fn warn_about_model(
    index: usize,
    field: String,
    place: &Place,
    (spec, own_namespace): (&RouteSpec, &str),
    view: &dyn View,
    warnings: &mut Vec<IndexedProblem>,
) {
    for parent in &spec.parent_refs {
        let namespace = parent.namespace.as_deref().unwrap_or(own_namespace);
        let key = ResourceKey::service(namespace, &parent.name);
        if view.service(&key).is_some_and(|it| it.inference.is_none()) {
            let message = format!(
                "{key} has no spec.inference, so the model that its requests name cannot be replaced; add inference: {{}} there"
            );
            warnings.push(IndexedProblem::new(index, field.clone(), message));
        }
    }
    let service = view.service(&place.service);
    let inference = service.and_then(|service| service.inference.as_ref());
    let (Some(inference), Some(model)) = (inference, &place.model) else {
        return;
    };
    let mut aliases = inference.models.iter().flat_map(|model| &model.aliases);
    let may_know = inference.unknown_models() == UnknownModels::Pass
        || inference.exact_model(model).is_some()
        || aliases.any(|alias| alias.contains('*'));
    if !may_know {
        let names: Vec<_> = inference.models.iter().map(|it| it.name.as_str()).collect();
        let message = format!(
            "{} refuses models that it does not list; it has {}",
            place.service,
            names.join(", ")
        );
        warnings.push(IndexedProblem::new(index, field, message));
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
