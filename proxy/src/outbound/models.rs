//! The list of models, answered from what the configuration says is served.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use serde_json::json;

use super::route::Route;
use crate::http::arrival::Arrived;
use crate::inference::Api;
use crate::policy::{ModelMatch, Rule, Service};

/// The answer to `GET /v1/models`, where the service has the sidecar give it: the models of the service and of its rules'
/// backends that have an endpoint, and those that rules are for by name. `None`: the request is another one.
pub(super) fn list(route: &Route, arrived: &Arrived) -> Option<Response<Bytes>> {
    let request = arrived.model.as_ref()?;
    let inference = route.service.upstream.inference.as_ref()?;
    if request.api != Api::ListModels || !inference.answer_model_list {
        return None;
    }
    let models = models(&route.service);
    let data: Vec<_> = models
        .iter()
        .map(|(id, owner)| json!({ "id": id, "object": "model", "created": 0, "owned_by": owner }))
        .collect();
    let body = json!({ "object": "list", "data": data }).to_string();
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, body.len().into());
    Some(response.map(|_| body.into()))
}

/// With the service that serves each; the first one, where there are several.
fn models(service: &Service) -> BTreeMap<&str, &str> {
    let mut models = BTreeMap::new();
    for rule in &service.rules {
        for backend in &rule.backends {
            let upstream = &backend.upstream;
            let listed = upstream.inference.iter().flat_map(|it| &it.models);
            for (index, model) in listed.enumerate() {
                let endpoints = backend.model_endpoints.get(index);
                if !endpoints.unwrap_or(&backend.endpoints).is_empty() {
                    models.entry(&*model.name).or_insert(&*upstream.service);
                }
            }
            if !backend.endpoints.is_empty() {
                for name in named(rule) {
                    models.entry(name).or_insert(&*upstream.service);
                }
            }
        }
    }
    models
}

fn named(rule: &Rule) -> impl Iterator<Item = &str> {
    rule.matches.iter().filter_map(|each| match &each.model {
        Some(ModelMatch::Exact(name)) => Some(&**name),
        _ => None,
    })
}
