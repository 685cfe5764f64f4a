use std::time::{Duration, Instant};

use outrigger_proto::api::v1 as api;
use outrigger_proto::dataplane::v1 as wire;
use wire::EndpointState::{Draining, NotReady, Ready};

use crate::harness::{CHAT, Mesh, Sidecar, Up, caller, count, server};

const CHAT_SERVICE: &str = "default/chat";

/// A caller that follows the endpoints of `chat`.
async fn watcher(mesh: &Mesh) -> Sidecar {
    let credentials = mesh.join("shop").await;
    let mut watcher = mesh.open(&credentials, caller("caller-0001")).await;
    watcher.subscribe(&["endpoints/default/chat"]).await;
    watcher
        .until("endpoints", |held| {
            held.contains_key("endpoints/default/chat")
        })
        .await;
    watcher
}

async fn serving(mesh: &Mesh, instance: &str, address: &str) -> Sidecar {
    let credentials = mesh.join("chat").await;
    let mut sidecar = mesh.open(&credentials, server(instance, address)).await;
    let refusals = sidecar.announce(&[(CHAT_SERVICE, 80, Ready)]).await;
    assert!(refusals.is_empty(), "{refusals:?}");
    sidecar
}

#[tokio::test]
async fn drained_and_unready_endpoints_are_gone_at_once() {
    let mesh = Mesh::start_with(&["--lease=60s"]).await;
    mesh.apply(CHAT).await;
    let mut watcher = watcher(&mesh).await;
    let mut one = serving(&mesh, "server-0001", "127.0.0.1:9001").await;
    let _two = serving(&mesh, "server-0002", "127.0.0.1:9002").await;
    watcher.until("both", count(CHAT_SERVICE, 2)).await;
    for state in [NotReady, Draining] {
        let said = Instant::now();
        one.announce(&[(CHAT_SERVICE, 80, state)]).await;
        watcher.until("one left", count(CHAT_SERVICE, 1)).await;
        assert!(
            said.elapsed() < Duration::from_millis(500),
            "{:?}",
            said.elapsed()
        );
        // The sidecar still serves what it has.
        let record = mesh.sidecar("server-0001", |_| true).await;
        assert_eq!(record.serves, [CHAT_SERVICE]);
        one.announce(&[(CHAT_SERVICE, 80, Ready)]).await;
        watcher.until("both again", count(CHAT_SERVICE, 2)).await;
    }
    // Withdrawn by not being named any more.
    one.announce(&[]).await;
    watcher.until("one left", count(CHAT_SERVICE, 1)).await;
}

#[tokio::test]
async fn a_sidecar_that_dies_is_out_when_its_lease_ends_and_not_before() {
    let mesh = Mesh::start_with(&["--lease=1s"]).await;
    mesh.apply(CHAT).await;
    let mut watcher = watcher(&mesh).await;
    let server = serving(&mesh, "server-0001", "127.0.0.1:9001").await;
    watcher.until("it", count(CHAT_SERVICE, 1)).await;
    let died = Instant::now();
    drop(server);
    mesh.sidecar("server-0001", |it| {
        it.sync() == api::SidecarSync::Disconnected
    })
    .await;
    watcher.until("nothing", count(CHAT_SERVICE, 0)).await;
    let took = died.elapsed();
    assert!(
        took > Duration::from_millis(700) && took < Duration::from_secs(3),
        "{took:?}"
    );
}

#[tokio::test]
async fn heartbeats_keep_a_lease_and_silence_suspends_it() {
    let mesh = Mesh::start_with(&["--lease=600ms"]).await;
    mesh.apply(CHAT).await;
    let mut watcher = watcher(&mesh).await;
    let server = serving(&mesh, "server-0001", "127.0.0.1:9001").await;
    watcher.until("it", count(CHAT_SERVICE, 1)).await;
    for _ in 0..6 {
        server.beat().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    watcher.quiet().await;
    watcher.until("nothing", count(CHAT_SERVICE, 0)).await;
    // The stream is still open, so a word is enough.
    server.beat().await;
    watcher.until("it again", count(CHAT_SERVICE, 1)).await;
}

#[tokio::test]
async fn after_a_drain_a_closed_stream_leaves_nothing_behind() {
    let mesh = Mesh::start_with(&["--lease=60s"]).await;
    mesh.apply(CHAT).await;
    let mut server = serving(&mesh, "server-0001", "127.0.0.1:9001").await;
    workloads(&mesh, 1).await;
    server.announce(&[(CHAT_SERVICE, 80, Draining)]).await;
    drop(server);
    workloads(&mesh, 0).await;
}

/// Waits for a number of stored workloads.
async fn workloads(mesh: &Mesh, wanted: usize) -> Vec<api::Resource> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let request = api::ListRequest {
            kind: "Workload".to_owned(),
            ..Default::default()
        };
        let listed = mesh
            .client
            .resources()
            .list(request)
            .await
            .unwrap()
            .into_inner();
        if listed.resources.len() == wanted {
            return listed.resources;
        }
        assert!(Instant::now() < deadline, "{:?}", listed.resources);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn announcements_are_shown_as_workloads() {
    let mesh = Mesh::start().await;
    mesh.apply(CHAT).await;
    let _server = serving(&mesh, "0123456789-abc", "127.0.0.1:9001").await;
    let workload = workloads(&mesh, 1).await.remove(0);
    assert_eq!(workload.metadata.unwrap().name, "chat-01234567");
    let text = format!("{:?}", workload.spec.unwrap());
    for part in [
        "127.0.0.1:9001",
        "default/chat",
        "Ready",
        "spiffe://outrigger.local/ns/default/sa/chat",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[tokio::test]
async fn callers_keep_their_endpoints_through_a_restart() {
    let mut mesh = Mesh::start_with(&["--lease=1s"]).await;
    mesh.apply(CHAT).await;
    let server = serving(&mesh, "server-0001", "127.0.0.1:9001").await;
    workloads(&mesh, 1).await;
    mesh.restart().await;
    // Neither its lease nor the moment without it count.
    let mut watcher = watcher(&mesh).await;
    assert_eq!(watcher.endpoints(CHAT_SERVICE).unwrap().len(), 1);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    watcher.beat().await;
    watcher.quiet().await;
    drop(server);

    // It comes back as itself, and is then held to its lease.
    let back = serving(&mesh, "server-0001", "127.0.0.1:9001").await;
    watcher.quiet().await;
    mesh.sidecar("server-0001", |it| it.connected).await;
    drop(back);
}

#[tokio::test]
async fn a_restarted_sidecar_takes_the_place_of_its_dead_self() {
    let mesh = Mesh::start_with(&["--lease=60s"]).await;
    mesh.apply(CHAT).await;
    let mut watcher = watcher(&mesh).await;
    let first = serving(&mesh, "server-0001", "127.0.0.1:9001").await;
    watcher.until("it", count(CHAT_SERVICE, 1)).await;
    drop(first);
    mesh.sidecar("server-0001", |it| !it.connected).await;
    let _second = serving(&mesh, "server-0002", "127.0.0.1:9001").await;
    watcher
        .until("the new one", |held| {
            crate::harness::endpoints(held, CHAT_SERVICE)
                .is_some_and(|it| it.len() == 1 && it[0].instance == "server-0002")
        })
        .await;
    workloads(&mesh, 1).await;
}

#[tokio::test]
async fn a_caller_that_only_calls_is_no_workload_and_leaves_no_trace_of_endpoints() {
    let mesh = Mesh::start().await;
    let credentials = mesh.join("shop").await;
    let sidecar = mesh.open(&credentials, caller("caller-0001")).await;
    sidecar
        .send(Up::Announce(wire::Announce {
            endpoints: Vec::new(),
        }))
        .await;
    mesh.sidecar("caller-0001", |it| it.connected && it.address.is_empty())
        .await;
    workloads(&mesh, 0).await;
}
