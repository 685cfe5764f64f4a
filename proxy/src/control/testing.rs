//! What tests of the control side need: resources, shared state, and a control plane to talk to.
#![allow(clippy::unwrap_used)]

pub(crate) mod fake;

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use outrigger_proto::dataplane::v1 as wire;
use wire::resource::Body;

use crate::config::LogFormat;
use crate::control::LookupQueue;
use crate::control::lookup::Lookups;
use crate::drain::Drain;
use crate::policy::{AccessLogMode, Snapshot};
use crate::shared::{Shared, Status};
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::Traces;

pub(crate) fn shared() -> (Arc<Shared>, LookupQueue) {
    let (lookups, queue) = Lookups::new();
    let output = Box::new(std::io::sink());
    let shared = Shared {
        snapshot: ArcSwap::from_pointee(Snapshot::default()),
        tls: ArcSwapOption::empty(),
        lookups,
        metrics: Arc::new(Metrics::new()),
        access_log: AccessLog::to(AccessLogMode::Off, LogFormat::Json, output).unwrap(),
        traces: Traces::default(),
        drain: Drain::new(),
        status: Status::default(),
    };
    (Arc::new(shared), queue)
}

pub(crate) fn mesh(version: u64) -> wire::Resource {
    wire::Resource {
        name: "mesh".into(),
        version,
        body: Some(Body::Mesh(wire::Mesh {
            trust_domain: "outrigger.local".into(),
            ..Default::default()
        })),
    }
}

pub(crate) fn host(authority: &str, service: &str, version: u64) -> wire::Resource {
    wire::Resource {
        name: format!("host/{authority}"),
        version,
        body: Some(Body::Host(wire::Host {
            service: service.into(),
            port: 80,
        })),
    }
}

/// A service with port 80 and a rule to itself.
pub(crate) fn service(namespace: &str, name: &str, version: u64) -> wire::Resource {
    wire::Resource {
        name: format!("service/{namespace}/{name}"),
        version,
        body: Some(Body::Service(wire::Service {
            namespace: namespace.into(),
            name: name.into(),
            ports: vec![wire::ServicePort {
                port: 80,
                name: "http".into(),
                protocol: wire::Protocol::Http.into(),
                ..Default::default()
            }],
            server_identities: vec![format!("spiffe://outrigger.local/ns/{namespace}/sa/*")],
            rules: vec![rule_to(&format!("{namespace}/{name}"))],
            ..Default::default()
        })),
    }
}

pub(crate) fn rule_to(service: &str) -> wire::Rule {
    wire::Rule {
        backends: vec![wire::Backend {
            service: service.into(),
            port: 80,
            weight: 1,
            ..Default::default()
        }],
        ..Default::default()
    }
}

pub(crate) fn endpoints(
    service: &str,
    version: u64,
    endpoints: Vec<wire::Endpoint>,
) -> wire::Resource {
    wire::Resource {
        name: format!("endpoints/{service}"),
        version,
        body: Some(Body::Endpoints(wire::Endpoints {
            service: service.into(),
            endpoints,
            dns: Vec::new(),
        })),
    }
}

pub(crate) fn endpoint(address: &str, instance: &str) -> wire::Endpoint {
    wire::Endpoint {
        address: address.into(),
        identity: "spiffe://outrigger.local/ns/default/sa/chat".into(),
        weight: 1,
        mtls: true,
        instance: instance.into(),
        ..Default::default()
    }
}

pub(crate) fn delta(version: u64, resources: Vec<wire::Resource>) -> wire::Delta {
    wire::Delta {
        nonce: version.to_string(),
        version,
        resources,
        removed: Vec::new(),
    }
}
