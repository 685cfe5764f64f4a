#![allow(clippy::unwrap_used)]

mod crash;
mod damage;
mod feed;
mod workloads;

use std::sync::Arc;

use serde_json::json;
use tempfile::TempDir;

use super::{Applied, Outcome, RedbStore, Selector, Store, StoreError};
use crate::model::{Kind, Resource, ResourceKey, parse};

const TRUST_DOMAIN: &str = "outrigger.local";

/// A new store. The directory lives as long as the first value.
fn store() -> (TempDir, RedbStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    (directory, store)
}

fn open(directory: &TempDir) -> RedbStore {
    RedbStore::open(&directory.path().join("store.redb"), TRUST_DOMAIN).unwrap()
}

/// A service named so, on the port.
fn service(name: &str, port: u16) -> Resource {
    let text = format!(
        "apiVersion: outrigger.dev/v1alpha1\nkind: Service\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\n\
         spec: {{hosts: [{name}.models], ports: [{{port: {port}, protocol: http}}]}}\n"
    );
    parse("f.yaml", text.as_bytes())
        .documents
        .remove(0)
        .resource
}

fn route(name: &str, parent: &str) -> Resource {
    let text = format!(
        "apiVersion: outrigger.dev/v1alpha1\nkind: Route\nmetadata: {{name: {name}, namespace: other}}\n\
         spec: {{parentRefs: [{{name: {parent}, namespace: default}}], rules: [{{}}]}}\n"
    );
    parse("f.yaml", text.as_bytes())
        .documents
        .remove(0)
        .resource
}

fn apply(store: &RedbStore, resource: Resource) -> Applied {
    store.apply(vec![resource], false).unwrap().remove(0)
}

fn version(applied: &Applied) -> u64 {
    applied
        .resource
        .metadata
        .resource_version
        .as_ref()
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn says_what_a_write_did() {
    let (_directory, store) = store();
    let created = apply(&store, service("a", 80));
    assert_eq!(created.outcome, Outcome::Created);
    let metadata = &created.resource.metadata;
    assert_eq!(metadata.generation, 1);
    assert!(metadata.uid.is_some() && metadata.creation_timestamp.is_some());
    assert_eq!(version(&created), store.revision());

    let unchanged = apply(&store, service("a", 80));
    assert_eq!(unchanged.outcome, Outcome::Unchanged);
    assert!(Arc::ptr_eq(&unchanged.resource, &created.resource));

    let mut labelled = service("a", 80);
    labelled
        .metadata
        .labels
        .insert("tier".into(), "gold".into());
    let labelled = apply(&store, labelled);
    assert_eq!(labelled.outcome, Outcome::Configured);
    assert_eq!(
        labelled.resource.metadata.generation, 1,
        "the spec is the same"
    );
    assert!(version(&labelled) > version(&created));

    let changed = apply(&store, service("a", 81));
    assert_eq!(changed.outcome, Outcome::Configured);
    let after = &changed.resource.metadata;
    assert_eq!((after.generation, &after.uid), (2, &metadata.uid));
    assert_eq!(after.creation_timestamp, metadata.creation_timestamp);

    store.delete(&changed.resource.key(), None, false).unwrap();
    let again = apply(&store, service("a", 80));
    assert_ne!(
        again.resource.metadata.uid, metadata.uid,
        "another resource with the same name"
    );
}

#[test]
fn what_callers_may_not_set_is_not_taken() {
    let (_directory, store) = store();
    let mut resource = service("a", 80);
    resource.metadata.uid = Some("mine".into());
    resource.metadata.generation = 99;
    resource.status = Some(json!({"acceptedBy": 3}));
    let stored = apply(&store, resource).resource;
    assert_eq!(stored.metadata.generation, 1);
    assert_ne!(stored.metadata.uid.as_deref(), Some("mine"));
    assert_eq!(stored.status, None);
}

#[test]
fn a_dry_run_says_the_same_and_stores_nothing() {
    let (_directory, store) = store();
    apply(&store, service("a", 80));
    let before = store.revision();
    let resources = || vec![service("a", 81), service("b", 80), route("r", "nope")];
    let mut changes = store.subscribe().changes;
    let dry = store.apply(resources(), true).unwrap();
    assert_eq!(store.revision(), before);
    assert!(store.get(&ResourceKey::service("default", "b")).is_none());
    assert!(changes.try_recv().unwrap().is_none());
    let wet = store.apply(resources(), false).unwrap();
    for (dry, wet) in dry.iter().zip(&wet) {
        assert_eq!((dry.outcome, &dry.warnings), (wet.outcome, &wet.warnings));
        assert_eq!(version(dry), version(wet));
        assert_eq!(dry.resource.spec, wet.resource.spec);
    }
    assert_eq!(dry[2].warnings.len(), 1);
    assert!(
        store
            .delete(&ResourceKey::service("default", "b"), None, true)
            .is_ok()
    );
    assert!(store.get(&ResourceKey::service("default", "b")).is_some());
}

#[test]
fn a_write_is_all_or_nothing() {
    let (directory, store) = store();
    let first = apply(&store, service("a", 80));
    apply(&store, service("a", 81));
    let before = store.revision();
    let mut stale = service("a", 82);
    stale.metadata.resource_version = Some(version(&first).to_string());
    let mut missing = service("c", 80);
    missing.metadata.resource_version = Some("7".into());
    let error = store
        .apply(vec![service("b", 80), stale, missing], false)
        .unwrap_err();
    let StoreError::Conflict(conflicts) = &error else {
        panic!("{error}")
    };
    assert_eq!(
        conflicts
            .iter()
            .map(|conflict| conflict.index)
            .collect::<Vec<_>>(),
        [1, 2]
    );
    let text = error.to_string();
    assert!(
        text.contains(&format!(
            "service/default/a has changed: its resourceVersion is {before}, not {}",
            version(&first)
        )),
        "{text}"
    );
    assert!(
        text.contains(
            "service/default/c does not exist (any more), but the resourceVersion 7 was given"
        ),
        "{text}"
    );

    let mut thief = service("d", 80);
    thief.spec = service("a", 80).spec;
    let error = store
        .apply(vec![service("b", 80), thief], false)
        .unwrap_err();
    let StoreError::Invalid(problems) = &error else {
        panic!("{error}")
    };
    assert_eq!(
        (problems[0].index, problems[0].problem.field.as_str()),
        (1, "spec.hosts[0]")
    );

    assert_eq!(store.revision(), before);
    assert!(store.get(&ResourceKey::service("default", "b")).is_none());
    drop(store);
    assert_eq!(open(&directory).list(&Selector::default()).len(), 1);
}

#[test]
fn the_right_version_is_accepted_once() {
    let (_directory, store) = store();
    let first = apply(&store, service("a", 80));
    let update = |port| {
        let mut resource = service("a", port);
        resource.metadata.resource_version = Some(version(&first).to_string());
        store.apply(vec![resource], false)
    };
    assert!(update(81).is_ok());
    assert!(matches!(update(82), Err(StoreError::Conflict(_))));
    let key = first.resource.key();
    let stale = version(&first).to_string();
    assert!(matches!(
        store.delete(&key, Some(&stale), false),
        Err(StoreError::Conflict(_))
    ));
    let current = store.revision().to_string();
    assert!(store.delete(&key, Some(&current), false).is_ok());
    assert!(matches!(
        store.delete(&key, None, false),
        Err(StoreError::NotFound(_))
    ));
}

#[test]
fn racing_writers_cannot_share_a_host() {
    let (_directory, store) = store();
    let claim = |name: &str| {
        let mut resource = service(name, 80);
        resource.spec = service("shared", 80).spec;
        resource
    };
    let successes: usize = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|index| {
                let (store, resource) = (&store, claim(&format!("s{index}")));
                scope.spawn(move || usize::from(store.apply(vec![resource], false).is_ok()))
            })
            .collect();
        writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .sum()
    });
    assert_eq!(successes, 1);
}

#[test]
fn lists_what_is_selected_in_order() {
    let (_directory, store) = store();
    let mesh = "apiVersion: outrigger.dev/v1alpha1\nkind: Mesh\nmetadata: {name: default}\n";
    let mesh = parse("f.yaml", mesh.as_bytes())
        .documents
        .remove(0)
        .resource;
    store
        .apply(
            vec![route("r", "a"), service("b", 80), service("a", 80), mesh],
            false,
        )
        .unwrap();
    let keys = |selector: &Selector| {
        store
            .list(selector)
            .iter()
            .map(|resource| resource.key().to_string())
            .collect::<Vec<_>>()
    };
    let all = [
        "mesh/default",
        "service/default/a",
        "service/default/b",
        "route/other/r",
    ];
    assert_eq!(keys(&Selector::default()), all);
    assert_eq!(keys(&Selector::kind(Kind::Service)), all[1..3]);
    let namespace = Some("other".to_owned());
    assert_eq!(
        keys(&Selector {
            namespace: namespace.clone(),
            ..Selector::default()
        }),
        all[3..]
    );
    // A mesh is in every namespace and in none.
    assert_eq!(
        keys(&Selector {
            namespace,
            ..Selector::kind(Kind::Mesh)
        }),
        all[..1]
    );
    let labels = [("app".to_owned(), "b".to_owned())].into();
    assert_eq!(
        keys(&Selector {
            labels,
            ..Selector::default()
        }),
        all[2..3]
    );
}

#[test]
fn keeps_everything_across_a_restart() {
    let (directory, store) = store();
    let stored = store
        .apply(vec![service("a", 80), route("r", "a")], false)
        .unwrap();
    store.put_token("0123", &json!({"uses": 1})).unwrap();
    let revision = store.revision();
    drop(store);
    let store = open(&directory);
    for applied in &stored {
        assert_eq!(
            store.get(&applied.resource.key()).as_deref(),
            Some(&*applied.resource)
        );
    }
    assert_eq!(store.get_token("0123").unwrap(), Some(json!({"uses": 1})));
    assert!(store.revision() >= revision);
    let changed = apply(&store, service("a", 81));
    assert!(version(&changed) > revision);
    assert_eq!(changed.resource.metadata.generation, 2);
}

#[test]
fn tokens_are_changed_one_at_a_time() {
    let (_directory, store) = store();
    store.put_token("a", &json!({"uses": 0})).unwrap();
    store.put_token("b", &json!({"uses": 7})).unwrap();
    let used: usize = std::thread::scope(|scope| {
        let joiners: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut granted = false;
                    let mut take = |token: &mut serde_json::Value| {
                        let uses = token["uses"].as_u64().unwrap();
                        granted = uses < 3;
                        if granted {
                            token["uses"] = json!(uses + 1);
                        }
                        granted
                    };
                    store.update_token("a", &mut take).unwrap().unwrap();
                    usize::from(granted)
                })
            })
            .collect();
        joiners
            .into_iter()
            .map(|joiner| joiner.join().unwrap())
            .sum()
    });
    assert_eq!(used, 3);
    assert_eq!(
        store
            .update_token("c", &mut |_| panic!("there is none"))
            .unwrap(),
        None
    );
    let listed = store.list_tokens().unwrap();
    assert_eq!(
        listed,
        [
            ("a".to_owned(), json!({"uses": 3})),
            ("b".to_owned(), json!({"uses": 7}))
        ]
    );
    assert!(store.delete_token("a").unwrap());
    assert!(!store.delete_token("a").unwrap());
    assert_eq!(store.get_token("a").unwrap(), None);
}
