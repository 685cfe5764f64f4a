//! From resources and announcements to what sidecars are sent.
//!
//! [`Compiler`] keeps what there is, and compiles again only what a change touches: a service when it, the mesh, one of
//! its routes or a service named by them changed; endpoints when the service or an announcement for it changed.

mod balancing;
mod endpoints;
mod filters;
mod health;
mod hosts;
mod inference;
mod limits;
mod policy;
mod recovery;
mod references;
mod rules;
mod run;
mod service;
mod shards;
mod shared;
mod state;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use outrigger_proto::dataplane::v1::resource::Body;

pub use balancing::SessionSecret;
pub use hosts::Authority;
pub use references::{parents, targets};
pub use run::Run;
pub use service::CompiledService;
pub use shared::Shared;
pub use state::{Changed, Compiled, ServiceState};

use crate::discovery::Registry;
use crate::model::{Kind, MeshSpec, Resource, ResourceKey};
use references::{Index, backends};

/// Something that the store said.
#[derive(Clone, Debug)]
pub enum Change {
    Put(Arc<Resource>),
    Deleted(ResourceKey),
}

/// Keeps the compiled state up to date. Owned by one task.
#[derive(Debug)]
pub struct Compiler {
    trust_domain: String,
    session_secret: SessionSecret,
    mesh: Arc<MeshSpec>,
    services: HashMap<Arc<str>, Arc<Resource>>,
    routes: HashMap<Arc<str>, Arc<Resource>>,
    rate_limits: HashMap<Arc<str>, Arc<Resource>>,
    /// Service to the routes that are for it.
    by_parent: Index,
    /// Service to the routes that send requests to it.
    by_backend: Index,
    /// Service to the rate limits that are for it.
    by_target: Index,
    registry: Arc<Registry>,
    current: Compiled,
    dirty: Dirty,
}

#[derive(Debug, Default)]
struct Dirty {
    mesh: bool,
    services: HashSet<Arc<str>>,
    endpoints: HashSet<Arc<str>>,
}

impl Compiler {
    /// A mesh without resources, at the given version.
    pub fn new(
        trust_domain: &str,
        session_secret: SessionSecret,
        registry: Arc<Registry>,
        version: u64,
    ) -> Compiler {
        let mesh = Arc::new(MeshSpec::default());
        let current = Compiled {
            version,
            changed: Default::default(),
            mesh: Arc::new(compile_mesh(trust_domain, &mesh)),
            services: Default::default(),
            hosts: Default::default(),
        };
        Compiler {
            trust_domain: trust_domain.to_owned(),
            session_secret,
            mesh,
            services: HashMap::new(),
            routes: HashMap::new(),
            rate_limits: HashMap::new(),
            by_parent: Index::default(),
            by_backend: Index::default(),
            by_target: Index::default(),
            registry,
            current,
            dirty: Dirty::default(),
        }
    }

    /// The state as it was compiled last.
    pub fn current(&self) -> Compiled {
        self.current.clone()
    }

    /// Takes a change of a resource in. Nothing is compiled yet.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Put(resource) => match resource.kind() {
                Kind::Mesh => self.put_mesh(&resource),
                Kind::Service => self.put_service(resource),
                Kind::Route => self.put_route(resource),
                Kind::RateLimit => self.put_rate_limit(resource),
                // Written by ourselves, from what the registry has.
                Kind::Workload => {}
            },
            Change::Deleted(key) => match key.kind {
                Kind::Mesh => self.set_mesh(MeshSpec::default()),
                Kind::Service => self.delete_service(&key.qualified_name()),
                Kind::Route => self.delete_route(&key.qualified_name()),
                Kind::RateLimit => self.delete_rate_limit(&key.qualified_name()),
                Kind::Workload => {}
            },
        }
    }

    /// Takes in all resources there are: what it knows and is not among them is gone.
    pub fn replace_all(&mut self, resources: &[Arc<Resource>]) {
        let keys: HashSet<ResourceKey> = resources.iter().map(|resource| resource.key()).collect();
        let mut gone: Vec<ResourceKey> = self
            .services
            .values()
            .chain(self.routes.values())
            .chain(self.rate_limits.values())
            .map(|resource| resource.key())
            .collect();
        gone.push(ResourceKey::mesh());
        for key in gone.into_iter().filter(|key| !keys.contains(key)) {
            self.apply(Change::Deleted(key));
        }
        for resource in resources {
            self.apply(Change::Put(resource.clone()));
        }
    }

    /// Notes that announcements for a service changed.
    pub fn endpoints_changed(&mut self, service: Arc<str>) {
        self.dirty.endpoints.insert(service);
    }

    /// Compiles what changed. None: nothing that any sidecar could see.
    pub fn compile(&mut self) -> Option<Compiled> {
        let dirty = std::mem::take(&mut self.dirty);
        let mut changed = Changed::default();
        if dirty.mesh {
            let mesh = compile_mesh(&self.trust_domain, &self.mesh);
            if mesh.version != self.current.mesh.version {
                self.current.mesh = Arc::new(mesh);
                changed.mesh = true;
            }
        }
        for name in &dirty.services {
            self.compile_service(name, &mut changed);
        }
        for name in dirty.endpoints.difference(&dirty.services) {
            self.compile_endpoints(name, &mut changed);
        }
        if !changed.mesh && changed.services.is_empty() {
            return None;
        }
        self.current.version += 1;
        self.current.changed = Arc::new(changed);
        Some(self.current.clone())
    }

    fn put_mesh(&mut self, resource: &Resource) {
        if let Some(spec) = resource.as_mesh() {
            self.set_mesh(spec.clone());
        }
    }

    fn set_mesh(&mut self, spec: MeshSpec) {
        self.mesh = Arc::new(spec);
        self.dirty.mesh = true;
        // Its defaults are in all services.
        self.dirty.services.extend(self.services.keys().cloned());
    }

    fn put_service(&mut self, resource: Arc<Resource>) {
        let name: Arc<str> = resource.qualified_name().into();
        self.touch_service(&name);
        self.services.insert(name, resource);
    }

    fn delete_service(&mut self, name: &str) {
        if let Some((name, _)) = self.services.remove_entry(name) {
            self.touch_service(&name);
        }
    }

    /// The service itself, and those whose rules may take its default port.
    fn touch_service(&mut self, name: &Arc<str>) {
        for route in self.by_backend.get(name) {
            let parents = self.routes.get(route).map(|route| parents(route));
            self.dirty.services.extend(parents.unwrap_or_default());
        }
        self.dirty.services.insert(name.clone());
    }

    fn put_route(&mut self, resource: Arc<Resource>) {
        let name: Arc<str> = resource.qualified_name().into();
        self.delete_route(&name);
        for parent in parents(&resource) {
            self.by_parent.insert(&parent, &name);
            self.dirty.services.insert(parent);
        }
        for backend in backends(&resource) {
            self.by_backend.insert(&backend, &name);
            self.dirty.services.insert(backend);
        }
        self.routes.insert(name, resource);
    }

    fn delete_route(&mut self, name: &str) {
        let Some((name, old)) = self.routes.remove_entry(name) else {
            return;
        };
        for parent in parents(&old) {
            self.by_parent.remove(&parent, &name);
            self.dirty.services.insert(parent);
        }
        for backend in backends(&old) {
            self.by_backend.remove(&backend, &name);
            self.dirty.services.insert(backend);
        }
    }

    fn put_rate_limit(&mut self, resource: Arc<Resource>) {
        let name: Arc<str> = resource.qualified_name().into();
        self.delete_rate_limit(&name);
        for target in targets(&resource) {
            self.by_target.insert(&target, &name);
            self.dirty.services.insert(target);
        }
        self.rate_limits.insert(name, resource);
    }

    fn delete_rate_limit(&mut self, name: &str) {
        let Some((name, old)) = self.rate_limits.remove_entry(name) else {
            return;
        };
        for target in targets(&old) {
            self.by_target.remove(&target, &name);
            self.dirty.services.insert(target);
        }
    }

    fn compile_service(&mut self, name: &Arc<str>, changed: &mut Changed) {
        let old = self.current.services.get(name).cloned();
        let Some(resource) = self.services.get(name) else {
            let Some(old) = old else { return };
            if !old.spec.hosts.is_empty() {
                Arc::make_mut(&mut self.current.hosts).remove(name, &old.spec.hosts);
            }
            self.current.services.remove(name);
            changed.services.push(name.clone());
            changed.hosts = true;
            return;
        };
        let Some(spec) = resource.as_service() else {
            return;
        };
        let named = |index: &Index, all: &HashMap<Arc<str>, Arc<Resource>>| -> Vec<Arc<Resource>> {
            let names = index.get(name);
            names.filter_map(|name| all.get(name)).cloned().collect()
        };
        let default_port = |namespace: &str, name: &str| {
            let service = self.services.get(format!("{namespace}/{name}").as_str())?;
            Some(service.as_service()?.default_port()?.port)
        };
        let sources = service::Sources {
            trust_domain: &self.trust_domain,
            mesh: &self.mesh,
            session_secret: &self.session_secret,
            routes: &named(&self.by_parent, &self.routes),
            routes_to_it: &named(&self.by_backend, &self.routes),
            rate_limits: &named(&self.by_target, &self.rate_limits),
            default_port: &default_port,
        };
        let compiled = Arc::new(service::compile(sources, resource, spec));
        let candidates = self.registry.candidates(name);
        let (endpoints, endpoint_count) = endpoints::compile(name, spec, &compiled, &candidates);

        let same = |old: &ServiceState| {
            old.compiled.resource.version == compiled.resource.version
                && old.endpoints.version == endpoints.version
                && old.compiled.inbound == compiled.inbound
                && old.spec.hosts == spec.hosts
        };
        if old.as_ref().is_some_and(same) {
            return;
        }
        let same_ports = |old: &ServiceState| old.spec.ports == spec.ports;
        changed.hosts |= !old.as_ref().is_some_and(same_ports);
        let old_hosts = old.as_ref().map_or(&[][..], |old| &old.spec.hosts);
        if old_hosts != spec.hosts {
            let hosts = Arc::make_mut(&mut self.current.hosts);
            hosts.remove(name, old_hosts);
            hosts.add(name, resource.metadata.creation_timestamp, &spec.hosts);
            changed.hosts = true;
        }
        let state = ServiceState {
            compiled,
            endpoints: Arc::new(endpoints),
            endpoint_count,
            spec: Arc::new(spec.clone()),
        };
        self.current.services.insert(name.clone(), state);
        changed.services.push(name.clone());
    }

    fn compile_endpoints(&mut self, name: &Arc<str>, changed: &mut Changed) {
        let Some(old) = self.current.services.get(name) else {
            return;
        };
        let candidates = self.registry.candidates(name);
        let (endpoints, endpoint_count) =
            endpoints::compile(name, &old.spec, &old.compiled, &candidates);
        if endpoints.version == old.endpoints.version {
            return;
        }
        let state = ServiceState {
            endpoints: Arc::new(endpoints),
            endpoint_count,
            ..old.clone()
        };
        self.current.services.insert(name.clone(), state);
        changed.services.push(name.clone());
    }
}

fn compile_mesh(trust_domain: &str, spec: &MeshSpec) -> Shared {
    Shared::new("mesh", Body::Mesh(policy::mesh(trust_domain, spec)))
}

#[cfg(test)]
mod tests;
