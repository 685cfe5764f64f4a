//! Which services a route or a rate limit names, and the way back.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::model::{Resource, RouteSpec};

/// Names of services to names of routes.
#[derive(Debug, Default)]
pub(super) struct Index(HashMap<Arc<str>, BTreeSet<Arc<str>>>);

impl Index {
    pub(super) fn get(&self, service: &str) -> impl Iterator<Item = &Arc<str>> {
        self.0.get(service).into_iter().flatten()
    }

    pub(super) fn insert(&mut self, service: &Arc<str>, route: &Arc<str>) {
        self.0
            .entry(service.clone())
            .or_default()
            .insert(route.clone());
    }

    pub(super) fn remove(&mut self, service: &str, route: &str) {
        if let Some(routes) = self.0.get_mut(service) {
            routes.remove(route);
            if routes.is_empty() {
                self.0.remove(service);
            }
        }
    }
}

/// The services that a route is for, `<namespace>/<name>`.
pub fn parents(route: &Resource) -> BTreeSet<Arc<str>> {
    let namespace = &route.metadata.namespace;
    let qualified = |spec: &RouteSpec| {
        let parents = spec.parent_refs.iter().map(|parent| {
            let namespace = parent.namespace.as_ref().unwrap_or(namespace);
            format!("{namespace}/{}", parent.name).into()
        });
        parents.collect()
    };
    route.as_route().map(qualified).unwrap_or_default()
}

/// The services that a rate limit is for, `<namespace>/<name>`.
pub fn targets(rate_limit: &Resource) -> BTreeSet<Arc<str>> {
    let namespace = &rate_limit.metadata.namespace;
    let refs = rate_limit
        .as_rate_limit()
        .map(|spec| spec.target_refs.iter());
    refs.into_iter()
        .flatten()
        .map(|target| format!("{namespace}/{}", target.name).into())
        .collect()
}

pub(super) fn backends(route: &Resource) -> BTreeSet<Arc<str>> {
    let namespace = &route.metadata.namespace;
    let qualified = |spec: &RouteSpec| {
        let refs = spec.rules.iter().flat_map(|rule| rule.destinations());
        let backends = refs.map(|backend| {
            let namespace = backend.namespace.as_ref().unwrap_or(namespace);
            format!("{namespace}/{}", backend.name).into()
        });
        backends.collect()
    };
    route.as_route().map(qualified).unwrap_or_default()
}
