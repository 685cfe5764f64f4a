//! Second phase of a change: from checked resources to the one [`Snapshot`] that requests see. It cannot fail.
//!
//! What lives longer than a snapshot is found again here: an endpoint that stays keeps its load, a set whose endpoints and
//! policy are the same keeps its place in the round, a service keeps its retry budget, and a service of which nothing
//! changed is the same object in the next snapshot.

mod destination;
mod passthrough;
mod recovery;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::admission::Admission;
use super::convert::{
    BackendSpec, FilterSpec, InboundSpec, RuleSpec, ServiceSpec, Spec, server_name, sni,
};
use super::endpoints::ServiceEndpoints;
use super::resources::Resources;
use crate::address::Address;
use crate::balance::EndpointSet;
use crate::dns::Names;
use crate::inference::engine::Signals;
use crate::listener::proxy_protocol;
use crate::policy::filters::{Filter, Mirror};
use crate::policy::{
    Backend, Filters, HostEntry, InboundPort, Inference, MeshPolicy, Protocol, Rule, Service,
    Session, Snapshot, Turns,
};
use crate::resilience::RetryBudget;
use crate::telemetry::Direction;
use crate::telemetry::metrics::Metrics;
use destination::{Destination, nowhere};
use passthrough::PassThrough;

/// How long a copy of a request may take where the route has no time for requests: as long as a long answer of a model.
const MIRROR_LIMIT: Duration = Duration::from_secs(300);

/// Applications by service (`<namespace>/<name>`) and port.
pub(super) type Applications = BTreeMap<(Arc<str>, u16), Application>;

/// Where an application is, and what its connections begin with.
#[derive(Clone, Debug)]
pub(super) struct Application {
    pub(super) address: Address,
    pub(super) proxy_protocol: Option<proxy_protocol::Version>,
}

/// Makes one snapshot after the other.
#[derive(Debug)]
pub(super) struct Builder {
    trust_domain: Arc<str>,
    /// This sidecar's; empty: none.
    zone: Arc<str>,
    applications: Applications,
    metrics: Arc<Metrics>,
    destinations: HashMap<Arc<str>, Destination>,
    services: HashMap<Arc<str>, (Arc<ServiceSpec>, Arc<Service>)>,
    budgets: HashMap<(Arc<str>, u32, u32), Arc<RetryBudget>>,
    names: Names,
    pass_through: PassThrough,
    /// New services of which a DNS name has no first answer yet: requests wait for it as they wait for the control plane.
    waiting: HashSet<Arc<str>>,
    /// Snapshots so far.
    round: u64,
    admission: Admission,
    signals: HashMap<(Arc<str>, u16), Arc<Signals>>,
}

impl Builder {
    pub(super) fn new(
        trust_domain: &str,
        zone: Arc<str>,
        applications: Applications,
        metrics: Arc<Metrics>,
        names: Names,
    ) -> Builder {
        Builder {
            trust_domain: trust_domain.into(),
            zone,
            applications,
            metrics,
            destinations: HashMap::new(),
            services: HashMap::new(),
            budgets: HashMap::new(),
            names,
            pass_through: PassThrough::default(),
            waiting: HashSet::new(),
            round: 0,
            admission: Admission::default(),
            signals: HashMap::new(),
        }
    }

    /// Where budgets of tokens ask for leases.
    pub(super) fn budgets(&self) -> Arc<crate::admission::tokens::Hub> {
        self.admission.hub().clone()
    }

    /// The snapshot for what is held now.
    pub(super) fn build(&mut self, resources: &Resources) -> Snapshot {
        self.round += 1;
        self.names.begin();
        self.build_destinations(resources);
        self.build_services(resources);

        let mut snapshot = Snapshot {
            version: resources.version,
            mesh: MeshPolicy::default(),
            hosts: HashMap::with_capacity(resources.held.len()),
            services: HashMap::with_capacity(self.services.len()),
            ..Snapshot::default()
        };
        for (name, (_, service)) in &self.services {
            if !self.waiting.contains(name) {
                snapshot.services.insert(name.clone(), service.clone());
            }
        }
        for (name, held) in &resources.held {
            match &held.spec {
                Spec::Mesh(mesh) => snapshot.mesh = mesh.clone(),
                Spec::Workload(ports) => {
                    for port in ports {
                        let key = (port.service.clone(), port.port);
                        // The control plane may speak of a port that this sidecar no longer serves.
                        let Some(application) = self.applications.get(&key) else {
                            continue;
                        };
                        let inbound = InboundPort {
                            service: port.service.clone(),
                            port: port.port,
                            protocol: port.protocol,
                            application: application.address.clone(),
                            proxy_protocol: application.proxy_protocol,
                            stream_idle_timeout: port.stream_idle_timeout,
                            tcp: port.tcp,
                            detection: port.detection,
                            pool: Arc::clone(&port.pool),
                            gate: self.admission.gate(port, &self.metrics),
                            rate_limits: self.admission.rate_limits(port, &self.metrics),
                            inference: port.inference.clone(),
                            signals: self.signals(port),
                        };
                        let sni = sni(&port.service, port.port, &self.trust_domain);
                        snapshot.inbound.insert(sni.into(), Arc::new(inbound));
                    }
                }
                Spec::Host(host) => match snapshot.services.get(&host.service) {
                    Some(service) => {
                        let authority = name.strip_prefix("host/").unwrap_or(name);
                        let entry = HostEntry::Service {
                            service: service.clone(),
                            port: host.port,
                        };
                        snapshot.hosts.insert(authority.into(), entry);
                    }
                    None if self.waiting.contains(&host.service) => {}
                    None => {
                        snapshot.unusable.insert(name.as_str().into());
                    }
                },
                Spec::Service(_) | Spec::Endpoints(_) => {}
            }
        }
        self.pass_through.begin();
        for name in &resources.absent {
            match name.strip_prefix("host/") {
                Some(authority) => {
                    if let Some(entry) = self.absent(authority, snapshot.mesh.pass_through) {
                        snapshot.hosts.insert(authority.into(), entry);
                    }
                }
                None => {
                    snapshot.unusable.insert(name.as_str().into());
                }
            }
        }
        for name in &resources.refused {
            if !resources.held.contains_key(name) {
                snapshot.unusable.insert(name.as_str().into());
            }
        }
        snapshot.names = self.names.end();
        self.admission.prune();
        self.signals
            .retain(|_, signals| Arc::strong_count(signals) > 1);
        snapshot
    }

    /// What is known of the model server behind a port: as of the last snapshot.
    fn signals(&mut self, port: &InboundSpec) -> Option<Arc<Signals>> {
        let inference = port.inference.as_ref()?;
        let key = (port.service.clone(), port.port);
        let lifetime = inference.engine.as_ref().map(|engine| engine.interval);
        let signals = self.signals.entry(key).or_default();
        signals.set_interval(lifetime.unwrap_or_default());
        Some(signals.clone())
    }

    /// What a host means that the control plane does not know. `None`: that is not clear yet.
    fn absent(&mut self, authority: &str, pass_through: bool) -> Option<HostEntry> {
        match pass_through {
            true => self.pass_through(authority),
            false => Some(HostEntry::Absent),
        }
    }

    fn build_services(&mut self, resources: &Resources) {
        let before = std::mem::take(&mut self.services);
        let budgets_before = std::mem::take(&mut self.budgets);
        self.waiting
            .retain(|name| resources.service(name).is_some());
        for held in resources.held.values() {
            let Spec::Service(spec) = &held.spec else {
                continue;
            };
            for rule in &spec.rules {
                let key = budget_key(spec, rule);
                let (percent, minimum) = rule.budget;
                let kept = budgets_before.get(&key).cloned();
                self.budgets.entry(key).or_insert_with(|| {
                    kept.unwrap_or_else(|| Arc::new(RetryBudget::new(percent, minimum)))
                });
            }
            let kept = before
                .get(&spec.name)
                .filter(|(old, service)| Arc::ptr_eq(old, spec) && self.is_current(service))
                .map(|(_, service)| service.clone());
            let service = kept.unwrap_or_else(|| {
                let old = before.get(&spec.name).map(|(_, service)| &**service);
                Arc::new(self.service(spec, old))
            });
            let is_new = !before.contains_key(&spec.name) || self.waiting.contains(&spec.name);
            if is_new && is_pending(&service) {
                self.waiting.insert(spec.name.clone());
            } else {
                self.waiting.remove(&spec.name);
            }
            self.services
                .insert(spec.name.clone(), (spec.clone(), service));
        }
    }

    fn service(&mut self, spec: &ServiceSpec, before: Option<&Service>) -> Service {
        let old_rules = before.map_or(&[][..], |service| &service.rules);
        let rules = spec.rules.iter().enumerate().map(|(index, rule)| {
            // Rules have no names: the one in the same place is most likely the same, and any other does no harm.
            let turns = old_rules.get(index).map(|old| Arc::clone(&old.turns));
            Arc::new(self.rule(spec, rule, turns.unwrap_or_default()))
        });
        let rules = rules.collect();
        Service {
            name: spec.name.clone(),
            ports: spec.ports.clone(),
            rules,
            // Every held service is a destination.
            upstream: match self.destinations.get(&spec.name) {
                Some(destination) => destination.upstream.clone(),
                None => Arc::new(nowhere(&spec.name)),
            },
            tcp: spec.tcp,
        }
    }

    fn rule(&mut self, service: &ServiceSpec, rule: &RuleSpec, turns: Arc<Turns>) -> Rule {
        let (percent, minimum) = rule.budget;
        let backends = rule.backends.iter();
        let backends: Vec<Backend> = backends
            .filter_map(|backend| self.backend(service, rule, backend))
            .collect();
        let session = rule.session.clone().map(|settings| {
            let metrics = self.metrics.balancing(&service.name);
            Box::new(Session::new(settings, &backends, metrics))
        });
        Rule {
            session,
            route: rule.route.clone(),
            matches: rule.matches.clone(),
            backends,
            total_weight: rule.total_weight,
            turns,
            timeouts: rule.timeouts.clone(),
            retry: rule.retry.clone(),
            budget: self
                .budgets
                .entry(budget_key(service, rule))
                .or_insert_with(|| Arc::new(RetryBudget::new(percent, minimum)))
                .clone(),
            recovery: self.recovery(service, rule),
            filters: self.filters(service, rule),
        }
    }

    fn filters(&mut self, service: &ServiceSpec, rule: &RuleSpec) -> Option<Box<Filters>> {
        if rule.filters.is_empty() {
            return None;
        }
        let step = |spec: &FilterSpec| match spec {
            FilterSpec::Ready(filter) => Some(filter.clone()),
            FilterSpec::Mirror(backend, share) => {
                let name = &backend.service;
                Some(Filter::Mirror(Arc::new(Mirror {
                    backend: self.backend(service, rule, backend)?,
                    share: *share,
                    limit: rule.timeouts.request.unwrap_or(MIRROR_LIMIT),
                    metrics: self.metrics.mirror(&service.name, &rule.route, name),
                })))
            }
        };
        Some(Box::new(Filters {
            steps: rule.filters.iter().filter_map(step).collect(),
            metrics: self.metrics.filters(&service.name, &rule.route),
        }))
    }

    pub(super) fn backend(
        &mut self,
        parent: &ServiceSpec,
        rule: &RuleSpec,
        backend: &BackendSpec,
    ) -> Option<Backend> {
        let destination = self.destinations.get_mut(&backend.service)?;
        let upstream = destination.upstream.clone();
        let protocol = upstream
            .ports
            .iter()
            .find(|port| port.port == backend.port)
            .map(|port| port.protocol);
        // A service or a port that does not exist has no endpoints, whatever its labels.
        let endpoints = match protocol {
            Some(_) => destination.endpoints.set(backend.port, &backend.subset),
            None => destination.endpoints.none(),
        };
        let model_endpoints = match &upstream.inference {
            Some(inference) if protocol.is_some() => {
                model_endpoints(&mut destination.endpoints, backend, inference)
            }
            _ => Box::default(),
        };
        Some(Backend {
            model_endpoints,
            port: backend.port,
            protocol: protocol.unwrap_or(Protocol::Http),
            weight: backend.weight,
            endpoints,
            server_name: server_name(&backend.service, backend.port, &self.trust_domain)?,
            metrics: self.metrics.request(
                Direction::Outbound,
                &parent.name,
                &rule.route,
                &backend.service,
            ),
            upstream,
        })
    }
}

/// For each model the endpoints of the backend that serve it; empty where all serve all.
fn model_endpoints(
    endpoints: &mut ServiceEndpoints,
    backend: &BackendSpec,
    inference: &Inference,
) -> Box<[Arc<EndpointSet>]> {
    if inference.models.iter().all(|model| model.subset.is_empty()) {
        return Box::default();
    }
    let models = inference.models.iter().map(|model| {
        let contradicts = |(label, value): (&String, &String)| {
            backend
                .subset
                .get(label)
                .is_some_and(|wanted| wanted != value)
        };
        if model.subset.iter().any(contradicts) {
            // No endpoint has two values of one label.
            return endpoints.none();
        }
        let mut subset = backend.subset.clone();
        subset.extend(model.subset.clone());
        endpoints.set(backend.port, &subset)
    });
    models.collect()
}

fn budget_key(service: &ServiceSpec, rule: &RuleSpec) -> (Arc<str>, u32, u32) {
    (service.name.clone(), rule.budget.0, rule.budget.1)
}

/// Whether a request would have to wait for a name's first answer.
fn is_pending(service: &Service) -> bool {
    let backends = service.rules.iter().flat_map(|rule| &rule.backends);
    backends
        .map(|backend| &backend.upstream)
        .chain([&service.upstream])
        .flat_map(|upstream| &upstream.names)
        .any(|name| name.is_pending())
}

#[cfg(test)]
mod tests;
