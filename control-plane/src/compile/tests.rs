#![allow(clippy::unwrap_used)]

mod change;
mod endpoints;
mod filters;
mod health;
mod hosts;
mod limits;
mod rules;
mod versions;

use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::dataplane::v1 as wire;
use tokio::sync::mpsc;
use wire::resource::Body;

use super::*;
use crate::discovery::Signals;

/// A compiler with a registry that nobody listens to.
pub(super) struct Bench {
    pub registry: Arc<Registry>,
    pub compiler: Compiler,
    created: i64,
}

pub(super) fn bench() -> Bench {
    let (services, _) = mpsc::unbounded_channel();
    let (instances, _) = mpsc::unbounded_channel();
    let signals = Signals {
        services,
        instances,
    };
    let registry = Arc::new(Registry::new(Duration::from_secs(5), signals));
    Bench {
        compiler: Compiler::new(
            "outrigger.local",
            SessionSecret::new(&[7; 32]),
            registry.clone(),
            1,
        ),
        registry,
        created: 0,
    }
}

pub(super) fn resources(yaml: &str) -> Vec<Resource> {
    let documents = serde_yaml::Deserializer::from_str(yaml);
    documents
        .map(|document| serde::Deserialize::deserialize(document).unwrap())
        .collect()
}

impl Bench {
    /// Puts resources, each created a second after the one before.
    pub fn put(&mut self, yaml: &str) -> Option<Compiled> {
        for mut resource in resources(yaml) {
            self.created += 1;
            let at = jiff::Timestamp::from_second(self.created).unwrap();
            resource.metadata.creation_timestamp = Some(at);
            self.compiler.apply(Change::Put(Arc::new(resource)));
        }
        self.compiler.compile()
    }

    pub fn delete(&mut self, key: ResourceKey) -> Option<Compiled> {
        self.compiler.apply(Change::Deleted(key));
        self.compiler.compile()
    }

    pub fn service(&self, name: &str) -> wire::Service {
        let state = self.compiler.current();
        match state.service(name).unwrap().compiled.resource.decode().body {
            Some(Body::Service(service)) => service,
            other => panic!("{other:?}"),
        }
    }

    pub fn endpoints(&self, name: &str) -> Vec<wire::Endpoint> {
        let state = self.compiler.current();
        match state.service(name).unwrap().endpoints.decode().body {
            Some(Body::Endpoints(endpoints)) => endpoints.endpoints,
            other => panic!("{other:?}"),
        }
    }
}

/// A service of the namespace `default` with this spec, in flow style.
pub(super) fn service(name: &str, spec: &str) -> String {
    of_kind("Service", name, spec)
}

pub(super) fn route(name: &str, spec: &str) -> String {
    of_kind("Route", name, spec)
}

fn of_kind(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "---\n{{apiVersion: outrigger.dev/v1alpha1, kind: {kind}, metadata: {{name: {name}, namespace: default}}, spec: {spec}}}\n"
    )
}

pub(super) const HTTP: &str = "{ports: [{port: 80, protocol: http}]}";
