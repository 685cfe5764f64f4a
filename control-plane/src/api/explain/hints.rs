//! What was probably meant by a host that is unknown.

use crate::compile::Authority;
use crate::model::relate::implied_hosts;
use crate::model::{Kind, ServiceSpec};
use crate::store::{Selector, Store};

/// More are no help.
const MOST: usize = 3;

/// Lines for people, the likeliest first.
pub(super) fn for_host(authority: &str, namespace: &str, store: &dyn Store) -> Vec<String> {
    let Some(Authority { host, port }) = Authority::parse(authority) else {
        return Vec::new();
    };
    let mut near: Vec<(usize, String)> = Vec::new();
    for resource in store.list(&Selector::kind(Kind::Service)) {
        let Some(spec) = resource.as_service() else {
            continue;
        };
        let key = resource.key();
        let mut hosts: Vec<String> = implied_hosts(&key.namespace, &key.name).into();
        hosts.extend(spec.hosts.iter().cloned());
        if key.namespace == namespace {
            hosts.push(key.name.clone());
        }
        if hosts.iter().any(|known| known == host) {
            if let Some(port) = port {
                return vec![format!(
                    "{host} means {key}, which has no port {port}; it has {}",
                    ports(spec)
                )];
            }
        } else if key.name == host {
            let elsewhere = format!("{}.{}", key.name, key.namespace);
            near.push((0, format!("{elsewhere} ({key} is of another namespace)")));
        } else {
            let likest = hosts
                .into_iter()
                .map(|known| (strsim::damerau_levenshtein(host, &known), known))
                .min();
            if let Some((distance, known)) = likest
                && distance <= known.len().max(3) / 3
            {
                near.push((distance, format!("{known} ({key})")));
            }
        }
    }
    near.sort();
    near.truncate(MOST);
    near.into_iter()
        .map(|(_, hint)| format!("did you mean {hint}?"))
        .collect()
}

fn ports(spec: &ServiceSpec) -> String {
    let ports = spec.ports.iter().map(|port| port.port.to_string());
    ports.collect::<Vec<_>>().join(", ")
}
