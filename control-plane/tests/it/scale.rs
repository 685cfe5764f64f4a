use std::time::{Duration, Instant};

use outrigger_proto::dataplane::v1::EndpointState::{Draining, Ready};

use crate::harness::{CHAT, Mesh, caller, count, server};

/// Connections in this process; each has its own TLS session, stream and task on both sides.
const SIDECARS: usize = 300;

/// `cargo test -p outrigger-control-plane --test it scale -- --nocapture` shows the figures.
#[tokio::test(flavor = "multi_thread")]
async fn many_sidecars_get_a_change_at_once() {
    let mesh = Mesh::start().await;
    mesh.apply(CHAT).await;
    let token = mesh.token("shop", SIDECARS as u32).await;
    let started = Instant::now();
    let mut sidecars = Vec::new();
    for number in 0..SIDECARS {
        let credentials = mesh.join_with(&token).await.unwrap();
        let mut sidecar = mesh
            .open(&credentials, caller(&format!("caller-{number:05}")))
            .await;
        sidecar.subscribe(&["host/chat"]).await;
        sidecar
            .until("host", |held| held.contains_key("host/chat"))
            .await;
        sidecars.push(sidecar);
    }
    println!("{SIDECARS} joined and connected in {:?}", started.elapsed());

    let credentials = mesh.join("chat").await;
    let mut one = mesh
        .open(&credentials, server("server-0001", "127.0.0.1:9001"))
        .await;
    for (state, wanted) in [(Ready, 1), (Draining, 0)] {
        let said = Instant::now();
        one.announce(&[("default/chat", 80, state)]).await;
        for sidecar in &mut sidecars {
            sidecar
                .until("endpoints", count("default/chat", wanted))
                .await;
        }
        let took = said.elapsed();
        println!("{state:?} is known to all in {took:?}");
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
}
