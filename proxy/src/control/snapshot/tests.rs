#![allow(clippy::unwrap_used)]
use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::dataplane::v1 as wire;
use wire::resource::Body;

use super::{Applications, Builder};
use crate::balance::{Endpoint, Policy};
use crate::control::resources::Resources;
use crate::control::testing::{delta, endpoint, endpoints, host, mesh, rule_to, service};
use crate::dns::Names;
use crate::policy::{HostEntry, Service, Snapshot};
use crate::telemetry::metrics::Metrics;

struct World {
    resources: Resources,
    builder: Builder,
    version: u64,
}

impl World {
    fn new() -> World {
        let mut applications = Applications::new();
        applications.insert(
            ("default/chat".into(), 80),
            super::Application {
                address: "127.0.0.1:8000".parse().unwrap(),
                proxy_protocol: None,
            },
        );
        World {
            resources: Resources::new(false),
            builder: Builder::new(
                "outrigger.local",
                "".into(),
                applications,
                Arc::new(Metrics::new()),
                Names::unresolved(Arc::default()),
            ),
            version: 0,
        }
    }

    fn apply(&mut self, resources: Vec<wire::Resource>) -> Snapshot {
        self.version += 1;
        let delta = delta(self.version, resources);
        let refusals = self.resources.apply(delta, "outrigger.local", |_| true);
        assert_eq!(refusals, []);
        self.builder.build(&self.resources)
    }

    fn remove(&mut self, names: &[&str]) -> Snapshot {
        let mut delta = delta(self.version + 1, Vec::new());
        delta.removed = names.iter().map(|name| (*name).to_owned()).collect();
        self.version += 1;
        self.resources.apply(delta, "outrigger.local", |_| true);
        self.builder.build(&self.resources)
    }
}

fn found<'a>(snapshot: &'a Snapshot, authority: &str) -> &'a Arc<Service> {
    match &snapshot.hosts[authority] {
        HostEntry::Service { service, .. } => service,
        HostEntry::Absent => panic!("{authority} is absent"),
    }
}

fn chosen(snapshot: &Snapshot) -> Vec<Arc<Endpoint>> {
    let set = &found(snapshot, "chat").rules[0].backends[0].endpoints;
    set.endpoints().to_vec()
}

fn chat(endpoints_version: u64, list: Vec<wire::Endpoint>) -> Vec<wire::Resource> {
    vec![
        host("chat", "default/chat", 1),
        service("default", "chat", 1),
        endpoints("default/chat", endpoints_version, list),
    ]
}

fn changed(
    mut resource: wire::Resource,
    change: impl FnOnce(&mut wire::Service),
) -> wire::Resource {
    resource.version += 1;
    match &mut resource.body {
        Some(Body::Service(service)) => change(service),
        _ => unreachable!(),
    }
    resource
}

#[test]
fn endpoints_that_stay_are_the_same_objects() {
    let mut world = World::new();
    let a = endpoint("10.0.0.1:1", "a");
    let b = endpoint("10.0.0.2:1", "b");
    let first = world.apply(chat(1, vec![a.clone(), b]));
    let in_flight = chosen(&first)[0].begin();

    // b goes, c comes.
    let c = endpoint("10.0.0.3:1", "c");
    let second = world.apply(vec![endpoints("default/chat", 2, vec![a.clone(), c])]);
    let (before, after) = (chosen(&first), chosen(&second));
    assert!(Arc::ptr_eq(&before[0], &after[0]));
    assert_eq!(after[1].address.to_string(), "10.0.0.3:1");
    assert_eq!(after[0].load.in_flight(), 1);

    // Another weight is another endpoint with the same load; another instance is another server.
    let mut heavier = a;
    heavier.weight = 5;
    let third = world.apply(vec![endpoints("default/chat", 3, vec![heavier])]);
    let heavier = chosen(&third).remove(0);
    assert!(!Arc::ptr_eq(&heavier, &after[0]) && heavier.is_same(&after[0]));
    assert_eq!((heavier.weight, heavier.load.in_flight()), (5, 1));
    let restarted = endpoint("10.0.0.1:1", "a2");
    let fourth = world.apply(vec![endpoints("default/chat", 4, vec![restarted])]);
    assert!(!chosen(&fourth)[0].is_same(&heavier));
    drop(in_flight);
    assert_eq!(heavier.load.in_flight(), 0);
}

#[test]
fn what_did_not_change_is_the_same_object() {
    let mut world = World::new();
    let mut resources = chat(1, vec![endpoint("10.0.0.1:1", "a")]);
    resources.push(host("other", "default/other", 1));
    resources.push(service("default", "other", 1));
    let first = world.apply(resources);
    // Only `other` changes.
    let second = world.apply(vec![endpoints(
        "default/other",
        2,
        vec![endpoint("10.0.0.9:1", "z")],
    )]);
    assert!(Arc::ptr_eq(found(&first, "chat"), found(&second, "chat")));
    assert!(!Arc::ptr_eq(
        found(&first, "other"),
        found(&second, "other")
    ));

    // New endpoint versions with the same content change nothing.
    let third = world.apply(vec![endpoints(
        "default/chat",
        2,
        vec![endpoint("10.0.0.1:1", "a")],
    )]);
    assert!(Arc::ptr_eq(found(&first, "chat"), found(&third, "chat")));
}

#[test]
fn another_policy_makes_new_sets_of_the_same_endpoints() {
    let mut world = World::new();
    let first = world.apply(chat(1, vec![endpoint("10.0.0.1:1", "a")]));
    let round_robin = changed(service("default", "chat", 1), |service| {
        service.load_balancing = Some(wire::LoadBalancing {
            policy: wire::load_balancing::Policy::RoundRobin.into(),
            ewma_decay: Some(prost_types::Duration {
                seconds: 3,
                nanos: 0,
            }),
            ..Default::default()
        });
    });
    let second = world.apply(vec![round_robin]);
    let set = &found(&second, "chat").rules[0].backends[0].endpoints;
    assert_eq!(
        (set.policy(), set.decay()),
        (Policy::RoundRobin, Duration::from_secs(3))
    );
    assert!(Arc::ptr_eq(&chosen(&first)[0], &chosen(&second)[0]));
    let budget = |snapshot: &Snapshot| found(snapshot, "chat").rules[0].budget.clone();
    assert!(Arc::ptr_eq(&budget(&first), &budget(&second)));
    let turns = |snapshot: &Snapshot| found(snapshot, "chat").rules[0].turns.clone();
    assert!(
        Arc::ptr_eq(&turns(&first), &turns(&second)),
        "the split goes on"
    );
    let metrics =
        |snapshot: &Snapshot| found(snapshot, "chat").rules[0].backends[0].metrics.clone();
    assert!(Arc::ptr_eq(&metrics(&first), &metrics(&second)));
}

#[test]
fn subsets_and_ports_choose_endpoints() {
    let mut world = World::new();
    let labelled = |address: &str, version: &str, ports: &[u32]| {
        let mut endpoint = endpoint(address, address);
        endpoint.labels.insert("version".into(), version.into());
        endpoint.ports = ports.to_vec();
        endpoint
    };
    let list = vec![
        labelled("10.0.0.1:1", "v1", &[80]),
        labelled("10.0.0.2:1", "v2", &[80, 81]),
        labelled("10.0.0.3:1", "v2", &[81]),
    ];
    let split = changed(service("default", "chat", 1), |service| {
        service.ports.push(wire::ServicePort {
            port: 81,
            name: "grpc".into(),
            protocol: wire::Protocol::Grpc.into(),
            ..Default::default()
        });
        let mut backend = service.rules[0].backends[0].clone();
        backend.subset.insert("version".into(), "v2".into());
        service.rules[0].backends.push(backend.clone());
        backend.port = 81;
        service.rules[0].backends.push(backend.clone());
        backend.port = 82;
        service.rules[0].backends.push(backend);
    });
    let snapshot = world.apply(vec![
        host("chat", "default/chat", 1),
        split,
        endpoints("default/chat", 1, list),
    ]);
    let service = found(&snapshot, "chat");
    let addresses = |index: usize| -> Vec<String> {
        let set = &service.rules[0].backends[index].endpoints;
        set.endpoints()
            .iter()
            .map(|endpoint| endpoint.address.to_string())
            .collect()
    };
    assert_eq!(addresses(0), ["10.0.0.1:1", "10.0.0.2:1"]);
    assert_eq!(addresses(1), ["10.0.0.2:1"]);
    assert_eq!(addresses(2), ["10.0.0.2:1", "10.0.0.3:1"]);
    assert_eq!(addresses(3), [""; 0], "a port that does not exist");
    assert_eq!(service.upstream.endpoints.endpoints().len(), 3);
    let backend = &service.rules[0].backends[2];
    assert_eq!(backend.protocol, crate::policy::Protocol::Grpc);
    assert_eq!(
        backend.server_name.to_str(),
        "81.chat.default.outrigger.local"
    );
}

#[test]
fn a_backend_that_does_not_exist_has_no_endpoints_until_it_does() {
    let mut world = World::new();
    let split = changed(service("default", "chat", 1), |service| {
        service.rules[0]
            .backends
            .push(rule_to("default/v2").backends.remove(0));
    });
    let first = world.apply(vec![host("chat", "default/chat", 1), split]);
    let count = |snapshot: &Snapshot| {
        found(snapshot, "chat").rules[0].backends[1]
            .endpoints
            .endpoints()
            .len()
    };
    assert_eq!(found(&first, "chat").rules[0].backends.len(), 2);
    assert_eq!(count(&first), 0);
    let second = world.apply(vec![
        service("default", "v2", 1),
        endpoints("default/v2", 1, vec![endpoint("10.0.0.1:1", "a")]),
    ]);
    assert_eq!(count(&second), 1);
    let third = world.remove(&["service/default/v2", "endpoints/default/v2"]);
    assert_eq!(count(&third), 0);
}

#[test]
fn hosts_come_and_go() {
    let mut world = World::new();
    let snapshot = world.remove(&["host/chat"]);
    assert!(matches!(snapshot.hosts["chat"], HostEntry::Absent));
    let snapshot = world.apply(chat(1, vec![]));
    found(&snapshot, "chat");
    let snapshot = world.remove(&["host/chat"]);
    assert!(matches!(snapshot.hosts["chat"], HostEntry::Absent));
    // A host whose service is not there is no answer, and nobody waits for one.
    let snapshot = world.apply(vec![host("lost", "default/lost", 1)]);
    assert!(!snapshot.hosts.contains_key("lost"));
    assert!(snapshot.unusable.contains("host/lost"));
    let snapshot = world.apply(vec![service("default", "lost", 1)]);
    found(&snapshot, "lost");
    assert!(!snapshot.unusable.contains("host/lost"));
}

#[test]
fn inbound_ports_are_those_that_are_served_here() {
    let mut world = World::new();
    let port = |service: &str, port: u32| wire::InboundPort {
        service: service.into(),
        port,
        protocol: wire::Protocol::Http2.into(),
        stream_idle_timeout: None,
        ..Default::default()
    };
    let workload = wire::Resource {
        name: "workload".into(),
        version: 1,
        body: Some(Body::Workload(wire::Workload {
            ports: vec![port("default/chat", 80), port("default/other", 80)],
        })),
    };
    let snapshot = world.apply(vec![mesh(1), workload]);
    assert_eq!(snapshot.inbound.len(), 1);
    let inbound = &snapshot.inbound["80.chat.default.outrigger.local"];
    assert_eq!(inbound.application.to_string(), "127.0.0.1:8000");
    assert_eq!(inbound.protocol, crate::policy::Protocol::Http2);
}

#[test]
fn a_bad_resource_rejects_only_itself() {
    let mut world = World::new();
    let first = world.apply(chat(1, vec![endpoint("10.0.0.1:1", "a")]));
    let bad = changed(service("default", "chat", 1), |service| {
        service.rules[0].backends.clear()
    });
    let other = service("default", "other", 1);
    let delta = delta(2, vec![bad, host("other", "default/other", 1), other]);
    let refusals = world.resources.apply(delta, "outrigger.local", |_| true);
    assert_eq!(refusals.len(), 1);
    assert_eq!(refusals[0].name, "service/default/chat");
    let second = world.builder.build(&world.resources);
    found(&second, "other");
    assert!(Arc::ptr_eq(found(&first, "chat"), found(&second, "chat")));
    assert_eq!(world.resources.versions()["service/default/chat"], 1);
}
