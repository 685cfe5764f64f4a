//! Compiled resources: encoded once, shared by all streams.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use outrigger_proto::dataplane::v1::resource::Body;
use outrigger_proto::dataplane::v1::{Endpoints, Host, Resource, Service};
use prost::Message as _;

/// A resource as sidecars get it.
#[derive(Debug)]
pub struct Shared {
    /// For example `service/default/chat`.
    pub name: Arc<str>,
    /// Made from the content: equal versions mean equal content, across restarts too. Never 0.
    pub version: u64,
    /// An encoded `outrigger.dataplane.v1.Resource`.
    pub encoded: Bytes,
}

impl Shared {
    /// Versions and encodes a resource.
    pub fn new(name: impl Into<Arc<str>>, body: Body) -> Shared {
        let name = name.into();
        let version = version_of(&body);
        let resource = Resource {
            name: name.to_string(),
            version,
            body: Some(body),
        };
        Shared {
            encoded: resource.encode_to_vec().into(),
            name,
            version,
        }
    }

    /// A `host/<authority>` resource.
    pub fn host(name: Arc<str>, host: Host) -> Shared {
        Shared::new(name, Body::Host(host))
    }

    /// The message again.
    pub fn decode(&self) -> Resource {
        Resource::decode(self.encoded.clone()).unwrap_or_default()
    }
}

/// The first 64 bits of a SHA-256 of the content.
///
/// A hash and not a counter: a sidecar that reconnects says what it holds by version, and a control plane that was
/// restarted has no memory of its counters. Maps encode in any order, so they are hashed apart from the rest, sorted.
fn version_of(body: &Body) -> u64 {
    let mut maps = Vec::new();
    let bare = without_maps(body.clone(), &mut maps);
    let mut hash = Context::new(&SHA256);
    let mut bytes = Vec::new();
    bare.encode(&mut bytes);
    hash.update(&(bytes.len() as u64).to_be_bytes());
    hash.update(&bytes);
    for map in maps {
        let mut entries: Vec<_> = map.into_iter().collect();
        entries.sort_unstable();
        hash.update(&(entries.len() as u64).to_be_bytes());
        for text in entries.into_iter().flat_map(|(key, value)| [key, value]) {
            hash.update(&(text.len() as u64).to_be_bytes());
            hash.update(text.as_bytes());
        }
    }
    let digest = hash.finish();
    let mut first = [0; 8];
    first.copy_from_slice(&digest.as_ref()[..8]);
    // 0 is what an absent version looks like.
    u64::from_be_bytes(first).max(1)
}

fn without_maps(body: Body, maps: &mut Vec<HashMap<String, String>>) -> Body {
    match body {
        Body::Endpoints(mut endpoints) => {
            take_labels(&mut endpoints, maps);
            Body::Endpoints(endpoints)
        }
        Body::Service(mut service) => {
            take_subsets(&mut service, maps);
            Body::Service(service)
        }
        body @ (Body::Mesh(_) | Body::Workload(_) | Body::Host(_)) => body,
    }
}

fn take_labels(endpoints: &mut Endpoints, maps: &mut Vec<HashMap<String, String>>) {
    for endpoint in &mut endpoints.endpoints {
        maps.push(std::mem::take(&mut endpoint.labels));
    }
    for endpoint in &mut endpoints.dns {
        maps.push(std::mem::take(&mut endpoint.labels));
    }
}

fn take_subsets(service: &mut Service, maps: &mut Vec<HashMap<String, String>>) {
    for backend in service.rules.iter_mut().flat_map(|rule| &mut rule.backends) {
        maps.push(std::mem::take(&mut backend.subset));
    }
}
