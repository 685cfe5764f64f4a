use std::sync::Arc;

use super::{Bench, HTTP, bench, service};
use crate::discovery::{Announced, Sidecar};
use crate::model::EndpointState;

pub(super) fn announce(
    bench: &Bench,
    instance: &str,
    account: &str,
    address: &str,
    ports: &[(u16, u32, EndpointState)],
) {
    let identity = format!("spiffe://outrigger.local/ns/default/sa/{account}")
        .parse()
        .unwrap();
    let sidecar = Sidecar {
        instance: instance.into(),
        identity: Arc::new(identity),
        address: Some(address.into()),
        labels: Arc::new([("zone".to_owned(), "a".to_owned())].into()),
        zone: "".into(),
    };
    bench.registry.connect(sidecar).unwrap();
    let announced = ports.iter().map(|(port, weight, state)| Announced {
        service: "default/chat".into(),
        port: *port,
        weight: *weight,
        state: *state,
    });
    bench.registry.announce(instance, announced.collect());
}

use EndpointState::{Draining, NotReady, Ready};

#[tokio::test]
async fn only_what_is_ready_and_may_serve_counts() {
    let mut bench = bench();
    let spec = "{ports: [{port: 80, protocol: http}], serviceAccounts: [chat], identities: ['spiffe://outrigger.local/ns/default/sa/guest']}";
    announce(&bench, "a", "chat", "10.0.0.1:1", &[(80, 1, Ready)]);
    announce(&bench, "b", "chat", "10.0.0.2:1", &[(80, 1, NotReady)]);
    announce(&bench, "c", "chat", "10.0.0.3:1", &[(80, 1, Draining)]);
    announce(&bench, "d", "stranger", "10.0.0.4:1", &[(80, 1, Ready)]);
    announce(&bench, "e", "guest", "10.0.0.5:1", &[(80, 1, Ready)]);
    announce(&bench, "f", "chat", "10.0.0.6:1", &[(81, 1, Ready)]);
    bench.put(&service("chat", spec));
    let endpoints = bench.endpoints("default/chat");
    let addresses: Vec<&str> = endpoints.iter().map(|it| it.address.as_str()).collect();
    assert_eq!(addresses, ["10.0.0.1:1", "10.0.0.5:1"]);
    assert_eq!(endpoints[0].zone, "a");
}

#[tokio::test]
async fn a_pattern_stands_for_accounts_and_not_for_paths_below_them() {
    let mut bench = bench();
    announce(&bench, "a", "anybody", "10.0.0.1:1", &[(80, 1, Ready)]);
    bench.put(&service("chat", HTTP));
    assert_eq!(bench.endpoints("default/chat").len(), 1);
    let state = bench.compiler.current();
    let compiled = &state.service("default/chat").unwrap().compiled;
    let may = |id: &str| compiled.may_be_served_by(&id.parse().unwrap());
    assert!(may("spiffe://outrigger.local/ns/default/sa/x"));
    assert!(!may("spiffe://outrigger.local/ns/default2/sa/x"));
    assert!(!may("spiffe://other.local/ns/default/sa/x"));
}

#[tokio::test]
async fn ports_with_different_weights_are_different_endpoints() {
    let mut bench = bench();
    announce(
        &bench,
        "a",
        "chat",
        "10.0.0.1:1",
        &[(80, 1, Ready), (81, 1, Ready), (82, 5, Ready)],
    );
    bench.put(&service("chat", "{ports: [{port: 80, protocol: http}, {port: 81, protocol: http}, {port: 82, protocol: http}]}"));
    let endpoints = bench.endpoints("default/chat");
    let seen: Vec<(u32, &[u32])> = endpoints
        .iter()
        .map(|it| (it.weight, it.ports.as_slice()))
        .collect();
    assert_eq!(seen, [(1, &[80, 81][..]), (5, &[82][..])]);
}

#[tokio::test]
async fn of_two_that_claim_an_address_the_newer_counts() {
    let mut bench = bench();
    announce(&bench, "a", "chat", "10.0.0.1:1", &[(80, 1, Ready)]);
    announce(&bench, "b", "chat", "10.0.0.1:1", &[(80, 1, Ready)]);
    bench.put(&service("chat", HTTP));
    let endpoints = bench.endpoints("default/chat");
    assert_eq!(endpoints.len(), 1);
    assert_eq!(endpoints[0].instance, "b");
}

#[tokio::test]
async fn static_endpoints_stand_beside_announced_ones() {
    let mut bench = bench();
    announce(&bench, "a", "chat", "10.0.0.1:1", &[(80, 3, Ready)]);
    bench.put(&service(
        "chat",
        "{ports: [{port: 80, protocol: http}], endpoints: {static: [{address: '10.0.0.9:8000', weight: 2, labels: {version: v1}, zone: b}]}}",
    ));
    let endpoints = bench.endpoints("default/chat");
    assert_eq!(endpoints.len(), 2);
    assert!(endpoints[0].mtls && endpoints[0].weight == 3);
    let fixed = &endpoints[1];
    assert_eq!(fixed.address, "10.0.0.9:8000");
    assert!(!fixed.mtls && fixed.identity.is_empty() && fixed.ports.is_empty());
    assert_eq!((fixed.weight, fixed.zone.as_str()), (2, "b"));
    assert_eq!(fixed.labels["version"], "v1");
}
