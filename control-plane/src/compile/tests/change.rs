use super::{HTTP, bench, route, service};
use crate::model::ResourceKey;

#[test]
fn what_nobody_can_see_makes_no_version() {
    let mut bench = bench();
    let first = bench.put(&service("chat", HTTP)).unwrap();
    assert!(bench.put(&service("chat", HTTP)).is_none());
    // A route for a service that does not exist.
    assert!(
        bench
            .put(&route("r", "{parentRefs: [{name: nobody}], rules: [{}]}"))
            .is_none()
    );
    assert_eq!(bench.compiler.current().version, first.version);
}

#[test]
fn a_change_says_what_it_touches_and_leaves_the_rest_shared() {
    let mut bench = bench();
    bench.put(&format!(
        "{}{}",
        service("chat", HTTP),
        service("embed", HTTP)
    ));
    let before = bench.compiler.current();
    let after = bench
        .put(&route(
            "r",
            "{parentRefs: [{name: chat}], rules: [{timeouts: {request: 1s}}]}",
        ))
        .unwrap();
    assert_eq!(after.version, before.version + 1);
    assert_eq!(after.changed.services, ["default/chat".into()]);
    assert!(!after.changed.mesh && !after.changed.hosts);
    let same = |name: &str| {
        let (old, new) = (before.service(name).unwrap(), after.service(name).unwrap());
        std::sync::Arc::ptr_eq(&old.compiled, &new.compiled)
    };
    assert!(same("default/embed"));
    assert!(!same("default/chat"));
}

#[test]
fn a_moved_route_leaves_its_old_service() {
    let mut bench = bench();
    bench.put(&format!(
        "{}{}",
        service("chat", HTTP),
        service("embed", HTTP)
    ));
    bench.put(&route("r", "{parentRefs: [{name: chat}], rules: [{}]}"));
    assert_eq!(bench.service("default/chat").rules[0].route, "default/r");
    let moved = bench
        .put(&route("r", "{parentRefs: [{name: embed}], rules: [{}]}"))
        .unwrap();
    assert_eq!(moved.changed.services.len(), 2);
    assert!(bench.service("default/chat").rules[0].route.is_empty());
    assert_eq!(bench.service("default/embed").rules[0].route, "default/r");
    bench.delete(ResourceKey::route("default", "r")).unwrap();
    assert!(bench.service("default/embed").rules[0].route.is_empty());
}

#[test]
fn starting_again_forgets_what_is_gone() {
    let mut bench = bench();
    bench.put(&format!(
        "{}{}",
        service("chat", HTTP),
        service("embed", HTTP)
    ));
    bench.put("{apiVersion: outrigger.dev/v1alpha1, kind: Mesh, metadata: {name: default}, spec: {mtls: {mode: permissive}}}");
    let kept: Vec<_> = super::resources(&service("chat", HTTP))
        .into_iter()
        .map(std::sync::Arc::new)
        .collect();
    bench.compiler.replace_all(&kept);
    let state = bench.compiler.compile().unwrap();
    assert!(state.service("default/chat").is_some());
    assert!(state.service("default/embed").is_none());
    assert!(state.changed.mesh);
}

#[test]
fn the_serving_side_waits_as_long_as_any_route_lets_a_stream_be_idle() {
    let mut bench = bench();
    bench.put(&format!("{}{}", service("chat", HTTP), service("v2", HTTP)));
    let idle = |bench: &super::Bench, name: &str| {
        let state = bench.compiler.current();
        let port = state
            .service(name)
            .unwrap()
            .compiled
            .inbound_port(80)
            .cloned();
        port.unwrap().stream_idle_timeout.unwrap().seconds
    };
    assert_eq!(idle(&bench, "default/v2"), 300);
    bench.put(&route("r", "{parentRefs: [{name: chat}], rules: [{backendRefs: [{name: v2}], timeouts: {streamIdle: 30m}}]}"));
    assert_eq!(idle(&bench, "default/v2"), 1800);
    assert_eq!(idle(&bench, "default/chat"), 1800);
}
