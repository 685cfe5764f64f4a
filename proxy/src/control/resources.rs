//! What the sidecar holds: every resource that was accepted, by name, as the control plane counts its versions.

use std::collections::{HashMap, HashSet};

use outrigger_proto::dataplane::v1 as wire;
use prost::Message as _;

use super::convert::{self, Spec};

/// A resource that is in effect.
#[derive(Debug)]
pub(super) struct Held {
    pub version: u64,
    pub spec: Spec,
    /// As it came, for the cache on disk. `None`: there is no such cache.
    pub encoded: Option<Vec<u8>>,
}

/// All resources, and the names that are known not to exist.
#[derive(Debug, Default)]
pub(super) struct Resources {
    /// Version of the configuration as a whole.
    pub version: u64,
    pub held: HashMap<String, Held>,
    /// Asked for, and answered with `removed`.
    pub absent: HashSet<String>,
    /// Refused in their newest version. What was accepted before stays in `held`.
    pub refused: HashSet<String>,
    keep_encoded: bool,
}

impl Resources {
    /// `keep_encoded`: for a cache on disk.
    pub(super) fn new(keep_encoded: bool) -> Resources {
        Resources {
            keep_encoded,
            ..Resources::default()
        }
    }

    /// Puts a delta into effect. Returns what was refused: those stay as they were.
    ///
    /// Only names that `is_subscribed` are remembered as absent: others are gone for good.
    pub(super) fn apply(
        &mut self,
        delta: wire::Delta,
        trust_domain: &str,
        is_subscribed: impl Fn(&str) -> bool,
    ) -> Vec<wire::Refusal> {
        let mut refusals = Vec::new();
        for resource in delta.resources {
            match convert::resource(&resource, trust_domain) {
                Ok(spec) => {
                    self.absent.remove(&resource.name);
                    self.refused.remove(&resource.name);
                    let held = Held {
                        version: resource.version,
                        spec,
                        encoded: self.keep_encoded.then(|| resource.encode_to_vec()),
                    };
                    self.held.insert(resource.name, held);
                }
                Err(reason) => {
                    self.absent.remove(&resource.name);
                    self.refused.insert(resource.name.clone());
                    refusals.push(wire::Refusal {
                        name: resource.name,
                        reason,
                    });
                }
            }
        }
        for name in delta.removed {
            self.held.remove(&name);
            self.refused.remove(&name);
            if is_subscribed(&name) {
                self.absent.insert(name);
            }
        }
        self.version = delta.version;
        refusals
    }

    /// Forgets names that are no longer subscribed to.
    pub(super) fn forget<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) {
        for name in names {
            self.held.remove(name);
            self.absent.remove(name);
            self.refused.remove(name);
        }
    }

    /// Versions by name, for the next stream.
    pub(super) fn versions(&self) -> HashMap<String, u64> {
        let version = |(name, held): (&String, &Held)| (name.clone(), held.version);
        self.held.iter().map(version).collect()
    }

    pub(super) fn service(&self, name: &str) -> Option<&std::sync::Arc<convert::ServiceSpec>> {
        match &self.held.get(&format!("service/{name}"))?.spec {
            Spec::Service(spec) => Some(spec),
            _ => None,
        }
    }

    pub(super) fn endpoints(&self, service: &str) -> Option<(u64, &convert::EndpointsSpec)> {
        match self.held.get(&format!("endpoints/{service}"))? {
            Held {
                version,
                spec: Spec::Endpoints(endpoints),
                ..
            } => Some((*version, endpoints)),
            _ => None,
        }
    }
}
