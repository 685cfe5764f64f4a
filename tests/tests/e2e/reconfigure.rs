//! Changes under load: no request may notice.

use std::time::Duration;

use outrigger_tests::load::Load;
use outrigger_tests::upstream::Http;
use outrigger_tests::{ControlPlane, Sidecar, eventually};

use crate::mesh::{Mesh, route, service};

#[tokio::test]
async fn routes_policies_and_splits_change_without_a_failure() {
    let control_plane = ControlPlane::start().await;
    let (one, two) = (Http::start("one").await, Http::start("two").await);
    control_plane.apply(&service("chat", ""));
    control_plane.apply(&service("chat-two", ""));
    let _first = Sidecar::serving(&control_plane, "chat:80", one.address()).await;
    let _second = Sidecar::builder(&control_plane, "chat")
        .serve("chat-two:80", two.address())
        .start()
        .await;
    let caller = Sidecar::caller(&control_plane).await;
    caller.reaches("chat").await;
    caller.reaches("chat-two").await;

    // A stream that is under way from before the first change until after the last.
    let (to, host) = (caller.outbound(), "chat");
    let stream =
        tokio::spawn(
            async move { outrigger_tests::client::get(to, host, "/sse?n=60&ms=100").await },
        );
    let load = Load::start(caller.outbound(), "chat", 8);
    load.runs(50).await;
    for step in 0..=20 {
        let weight = step * 5;
        control_plane.apply(&route(
            "shift",
            &format!(
                "[{{backendRefs: [{{name: chat, port: 80, weight: {}}}, {{name: chat-two, port: 80, weight: {weight}}}], \
                   timeouts: {{request: {}s}}, retry: {{attempts: {}}}}}]",
                100 - weight,
                20 + step,
                step % 3,
            ),
        ));
        let policy = ["peak-ewma", "least-request", "round-robin", "random"][step % 4];
        control_plane.apply(&service(
            "chat",
            &format!("loadBalancing: {{policy: {policy}}}"),
        ));
        load.runs(20).await;
    }
    control_plane.ctl(&["status", "--wait", "5s"]);
    let before = one.requests();
    load.runs(100).await;
    // Requests that were under way when the last change took effect may still arrive.
    assert!(
        one.requests() - before <= 8,
        "traffic still goes where its weight is 0"
    );
    let summary = load.stop().await;
    summary.assert_no_failure();
    assert!(
        summary.share("one") > 0.1 && summary.share("two") > 0.1,
        "{:?}",
        summary.by_instance
    );
    let answer = stream.await.unwrap();
    assert!(
        answer.text().ends_with("data: [DONE]\n\n"),
        "a change cut a stream"
    );
}

#[tokio::test]
async fn replicas_come_and_go_without_a_failure() {
    let mesh = Mesh::start("").await;
    let load = Load::start(mesh.caller.outbound(), "chat", 8);
    for round in 0..3 {
        let app = Http::start(&format!("replica {round}")).await;
        let mut sidecar = Sidecar::serving(&mesh.control_plane, "chat:80", app.address()).await;
        eventually(
            "the new replica gets its share",
            Duration::from_secs(10),
            async || match app.requests() {
                count if count > 20 => Ok(()),
                count => Err(format!("{count} requests")),
            },
        )
        .await;
        sidecar.sigterm();
        let status = sidecar.process().exited(Duration::from_secs(20)).await;
        assert_eq!(status.code(), Some(0));
        // The application outlives its sidecar by a moment, as in a pod.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    load.runs(100).await;
    load.stop().await.assert_no_failure();
}

/// A rolling update: each replica of three is replaced by a new one, one after the other, while requests and streams run.
#[tokio::test]
async fn all_replicas_are_replaced_without_a_failure() {
    let control_plane = ControlPlane::start().await;
    control_plane.apply(&service("chat", "connectionPool: {maxConnectionAge: 2s}"));
    let (mut replicas, mut replaced) = (Vec::new(), Vec::new());
    for number in 0..3 {
        let app = Http::start(&format!("old {number}")).await;
        let sidecar = Sidecar::serving(&control_plane, "chat:80", app.address()).await;
        replicas.push((app, sidecar));
    }
    let caller = Sidecar::caller(&control_plane).await;
    caller.reaches("chat").await;
    let load = Load::start(caller.outbound(), "chat", 8);
    let to = caller.outbound();
    let streams: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn(async move {
                outrigger_tests::client::get(to, "chat", "/sse?n=40&ms=100").await
            })
        })
        .collect();
    load.runs(100).await;
    for (number, (old_app, mut old)) in replicas.drain(..).enumerate() {
        let app = Http::start(&format!("new {number}")).await;
        let new = Sidecar::serving(&control_plane, "chat:80", app.address()).await;
        eventually(
            "the new one gets its share",
            Duration::from_secs(20),
            async || match app.requests() {
                count if count > 10 => Ok(()),
                count => Err(format!("{count} requests")),
            },
        )
        .await;
        old.sigterm();
        let status = old.process().exited(Duration::from_secs(30)).await;
        assert_eq!(status.code(), Some(0));
        drop(old_app);
        replaced.push((app, new));
        load.runs(50).await;
    }
    load.runs(100).await;
    let summary = load.stop().await;
    summary.assert_no_failure();
    for stream in streams {
        let answer = stream.await.unwrap();
        assert!(
            answer.text().ends_with("data: [DONE]\n\n"),
            "a stream was cut"
        );
    }
}

#[tokio::test]
async fn a_sidecar_that_dies_is_out_of_balancing_within_seconds() {
    let mesh = Mesh::start("retry: {attempts: 2, methods: [GET, POST], backoff: 5ms}").await;
    let app = Http::start("second").await;
    let mut second = Sidecar::serving(&mesh.control_plane, "chat:80", app.address()).await;
    eventually("both get requests", Duration::from_secs(10), async || {
        mesh.caller.get("chat", "/").await;
        if app.requests() > 0 {
            Ok(())
        } else {
            Err("none yet".to_string())
        }
    })
    .await;
    let load = Load::start(mesh.caller.outbound(), "chat", 8);
    load.runs(200).await;
    second.process().kill();
    let gone = second.inbound().to_string();
    eventually(
        "the dead endpoint is withdrawn",
        Duration::from_secs(10),
        async || {
            let endpoints = mesh.caller.admin("/endpoints").await.text();
            if endpoints.contains(&gone) {
                Err(endpoints)
            } else {
                Ok(())
            }
        },
    )
    .await;
    load.runs(100).await;
    // Retried on the other one, within the budget.
    load.stop().await.assert_no_failure();
}
