#![allow(clippy::unwrap_used)]

use std::time::Duration;

use outrigger_proto::dataplane::v1 as wire;
use tokio::sync::mpsc;
use wire::resource::Body;

use super::*;
use crate::compile::SessionSecret;
use crate::compile::{Change, Compiler};
use crate::discovery::{Registry, Signals};
use crate::model::Resource;

fn compiler() -> Compiler {
    let (services, _) = mpsc::unbounded_channel();
    let (instances, _) = mpsc::unbounded_channel();
    let signals = Signals {
        services,
        instances,
    };
    let registry = Registry::new(Duration::from_secs(5), signals);
    Compiler::new(
        "outrigger.local",
        SessionSecret::new(&[7; 32]),
        Arc::new(registry),
        1,
    )
}

/// A service whose endpoints take up about `bytes`.
fn put(compiler: &mut Compiler, name: &str, bytes: usize) {
    let label = "x".repeat(bytes);
    let yaml = format!(
        "{{apiVersion: outrigger.dev/v1alpha1, kind: Service, metadata: {{name: {name}, namespace: default}}, \
         spec: {{ports: [{{port: 80, protocol: http}}], endpoints: {{static: [{{address: '10.0.0.1:1', labels: {{a: {label}}}}}]}}}}}}"
    );
    let resource: Resource = serde_yaml::from_str(&yaml).unwrap();
    compiler.apply(Change::Put(Arc::new(resource)));
    compiler.compile();
}

fn workload() -> Arc<Shared> {
    Arc::new(Shared::new(
        "workload",
        Body::Workload(wire::Workload::default()),
    ))
}

#[test]
fn a_delta_that_would_be_too_large_is_cut_and_the_rest_follows() {
    let mut compiler = compiler();
    let services = ["a", "b", "c", "d"];
    for name in services {
        put(&mut compiler, name, 900_000);
    }
    let mut holdings = Holdings::new("default", HashMap::new());
    holdings.subscribe(services.iter().map(|name| format!("host/{name}")).collect());
    let state = compiler.current();
    let mut names = Vec::new();
    let mut deltas = 0;
    while let Some(difference) = holdings.difference(&state, &workload()) {
        let size: usize = difference.resources.iter().map(|it| it.encoded.len()).sum();
        assert!(size <= MAX_DELTA, "{size}");
        names.extend(difference.resources.iter().map(|it| it.name.to_string()));
        deltas += 1;
    }
    assert_eq!(deltas, 2);
    assert_eq!(names.len(), 2 + 4 * 3);
    // A host never comes before what it means.
    let position = |name: &str| names.iter().position(|it| it == name).unwrap();
    for name in services {
        assert!(position(&format!("host/{name}")) > position(&format!("service/default/{name}")));
        assert!(
            position(&format!("service/default/{name}"))
                > position(&format!("endpoints/default/{name}"))
        );
    }
}

#[test]
fn one_resource_that_is_too_large_by_itself_is_sent_all_the_same() {
    let mut compiler = compiler();
    put(&mut compiler, "a", MAX_DELTA + 1);
    let mut holdings = Holdings::new("default", HashMap::new());
    holdings.subscribe(vec!["endpoints/default/a".to_owned()]);
    let state = compiler.current();
    let mut sent = 0;
    while let Some(difference) = holdings.difference(&state, &workload()) {
        sent += difference.resources.len();
    }
    assert_eq!(sent, 3);
}

#[test]
fn a_change_concerns_those_who_want_it() {
    let mut compiler = compiler();
    put(&mut compiler, "a", 1);
    put(&mut compiler, "b", 1);
    let state = compiler.current();
    let holds = |name: &str| {
        let mut holdings = Holdings::new("default", HashMap::new());
        holdings.subscribe(vec![name.to_owned()]);
        holdings.difference(&state, &workload());
        holdings
    };
    let changed = |services: &[&str], hosts| Changed {
        services: services.iter().map(|name| Arc::from(*name)).collect(),
        hosts,
        mesh: false,
    };
    let host = holds("host/a");
    assert!(host.is_concerned(&changed(&["default/a"], false)));
    assert!(!host.is_concerned(&changed(&["default/b"], false)));
    // It may be the one that the host means from now on.
    assert!(host.is_concerned(&changed(&["default/new"], true)));
    let service = holds("service/default/c");
    assert!(
        service.is_concerned(&changed(&["default/c"], true)),
        "it comes to exist"
    );
    assert!(!service.is_concerned(&changed(&["default/new"], true)));
    assert!(service.is_concerned(&Changed {
        mesh: true,
        ..Changed::default()
    }));
}

#[test]
fn a_backend_that_does_not_exist_yet_concerns_those_whose_routes_name_it() {
    let mut compiler = compiler();
    put(&mut compiler, "a", 1);
    let route = "{apiVersion: outrigger.dev/v1alpha1, kind: Route, metadata: {name: r, namespace: default}, \
                 spec: {parentRefs: [{name: a}], rules: [{backendRefs: [{name: later, port: 80}]}]}}";
    let route: Resource = serde_yaml::from_str(route).unwrap();
    compiler.apply(Change::Put(Arc::new(route)));
    compiler.compile();
    let mut holdings = Holdings::new("default", HashMap::new());
    holdings.subscribe(vec!["service/default/a".to_owned()]);
    holdings.difference(&compiler.current(), &workload());
    put(&mut compiler, "later", 1);
    let state = compiler.current();
    assert!(holdings.is_concerned(&state.changed));
    let difference = holdings.difference(&state, &workload()).unwrap();
    let names: Vec<&str> = difference.resources.iter().map(|it| &*it.name).collect();
    assert_eq!(names, ["endpoints/default/later", "service/default/later"]);
}

#[test]
fn what_was_unsubscribed_and_is_asked_for_again_is_sent_again() {
    let mut compiler = compiler();
    put(&mut compiler, "a", 1);
    let state = compiler.current();
    let mut holdings = Holdings::new("default", HashMap::new());
    let names = || vec!["service/default/a".to_owned()];
    holdings.subscribe(names());
    assert_eq!(
        holdings
            .difference(&state, &workload())
            .unwrap()
            .resources
            .len(),
        4
    );
    // Both before the next delta: the sidecar has dropped it in between.
    holdings.unsubscribe(&names());
    holdings.subscribe(names());
    let again = holdings.difference(&state, &workload()).unwrap();
    assert_eq!(again.resources.len(), 1);
    assert!(again.removed.is_empty());
    // Asking for what it has is no reason.
    holdings.subscribe(names());
    assert!(holdings.difference(&state, &workload()).is_none());
}
