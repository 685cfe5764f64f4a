#![allow(clippy::unwrap_used)]

use super::{apply, open, service, store};
use crate::model::{EndpointState, Kind, Resource, ResourceKey, WorkloadEndpoint, WorkloadSpec};
use crate::store::{Applied, Outcome, RedbStore, Selector, Store, StoreError};

/// Writes a workload that serves the port.
pub(super) fn put(store: &RedbStore, name: &str, port: u16) -> Applied {
    let endpoint = WorkloadEndpoint {
        service: "default/a".into(),
        port,
        weight: 1,
        state: EndpointState::Ready,
    };
    let spec = WorkloadSpec {
        instance: format!("instance-of-{name}"),
        identity: "spiffe://outrigger.local/ns/default/sa/a".into(),
        address: "10.0.0.1:15006".into(),
        endpoints: vec![endpoint],
        ..WorkloadSpec::default()
    };
    let workload = Resource::new("default", name, spec);
    assert_eq!(crate::model::validate(&workload), []);
    store.put_workload(workload).unwrap()
}

#[test]
fn workloads_are_resources_like_others() {
    let (_directory, store) = store();
    let mut changes = store.subscribe().changes;
    let created = put(&store, "w", 80);
    assert_eq!(created.outcome, Outcome::Created);
    assert_eq!(put(&store, "w", 80).outcome, Outcome::Unchanged);
    let changed = put(&store, "w", 81);
    assert_eq!(changed.outcome, Outcome::Configured);
    assert_eq!(changed.resource.metadata.uid, created.resource.metadata.uid);
    assert_eq!(store.list(&Selector::kind(Kind::Workload)).len(), 1);
    assert!(store.delete_workload("default", "w").unwrap().is_some());
    assert!(store.delete_workload("default", "w").unwrap().is_none());
    let mut told = 0;
    while changes.try_recv().unwrap().is_some() {
        told += 1;
    }
    assert_eq!(told, 3);
}

#[test]
fn users_cannot_write_workloads() {
    let (_directory, store) = store();
    let workload = (*put(&store, "w", 80).resource).clone();
    let key = workload.key();
    assert!(matches!(
        store.apply(vec![workload], false),
        Err(StoreError::NotWritable(_))
    ));
    assert!(matches!(
        store.delete(&key, None, false),
        Err(StoreError::NotWritable(_))
    ));
    assert!(matches!(
        store.put_workload(service("a", 80)),
        Err(StoreError::NotWritable(_))
    ));
    assert!(store.get(&key).is_some());
}

#[test]
fn workloads_survive_a_restart() {
    let (directory, store) = store();
    put(&store, "w", 80);
    drop(store);
    let store = open(&directory);
    assert!(store.get(&ResourceKey::workload("default", "w")).is_some());
}

/// Also those that were given out for what is lost in a crash.
#[test]
fn no_revision_is_given_out_twice() {
    let (directory, store) = store();
    apply(&store, service("a", 80));
    let mut last = 0;
    for port in 1..12_000 {
        let revision = put(&store, "w", port)
            .resource
            .metadata
            .resource_version
            .clone();
        last = revision.unwrap().parse().unwrap();
    }
    // What a crash would leave behind: the file as it is now, without closing it.
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(
        directory.path().join("store.redb"),
        copy.path().join("store.redb"),
    )
    .unwrap();
    let after = open(&copy);
    assert!(after.revision() >= last, "{} < {last}", after.revision());
    assert!(after.get(&ResourceKey::service("default", "a")).is_some());
}
