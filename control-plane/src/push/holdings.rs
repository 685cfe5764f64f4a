//! What one sidecar wants and what it holds; the difference is what it is sent.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use outrigger_proto::dataplane::v1::Host;

use crate::compile::{Changed, Compiled, ServiceState, Shared};

/// A delta is cut off after so many bytes, and the rest follows when it is acknowledged: gRPC clients take messages of
/// 4 MiB by default.
const MAX_DELTA: usize = 2 * 1024 * 1024;

/// The wishes and holdings of one sidecar.
#[derive(Debug)]
pub(super) struct Holdings {
    /// Hosts are looked up from here.
    namespace: String,
    /// What it named.
    subscribed: BTreeSet<Arc<str>>,
    /// What it has, or is on its way.
    held: HashMap<Arc<str>, Held>,
    /// Host resources made last time; most are the same the next time.
    hosts: HashMap<Arc<str>, (Host, Arc<Shared>)>,
    /// Services that what was wanted last depends on, whether they exist or not.
    services: HashSet<Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Version(u64),
    /// It was told that there is no such resource.
    Missing,
}

/// What is to be sent.
#[derive(Debug, Default)]
pub(super) struct Difference {
    pub resources: Vec<Arc<Shared>>,
    pub removed: Vec<Arc<str>>,
}

/// In the order in which they are sent where a delta is cut off: what is named by others first.
type Wanted = BTreeMap<(Order, Arc<str>), Option<Arc<Shared>>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    Mesh,
    Workload,
    Endpoints,
    Service,
    Host,
    Unknown,
}

impl Holdings {
    /// A sidecar that holds `held` from an earlier stream; the names count as subscribed.
    pub fn new(namespace: &str, held: HashMap<String, u64>) -> Holdings {
        let held: HashMap<Arc<str>, Held> = held
            .into_iter()
            .map(|(name, version)| (name.into(), Held::Version(version)))
            .collect();
        Holdings {
            namespace: namespace.to_owned(),
            subscribed: held.keys().cloned().collect(),
            held,
            hosts: HashMap::new(),
            services: HashSet::new(),
        }
    }

    /// Adds wishes.
    pub fn subscribe(&mut self, names: Vec<String>) {
        self.subscribed.extend(names.into_iter().map(Arc::from));
    }

    /// Takes wishes back. The sidecar has dropped these itself: they are not sent as removed, and sent again in whole
    /// when they are asked for again.
    pub fn unsubscribe(&mut self, names: &[String]) {
        for name in names {
            if self.subscribed.remove(name.as_str()) {
                self.held.remove(name.as_str());
                self.hosts.remove(name.as_str());
            }
        }
    }

    /// How many names are subscribed to.
    pub fn subscriptions(&self) -> usize {
        self.subscribed.len()
    }

    /// The names that are subscribed to.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.subscribed.iter()
    }

    /// Whether a change can make a difference to what is wanted, as of the last [`Holdings::difference`].
    pub fn is_concerned(&self, changed: &Changed) -> bool {
        let has_hosts = || self.subscribed.iter().any(|name| name.starts_with("host/"));
        changed.mesh
            || changed
                .services
                .iter()
                .any(|name| self.services.contains(name))
            || (changed.hosts && has_hosts())
    }

    /// What the sidecar lacks of `state`, and notes it as sent. None: nothing.
    pub fn difference(&mut self, state: &Compiled, workload: &Arc<Shared>) -> Option<Difference> {
        let wanted = self.wanted(state, workload);
        let mut difference = Difference::default();
        let mut bytes = 0;
        for ((_, name), resource) in &wanted {
            let now = match resource {
                Some(resource) => Held::Version(resource.version),
                None => Held::Missing,
            };
            if self.held.get(name) == Some(&now) {
                continue;
            }
            bytes += name.len() + resource.as_ref().map_or(0, |it| it.encoded.len());
            if bytes > MAX_DELTA && bytes > name.len() && !difference.is_empty() {
                return Some(difference);
            }
            self.held.insert(name.clone(), now);
            match resource {
                Some(resource) => difference.resources.push(resource.clone()),
                None => difference.removed.push(name.clone()),
            }
        }
        let wanted: BTreeSet<&str> = wanted.keys().map(|(_, name)| &**name).collect();
        self.held.retain(|name, held| {
            let keep = wanted.contains(&**name);
            if !keep && matches!(held, Held::Version(_)) {
                difference.removed.push(name.clone());
            }
            keep
        });
        (!difference.is_empty()).then_some(difference)
    }

    /// All that the sidecar should hold, with what it brings along. None: subscribed to, and does not exist.
    fn wanted(&mut self, state: &Compiled, workload: &Arc<Shared>) -> Wanted {
        let mut wanted = Wanted::new();
        let services = &mut self.services;
        services.clear();
        let mesh = &state.mesh;
        wanted.insert((Order::Mesh, mesh.name.clone()), Some(mesh.clone()));
        wanted.insert(
            (Order::Workload, workload.name.clone()),
            Some(workload.clone()),
        );
        for name in &self.subscribed {
            match name.split_once('/') {
                Some(("host", authority)) => {
                    let cached = self.hosts.get(name);
                    let host = match state.resolve(authority, &self.namespace) {
                        Some(host) => host,
                        None => {
                            wanted.insert((Order::Host, name.clone()), None);
                            continue;
                        }
                    };
                    add_service(&mut wanted, services, state, &host.service);
                    let resource = match cached {
                        Some((same, resource)) if *same == host => resource.clone(),
                        _ => {
                            let resource = Arc::new(Shared::host(name.clone(), host.clone()));
                            self.hosts.insert(name.clone(), (host, resource.clone()));
                            resource
                        }
                    };
                    wanted.insert((Order::Host, name.clone()), Some(resource));
                }
                Some(("service", service)) => {
                    if !add_service(&mut wanted, services, state, service) {
                        wanted.insert((Order::Service, name.clone()), None);
                    }
                }
                Some(("endpoints", service)) => {
                    services.insert(service.into());
                    let endpoints = state.service(service).map(|it| it.endpoints.clone());
                    wanted.insert((Order::Endpoints, name.clone()), endpoints);
                }
                _ if matches!(&**name, "mesh" | "workload") => {}
                _ => drop(wanted.insert((Order::Unknown, name.clone()), None)),
            }
        }
        wanted
    }
}

/// Adds a service with its endpoints, and those that its rules name. These do not bring others in turn: a request goes
/// through the rules of one service. False: there is no such service.
fn add_service(
    wanted: &mut Wanted,
    services: &mut HashSet<Arc<str>>,
    state: &Compiled,
    name: &str,
) -> bool {
    services.insert(name.into());
    let Some(service) = state.service(name) else {
        return false;
    };
    add(wanted, service);
    for backend in &service.compiled.backends {
        services.insert(backend.clone());
        if let Some(backend) = state.service(backend) {
            add(wanted, backend);
        }
    }
    true
}

fn add(wanted: &mut Wanted, service: &ServiceState) {
    for (order, resource) in [
        (Order::Service, &service.compiled.resource),
        (Order::Endpoints, &service.endpoints),
    ] {
        wanted.insert((order, resource.name.clone()), Some(resource.clone()));
    }
}

impl Difference {
    fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.removed.is_empty()
    }
}

#[cfg(test)]
mod tests;
