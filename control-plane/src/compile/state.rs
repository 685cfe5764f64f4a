//! The compiled configuration of the whole mesh at one moment. Immutable and shared by all streams.

use std::sync::Arc;

use outrigger_proto::dataplane::v1 as wire;

use super::hosts::{Authority, Hosts, by_own_name};
use super::service::CompiledService;
use super::shards::Shards;
use super::shared::Shared;
use crate::model::ServiceSpec;

/// What all sidecars are given parts of.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// Grows with every change, across restarts too.
    pub version: u64,
    /// What is different from the version before this one.
    pub changed: Arc<Changed>,
    pub mesh: Arc<Shared>,
    pub(super) services: Shards<ServiceState>,
    pub(super) hosts: Arc<Hosts>,
}

/// What is different between a version and the one before it: lets a stream see at a glance that nothing of it is its.
#[derive(Debug, Default)]
pub struct Changed {
    pub mesh: bool,
    /// Hosts may mean something else now.
    pub hosts: bool,
    /// Services that changed, with their endpoints, `<namespace>/<name>`.
    pub services: Vec<Arc<str>>,
}

/// A service and its endpoints.
#[derive(Clone, Debug)]
pub struct ServiceState {
    pub compiled: Arc<CompiledService>,
    pub endpoints: Arc<Shared>,
    pub endpoint_count: usize,
    pub(super) spec: Arc<ServiceSpec>,
}

impl Compiled {
    /// A service by `<namespace>/<name>`.
    pub fn service(&self, name: &str) -> Option<&ServiceState> {
        self.services.get(name)
    }

    /// The service and port that an authority means to a sidecar in `namespace`.
    pub fn resolve(&self, authority: &str, namespace: &str) -> Option<wire::Host> {
        let authority = authority.to_ascii_lowercase();
        let Authority { host, port } = Authority::parse(&authority)?;
        let own = by_own_name(host, namespace).filter(|name| self.services.get(name).is_some());
        let service = match own {
            Some(name) => name,
            None => self.hosts.find(host)?.to_string(),
        };
        let spec = &self.services.get(&service)?.spec;
        let port = match port {
            Some(port) => spec.port(port)?,
            None => spec.default_port()?,
        };
        Some(wire::Host {
            service,
            port: port.port.into(),
        })
    }
}
