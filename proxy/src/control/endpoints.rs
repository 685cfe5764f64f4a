//! The endpoints of one service, and the sets of them that rules need.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::convert::EndpointSpec;
use crate::balance::{Endpoint, EndpointKey, EndpointSet, Load, Settings};
use crate::resilience::health::Health;
use crate::resilience::outlier::{self, Outliers};
use crate::resilience::sweep;
use crate::telemetry::metrics::BalancingMetrics;

/// Port (`None`: whichever) and labels.
type Filter = (Option<u16>, BTreeMap<String, String>);

/// What endpoints were made from: equal versions mean equal endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Version {
    /// Of the `endpoints/…` resource. `None`: there is none.
    pub resource: Option<u64>,
    /// The snapshot's number where DNS or TLS may have changed them without a new resource; 0 where nothing else can.
    pub round: u64,
}

/// Endpoints and sets as of the last snapshot. Sets that are still right are handed out again.
#[derive(Debug)]
pub(super) struct ServiceEndpoints {
    version: Version,
    settings: Arc<Settings>,
    metrics: Arc<BalancingMetrics>,
    endpoints: Vec<Arc<Endpoint>>,
    sets: HashMap<Filter, Arc<EndpointSet>>,
    /// The endpoints' healths, each once.
    healths: Vec<Arc<Health>>,
    outliers: Arc<Outliers>,
    /// The sets before the last change: their tables may still be right.
    before: HashMap<Filter, Arc<EndpointSet>>,
}

impl ServiceEndpoints {
    pub(super) fn new(metrics: Arc<BalancingMetrics>) -> ServiceEndpoints {
        ServiceEndpoints {
            version: Version::default(),
            settings: Arc::default(),
            metrics,
            endpoints: Vec::new(),
            sets: HashMap::new(),
            before: HashMap::new(),
            healths: Vec::new(),
            outliers: Arc::default(),
        }
    }

    /// Takes over what is true now. Returns whether any set is another one than before.
    pub(super) fn update(
        &mut self,
        version: Version,
        specs: &[EndpointSpec],
        settings: &Arc<Settings>,
    ) -> bool {
        let mut changed = self.settings != *settings;
        self.settings = settings.clone();
        if self.version != version {
            // Where all are new none is newer than the others.
            let is_first = self.endpoints.is_empty();
            self.version = version;
            let before = std::mem::take(&mut self.endpoints);
            self.endpoints = carry_over(&before, specs, is_first, &self.outliers);
            changed |= before.len() != self.endpoints.len()
                || !before
                    .iter()
                    .zip(&self.endpoints)
                    .all(|(old, new)| Arc::ptr_eq(old, new));
        }
        // Sets that no rule needs any more.
        self.sets.retain(|_, set| Arc::strong_count(set) > 1);
        self.before.clear();
        if changed {
            let before = std::mem::take(&mut self.sets);
            if before.values().any(|set| set.table_len().is_some()) {
                self.before = before;
            }
        }
        changed
    }

    /// Takes over how outliers are found; after [`update`](Self::update). Counts and ejections go on.
    pub(super) fn watch(&mut self, policy: Option<&Arc<outlier::Policy>>) {
        let healths = sweep::members(&self.endpoints);
        let before = std::mem::replace(&mut self.healths, healths);
        self.outliers.update(policy, &before, &self.healths);
    }

    pub(super) fn outliers(&self) -> &Arc<Outliers> {
        &self.outliers
    }

    /// All endpoints.
    pub(super) fn all(&mut self) -> Arc<EndpointSet> {
        self.get((None, BTreeMap::new()))
    }

    /// No endpoint.
    pub(super) fn none(&self) -> Arc<EndpointSet> {
        Arc::new(self.made(Vec::new(), None))
    }

    /// Those that serve the port and carry the labels.
    pub(super) fn set(&mut self, port: u16, subset: &BTreeMap<String, String>) -> Arc<EndpointSet> {
        // Most services have one port, which every endpoint serves: no need for two sets with the same content.
        let by_port = !self.endpoints.iter().all(|endpoint| endpoint.serves(port));
        self.get((by_port.then_some(port), subset.clone()))
    }

    fn get(&mut self, filter: Filter) -> Arc<EndpointSet> {
        if let Some(set) = self.sets.get(&filter) {
            return set.clone();
        }
        let (port, subset) = &filter;
        let chosen = self
            .endpoints
            .iter()
            .filter(|endpoint| port.is_none_or(|port| endpoint.serves(port)))
            .filter(|endpoint| endpoint.carries(subset))
            .cloned()
            .collect();
        let before = self.before.get(&filter).map(|set| &**set);
        let set = Arc::new(self.made(chosen, before));
        self.sets.insert(filter, set.clone());
        set
    }

    fn made(&self, endpoints: Vec<Arc<Endpoint>>, before: Option<&EndpointSet>) -> EndpointSet {
        let (settings, metrics) = (self.settings.clone(), self.metrics.clone());
        EndpointSet::with(settings, endpoints, metrics, before)
    }
}

/// Endpoints for `specs`, the first ones of a service or later ones: the same object where nothing changed, the same load and
/// health where it is the same server.
fn carry_over(
    before: &[Arc<Endpoint>],
    specs: &[EndpointSpec],
    are_first: bool,
    outliers: &Arc<Outliers>,
) -> Vec<Arc<Endpoint>> {
    let mut known: HashMap<EndpointKey, Vec<&Arc<Endpoint>>> = HashMap::new();
    for endpoint in before {
        known.entry(endpoint.key()).or_default().push(endpoint);
    }
    let mut shared: HashMap<EndpointKey, (Arc<Load>, Arc<Health>)> = HashMap::new();
    let carried = specs.iter().map(|spec| {
        let key = spec.key();
        let same_server = known.get(&key).map(Vec::as_slice).unwrap_or_default();
        if let Some(same) = same_server.iter().find(|endpoint| is_same(endpoint, spec)) {
            return Arc::clone(same);
        }
        // One server may stand here several times, with other ports and weights: its load is one.
        let (load, health) = shared
            .entry(key)
            .or_insert_with(|| match same_server.first() {
                Some(endpoint) => (endpoint.load.clone(), endpoint.health.clone()),
                None if are_first => (Arc::default(), Arc::new(Health::of(outliers))),
                None => {
                    let health = Arc::new(Health::of(outliers));
                    (Arc::new(Load::of_newcomer()), health)
                }
            });
        Arc::new(Endpoint {
            address: spec.address,
            mtls: spec.mtls,
            identity: spec.identity.clone(),
            ports: spec.ports.clone(),
            labels: spec.labels.clone(),
            weight: spec.weight,
            zone: spec.zone.clone(),
            instance: spec.instance.clone(),
            outside: spec.outside.clone(),
            load: load.clone(),
            health: health.clone(),
        })
    });
    carried.collect()
}

fn is_same(endpoint: &Endpoint, spec: &EndpointSpec) -> bool {
    endpoint.address == spec.address
        && endpoint.mtls == spec.mtls
        && endpoint.identity == spec.identity
        && endpoint.ports == spec.ports
        && endpoint.labels == spec.labels
        && endpoint.weight == spec.weight
        && endpoint.zone == spec.zone
        && endpoint.instance == spec.instance
        && endpoint.outside == spec.outside
}
