//! Writes announcements down as `Workload` resources, so that a control plane that restarts knows the endpoints at once.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{Announced, Registry, Sidecar};
use crate::ca::SpiffeId;
use crate::model::{Kind, Resource, WorkloadEndpoint, WorkloadSpec};
use crate::store::{Selector, Store};

/// How long endpoints from before a restart are kept for sidecars that have not come back. A sidecar's backoff between
/// attempts to connect stays well below.
const GRACE: Duration = Duration::from_secs(15);

/// Follows `changed` instances for as long as the program runs. `written` comes from [`restore`].
///
/// Only membership is written: announcements, states, addresses. Heartbeats are not.
pub async fn keep_workloads(
    store: Arc<dyn Store>,
    registry: Arc<Registry>,
    mut changed: mpsc::UnboundedReceiver<Arc<str>>,
    mut written: Written,
) {
    let mut instances = Vec::new();
    while changed.recv_many(&mut instances, 1024).await > 0 {
        let due: BTreeSet<Arc<str>> = instances.drain(..).collect();
        let store = store.clone();
        let registry = registry.clone();
        let write = tokio::task::spawn_blocking(move || {
            for instance in due {
                write_one(&*store, &registry, &mut written, &instance);
            }
            // A control plane that is killed now shall find its endpoints: callers must not see an empty service while
            // the sidecars come back.
            if let Err(error) = store.flush() {
                tracing::error!(%error, "cannot write workloads down; callers are not affected");
            }
            written
        });
        match write.await {
            Ok(back) => written = back,
            // Only at the program's end.
            Err(_) => return,
        }
    }
}

/// Namespace and name of the stored workloads, by instance.
pub type Written = HashMap<Arc<str>, (String, String)>;

/// Takes the stored workloads into the registry, with a lease of their own.
pub fn restore(store: &dyn Store, registry: &Registry) -> Written {
    let mut written = Written::new();
    for resource in store.list(&Selector::kind(Kind::Workload)) {
        let Some(spec) = resource.as_workload() else {
            continue;
        };
        let instance: Arc<str> = spec.instance.as_str().into();
        let name = (
            resource.metadata.namespace.clone(),
            resource.metadata.name.clone(),
        );
        written.insert(instance.clone(), name);
        let Ok(identity) = spec.identity.parse::<SpiffeId>() else {
            tracing::warn!(workload = %resource.key(), identity = spec.identity, "stored identity is not one");
            continue;
        };
        let sidecar = Sidecar {
            instance,
            identity: Arc::new(identity),
            address: (!spec.address.is_empty()).then(|| spec.address.as_str().into()),
            labels: Arc::new(spec.labels.clone()),
            zone: spec.zone.as_str().into(),
        };
        let endpoints = spec.endpoints.iter().map(|endpoint| Announced {
            service: endpoint.service.as_str().into(),
            port: endpoint.port,
            weight: endpoint.weight.max(1),
            state: endpoint.state,
        });
        registry.restore(sidecar, endpoints.collect(), GRACE);
    }
    written
}

fn write_one(store: &dyn Store, registry: &Registry, written: &mut Written, instance: &Arc<str>) {
    let result = match registry.announced(instance) {
        Some((sidecar, endpoints)) if !endpoints.is_empty() => {
            let workload = workload(&sidecar, &endpoints);
            let name = (
                workload.metadata.namespace.clone(),
                workload.metadata.name.clone(),
            );
            written.insert(instance.clone(), name);
            store.put_workload(workload).map(|_| ())
        }
        _ => match written.remove(instance) {
            Some((namespace, name)) => store.delete_workload(&namespace, &name).map(|_| ()),
            None => Ok(()),
        },
    };
    if let Err(error) = result {
        tracing::error!(%instance, %error, "cannot write a workload down; callers are not affected");
    }
}

fn workload(sidecar: &Sidecar, endpoints: &[Announced]) -> Resource {
    let spec = WorkloadSpec {
        instance: sidecar.instance.to_string(),
        identity: sidecar.identity.to_string(),
        address: sidecar.address.as_deref().unwrap_or_default().to_owned(),
        labels: sidecar.labels.as_ref().clone(),
        zone: sidecar.zone.to_string(),
        endpoints: endpoints
            .iter()
            .map(|endpoint| WorkloadEndpoint {
                service: endpoint.service.to_string(),
                port: endpoint.port,
                weight: endpoint.weight,
                state: endpoint.state,
            })
            .collect(),
    };
    let name = workload_name(sidecar.identity.account(), &sidecar.instance);
    Resource::new(sidecar.identity.namespace(), &name, spec)
}

/// `<account>-<first 8 characters of the instance>`, as a DNS label.
pub(super) fn workload_name(account: &str, instance: &str) -> String {
    // 63 characters, less the dash and the eight.
    let account: String = account.chars().take(54).collect();
    let tail: String = instance.chars().take(8).collect();
    let name = format!("{account}-{}", tail.to_ascii_lowercase());
    name.trim_end_matches('-').to_owned()
}
