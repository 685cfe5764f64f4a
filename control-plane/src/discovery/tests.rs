#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::persist::workload_name;
use super::*;

const LEASE: Duration = Duration::from_secs(5);

struct Bench {
    registry: Arc<Registry>,
    services: mpsc::UnboundedReceiver<Arc<str>>,
    _instances: mpsc::UnboundedReceiver<Arc<str>>,
}

fn bench() -> Bench {
    let (services, changed) = mpsc::unbounded_channel();
    let (instances, _instances) = mpsc::unbounded_channel();
    let signals = Signals {
        services,
        instances,
    };
    Bench {
        registry: Arc::new(Registry::new(LEASE, signals)),
        services: changed,
        _instances,
    }
}

fn sidecar(instance: &str, account: &str) -> Sidecar {
    let identity = SpiffeId::new("outrigger.local", "default", account).unwrap();
    Sidecar {
        instance: instance.into(),
        identity: Arc::new(identity),
        address: Some(format!("{instance}.example:15006").into()),
        labels: Arc::default(),
        zone: "".into(),
    }
}

fn endpoint(state: EndpointState) -> Announced {
    Announced {
        service: "default/chat".into(),
        port: 80,
        weight: 1,
        state,
    }
}

impl Bench {
    fn live(&self) -> usize {
        self.registry.candidates("default/chat").len()
    }

    /// Whether anything was signalled since the last time.
    fn signalled(&mut self) -> bool {
        let mut any = false;
        while self.services.try_recv().is_ok() {
            any = true;
        }
        any
    }

    async fn pass(&self, time: Duration) {
        tokio::time::advance(time).await;
        self.registry.expire(Instant::now());
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_lasts_exactly_as_long_as_it_says() {
    let mut bench = bench();
    bench.registry.connect(sidecar("a", "chat")).unwrap();
    bench
        .registry
        .announce("a", vec![endpoint(EndpointState::Ready)]);
    bench.registry.disconnect("a");
    assert!(bench.signalled());
    bench.pass(LEASE - Duration::from_millis(1)).await;
    assert_eq!(bench.live(), 1);
    assert!(!bench.signalled());
    bench.pass(Duration::from_millis(1)).await;
    assert_eq!(bench.live(), 0);
    assert!(bench.signalled());
}

#[tokio::test(start_paused = true)]
async fn each_word_renews_the_lease_and_signals_nothing() {
    let mut bench = bench();
    bench.registry.connect(sidecar("a", "chat")).unwrap();
    bench
        .registry
        .announce("a", vec![endpoint(EndpointState::Ready)]);
    bench.signalled();
    for _ in 0..10 {
        bench.pass(LEASE * 9 / 10).await;
        bench.registry.touch("a");
        bench
            .registry
            .announce("a", vec![endpoint(EndpointState::Ready)]);
    }
    assert_eq!(bench.live(), 1);
    assert!(!bench.signalled());
}

#[tokio::test(start_paused = true)]
async fn a_silent_sidecar_is_back_with_its_first_word() {
    let mut bench = bench();
    bench.registry.connect(sidecar("a", "chat")).unwrap();
    bench
        .registry
        .announce("a", vec![endpoint(EndpointState::Ready)]);
    bench.pass(LEASE).await;
    assert_eq!(bench.live(), 0);
    bench.signalled();
    bench.registry.touch("a");
    assert_eq!(bench.live(), 1);
    assert!(bench.signalled());
    // Silent and then gone: nothing is left of it.
    bench.pass(LEASE).await;
    bench.registry.disconnect("a");
    assert!(bench.registry.identity("a").is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_restored_has_its_grace_and_then_the_lease_of_the_living() {
    let bench = bench();
    let grace = LEASE * 3;
    bench.registry.restore(
        sidecar("a", "chat"),
        vec![endpoint(EndpointState::Ready)],
        grace,
    );
    bench.registry.restore(
        sidecar("b", "chat"),
        vec![endpoint(EndpointState::Ready)],
        grace,
    );
    bench.pass(grace - Duration::from_millis(1)).await;
    assert_eq!(bench.live(), 2);
    bench.registry.connect(sidecar("a", "chat")).unwrap();
    bench.pass(Duration::from_millis(1)).await;
    // What a sidecar announced before counts until it announces anew.
    assert_eq!(bench.live(), 1);
    bench
        .registry
        .announce("a", vec![endpoint(EndpointState::NotReady)]);
    assert_eq!(bench.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_instance_belongs_to_its_identity_while_it_is_known() {
    let bench = bench();
    bench.registry.connect(sidecar("a", "chat")).unwrap();
    bench
        .registry
        .announce("a", vec![endpoint(EndpointState::Ready)]);
    bench.registry.disconnect("a");
    bench.registry.connect(sidecar("a", "thief")).unwrap_err();
    bench.pass(LEASE).await;
    bench.registry.connect(sidecar("a", "thief")).unwrap();
}

#[test]
fn workloads_are_named_by_account_and_instance() {
    assert_eq!(workload_name("chat", "0123456789-abc"), "chat-01234567");
    assert_eq!(workload_name("chat", "ABCDEFG-HIJ"), "chat-abcdefg");
    let name = workload_name(&"x".repeat(63), "0123456789");
    assert_eq!(name.len(), 63);
}
