#![allow(clippy::unwrap_used)]

use super::{apply, service, store};
use crate::store::{ChangeKind, FeedError, Store};

#[tokio::test]
async fn every_change_comes_once_and_in_order() {
    let (_directory, store) = store();
    apply(&store, service("a", 80));
    let mut subscription = store.subscribe();
    assert_eq!(subscription.resources.len(), 1);
    assert_eq!(subscription.revision, store.revision());
    store
        .apply(vec![service("a", 81), service("b", 80)], false)
        .unwrap();
    store.apply(vec![service("a", 81)], false).unwrap();
    store.delete(&service("b", 80).key(), None, false).unwrap();

    let first = subscription.changes.recv().await.unwrap();
    let kinds: Vec<_> = first.changes.iter().map(|change| change.kind).collect();
    assert_eq!(
        kinds,
        [ChangeKind::Modified, ChangeKind::Added],
        "one write is one set"
    );
    let modified = &first.changes[0];
    assert_eq!(
        modified
            .previous
            .as_ref()
            .unwrap()
            .as_service()
            .unwrap()
            .ports[0]
            .port,
        80
    );
    assert_eq!(modified.resource.as_service().unwrap().ports[0].port, 81);
    let second = subscription.changes.try_recv().unwrap().unwrap();
    assert_eq!(
        second.changes[0].kind,
        ChangeKind::Deleted,
        "what changes nothing is not told"
    );
    assert!(second.revision > first.revision && first.revision > subscription.revision);
    assert!(subscription.changes.try_recv().unwrap().is_none());
    drop(store);
    assert_eq!(
        subscription.changes.recv().await.unwrap_err(),
        FeedError::Closed
    );
}

#[tokio::test]
async fn who_is_too_slow_is_told() {
    let (_directory, store) = store();
    let mut changes = store.subscribe().changes;
    for port in 0..5000 {
        super::workloads::put(&store, "w", 1 + port);
    }
    let error = changes.recv().await.unwrap_err();
    assert_eq!(error, FeedError::Lagged(5000 - 4096));
    assert_eq!(
        error.to_string(),
        "too slow: 904 writes were missed; subscribe again"
    );
}

/// Snapshot and feed together are the store's state, whenever one subscribes.
#[test]
fn no_change_falls_between_snapshot_and_feed() {
    let (_directory, store) = store();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for index in 0..200 {
                super::workloads::put(&store, &format!("w{}", index % 10), 1 + index);
            }
        });
        let mut subscriptions = Vec::new();
        while !writer.is_finished() && subscriptions.len() < 1000 {
            subscriptions.push(store.subscribe());
        }
        writer.join().unwrap();
        for mut subscription in subscriptions {
            let mut state: std::collections::BTreeMap<_, _> = subscription
                .resources
                .into_iter()
                .map(|resource| (resource.key(), resource))
                .collect();
            let mut revision = subscription.revision;
            while let Some(set) = subscription.changes.try_recv().unwrap() {
                assert_eq!(set.revision, revision + 1);
                revision = set.revision;
                for change in &set.changes {
                    state.insert(change.resource.key(), change.resource.clone());
                }
            }
            let now: Vec<_> = state.into_values().collect();
            assert_eq!(now, store.list(&crate::store::Selector::default()));
        }
    });
}
