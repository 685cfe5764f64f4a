#![allow(clippy::unwrap_used)]
use std::time::Duration;

use tokio::time::Instant;

use super::{KEEP_ABSENT, KEEP_UNUSED, MAX_LOOKED_UP, Subscriptions};
use crate::control::resources::Resources;
use crate::control::snapshot::Builder;
use crate::control::testing::{delta, endpoint, endpoints, host, service};
use crate::dns::Names;
use crate::policy::{HostEntry, Snapshot};

fn snapshot() -> Snapshot {
    let mut resources = Resources::new(false);
    let list = vec![
        host("chat", "default/chat", 1),
        service("default", "chat", 1),
        endpoints("default/chat", 1, vec![endpoint("10.0.0.1:80", "a")]),
    ];
    resources.apply(delta(1, list), "outrigger.local", |_| true);
    Builder::new(
        "outrigger.local",
        "".into(),
        Default::default(),
        Default::default(),
        Names::unresolved(Default::default()),
    )
    .build(&resources)
}

#[test]
fn names_are_asked_for_once() {
    let mut subscriptions = Subscriptions::default();
    let now = Instant::now();
    assert!(subscriptions.ask("host/chat", now));
    assert!(!subscriptions.ask("host/chat", now));
    subscriptions.pin("service/a/b".into());
    assert!(!subscriptions.ask("service/a/b", now));
    assert!(subscriptions.contains("service/a/b") && subscriptions.contains("host/chat"));
    assert_eq!(subscriptions.names().count(), 2);
}

#[test]
fn absent_names_are_forgotten_sooner_than_used_ones() {
    let snapshot = snapshot();
    let mut subscriptions = Subscriptions::default();
    let begun = Instant::now();
    subscriptions.ask("host/chat", begun);
    subscriptions.ask("host/nobody", begun);
    subscriptions.pin("service/a/b".into());
    assert!(
        subscriptions
            .sweep(&snapshot, begun + KEEP_ABSENT / 2)
            .is_empty()
    );
    assert_eq!(
        subscriptions.sweep(&snapshot, begun + KEEP_ABSENT),
        ["host/nobody"]
    );

    // A request in between.
    let HostEntry::Service { service, .. } = &snapshot.hosts["chat"] else {
        unreachable!()
    };
    let endpoint = service.upstream.endpoints.endpoints()[0].clone();
    drop(endpoint.begin());
    let later = begun + KEEP_UNUSED - Duration::from_secs(1);
    assert!(subscriptions.sweep(&snapshot, later).is_empty());
    assert!(
        subscriptions
            .sweep(&snapshot, later + KEEP_UNUSED / 2)
            .is_empty()
    );
    // One that goes on for long.
    let stream = endpoint.begin();
    let later = later + KEEP_UNUSED * 2;
    assert!(subscriptions.sweep(&snapshot, later).is_empty());
    drop(stream);
    assert_eq!(
        subscriptions.sweep(&snapshot, later + KEEP_UNUSED),
        ["host/chat"]
    );
    assert!(subscriptions.contains("service/a/b"));
}

#[test]
fn what_exists_is_evicted_last() {
    let snapshot = snapshot();
    let mut subscriptions = Subscriptions::default();
    let begun = Instant::now();
    subscriptions.ask("host/chat", begun);
    for number in 0..MAX_LOOKED_UP - 1 {
        subscriptions.ask(&format!("host/{number}"), begun + Duration::from_secs(1));
    }
    assert!(subscriptions.evict(&snapshot).is_empty());
    subscriptions.ask("host/one-more", begun + Duration::from_secs(2));
    let victims = subscriptions.evict(&snapshot);
    assert!(!victims.is_empty() && victims.len() <= MAX_LOOKED_UP / 8);
    assert!(subscriptions.contains("host/chat"));
    assert!(subscriptions.contains("host/one-more"));
    assert!(victims.iter().all(|name| !subscriptions.contains(name)));
}
