//! Services as something that requests go to: their endpoints, and what connections to them need.

use std::sync::Arc;
use std::time::Duration;

use super::Builder;
use crate::balance::Settings;
use crate::control::convert::{EndpointsSpec, RuleSpec, ServiceSpec, Spec, server_name};
use crate::control::endpoints::ServiceEndpoints;
use crate::control::located::locate;
use crate::control::resources::Resources;
use crate::policy::health::{Check, ServiceHealth};
use crate::policy::{Service, Upstream};
use crate::tls::OriginTls;

/// A service as something that requests go to.
#[derive(Debug)]
pub(super) struct Destination {
    /// `None`: it does not exist, and some rule names it.
    pub(super) spec: Option<Arc<ServiceSpec>>,
    pub(super) endpoints: ServiceEndpoints,
    pub(super) upstream: Arc<Upstream>,
    /// The same object for as long as the settings are the same: connections belong to it.
    tls: Option<Arc<OriginTls>>,
}

impl Builder {
    /// All services that rules can name, with their endpoints.
    pub(super) fn build_destinations(&mut self, resources: &Resources) {
        let mut before = std::mem::take(&mut self.destinations);
        for held in resources.held.values() {
            let Spec::Service(service) = &held.spec else {
                continue;
            };
            let others = service.rules.iter().flat_map(RuleSpec::destinations);
            let names = others
                .map(|backend| &backend.service)
                .chain([&service.name]);
            for name in names {
                if !self.destinations.contains_key(name) {
                    let made = self.destination(resources, name, before.remove(name));
                    self.destinations.insert(name.clone(), made);
                }
            }
        }
    }

    fn destination(
        &mut self,
        resources: &Resources,
        name: &Arc<str>,
        before: Option<Destination>,
    ) -> Destination {
        let Some(spec) = resources.service(name) else {
            // Also keeps an empty destination the same object, so that what names it is kept, too.
            return match before {
                Some(before) if before.spec.is_none() => before,
                _ => Destination {
                    spec: None,
                    endpoints: ServiceEndpoints::new(self.metrics.balancing(name)),
                    upstream: Arc::new(nowhere(name)),
                    tls: None,
                },
            };
        };
        self.known_destination(spec, resources.endpoints(name), before)
    }

    pub(super) fn known_destination(
        &mut self,
        spec: &Arc<ServiceSpec>,
        held: Option<(u64, &EndpointsSpec)>,
        before: Option<Destination>,
    ) -> Destination {
        let (old_spec, mut endpoints, old_upstream, old_tls) = match before {
            Some(before) => (
                before.spec,
                before.endpoints,
                Some(before.upstream),
                before.tls,
            ),
            None => {
                let metrics = self.metrics.balancing(&spec.name);
                (None, ServiceEndpoints::new(metrics), None, None)
            }
        };
        let tls = match (old_tls, &spec.tls) {
            (Some(old), Some(new)) if old.settings == new.settings => Some(old),
            (_, new) => new.clone(),
        };
        let located = locate(spec, tls.as_ref(), held, &mut self.names, self.round);
        let changed = endpoints.update(
            located.version,
            &located.endpoints,
            &self.settings(&spec.balancing),
        );
        endpoints.watch(spec.outlier_detection.as_ref());
        let same_spec = old_spec.as_ref().is_some_and(|old| Arc::ptr_eq(old, spec));
        let same_names = |old: &Upstream| {
            let same = |(one, other)| Arc::ptr_eq(one, other);
            old.has_loop == located.has_loop
                && old.names.len() == located.names.len()
                && old.names.iter().zip(&located.names).all(same)
        };
        let limits = spec.limits.as_ref();
        for endpoint in endpoints.all().endpoints() {
            let load = &endpoint.load;
            load.set_most_in_flight(limits.and_then(|limits| limits.endpoint_requests));
            load.set_most_connections(limits.and_then(|limits| limits.endpoint_connections));
        }
        let upstream = match old_upstream {
            Some(upstream) if same_spec && !changed && same_names(&upstream) => upstream,
            _ => Arc::new(Upstream {
                service: spec.name.clone(),
                ports: spec.ports.clone(),
                identities: spec.identities.clone(),
                connect_timeout: spec.connect_timeout,
                pool: Arc::clone(&spec.pool),
                endpoints: endpoints.all(),
                names: located.names,
                tls: tls.clone(),
                has_loop: located.has_loop,
                health: ServiceHealth {
                    outliers: endpoints.outliers().clone(),
                    checks: checks(spec, &self.trust_domain),
                },
                limits: self.admission.breaker(&spec.name, limits, &self.metrics),
                inference: spec.inference.clone(),
            }),
        };
        Destination {
            spec: Some(spec.clone()),
            endpoints,
            upstream,
            tls,
        }
    }

    /// Whether everything that a service leads to is as it was.
    pub(super) fn is_current(&self, service: &Service) -> bool {
        let is_current = |upstream: &Arc<Upstream>| {
            self.destinations
                .get(&upstream.service)
                .is_some_and(|now| Arc::ptr_eq(&now.upstream, upstream))
        };
        is_current(&service.upstream)
            && service
                .rules
                .iter()
                .flat_map(|rule| rule.destinations())
                .all(|backend| is_current(&backend.upstream))
    }

    /// With the zone of this sidecar in it.
    fn settings(&self, of_service: &Arc<Settings>) -> Arc<Settings> {
        let mut settings = of_service.clone();
        if settings.zone.is_some()
            && let Some(zone) = &mut Arc::make_mut(&mut settings).zone
        {
            zone.own = self.zone.clone();
        }
        settings
    }
}

/// A destination that does not exist.
pub(super) fn nowhere(name: &Arc<str>) -> Upstream {
    Upstream {
        service: name.clone(),
        ports: Vec::new(),
        identities: Vec::new(),
        connect_timeout: Duration::from_secs(1),
        pool: Arc::default(),
        endpoints: ServiceEndpoints::new(Arc::default()).all(),
        names: Box::default(),
        tls: None,
        has_loop: false,
        health: ServiceHealth::default(),
        limits: None,
        inference: None,
    }
}

fn checks(spec: &ServiceSpec, trust_domain: &str) -> Arc<[Check]> {
    let checks = spec.health_checks.iter().filter_map(|check| {
        Some(Check {
            what: check.clone(),
            protocol: spec
                .ports
                .iter()
                .find(|port| port.port == check.port)?
                .protocol,
            server_name: server_name(&spec.name, check.port, trust_domain)?,
        })
    });
    checks.collect()
}
