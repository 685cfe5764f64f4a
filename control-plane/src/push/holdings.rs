//! What one sidecar wants and what it holds; the difference is what it is sent.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use outrigger_proto::dataplane::v1::Host;

use crate::compile::{Compiled, Shared};

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
                    add_service(&mut wanted, state, &host.service, true);
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
                    if !add_service(&mut wanted, state, service, true) {
                        wanted.insert((Order::Service, name.clone()), None);
                    }
                }
                Some(("endpoints", service)) => {
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

/// A service with its endpoints, and those that its rules name. They do not bring others in turn: a request goes through
/// the rules of one service.
fn add_service(wanted: &mut Wanted, state: &Compiled, name: &str, with_backends: bool) -> bool {
    let Some(service) = state.service(name) else {
        return false;
    };
    let (resource, endpoints) = (&service.compiled.resource, &service.endpoints);
    wanted.insert(
        (Order::Service, resource.name.clone()),
        Some(resource.clone()),
    );
    wanted.insert(
        (Order::Endpoints, endpoints.name.clone()),
        Some(endpoints.clone()),
    );
    if with_backends {
        for backend in &service.compiled.backends {
            add_service(wanted, state, backend, false);
        }
    }
    true
}

impl Difference {
    fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.removed.is_empty()
    }
}

#[cfg(test)]
mod tests;
