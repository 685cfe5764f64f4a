//! What sidecars say of themselves, and what is believed.

use outrigger_proto::dataplane::v1 as wire;
use tonic::Code;
use wire::EndpointState::{NotReady, Ready};

use crate::harness::{CHAT, Down, Mesh, Up, caller, count, server};

#[tokio::test]
async fn only_allowed_identities_serve_and_a_service_that_comes_later_counts() {
    let mesh = Mesh::start().await;
    let restricted = CHAT.replace("spec:", "spec:\n  serviceAccounts: [chat]");
    let credentials = mesh.join("chat").await;
    let mut good = mesh
        .open(&credentials, server("good-00001", "127.0.0.1:9001"))
        .await;
    let refusals = good
        .announce(&[("default/chat", 80, Ready), ("default/chat", 81, Ready)])
        .await;
    assert_eq!(refusals.len(), 2);
    assert!(
        refusals[0].reason.contains("no such service yet"),
        "{}",
        refusals[0].reason
    );

    mesh.apply(&restricted).await;
    good.subscribe(&["endpoints/default/chat"]).await;
    good.until("endpoints", count("default/chat", 1)).await;
    good.until("workload", |held| match &held["workload"].body {
        Some(wire::resource::Body::Workload(workload)) => workload.ports.len() == 1,
        _ => false,
    })
    .await;
    let endpoint = good.endpoints("default/chat").unwrap().remove(0);
    assert_eq!(endpoint.ports, [80]);
    assert_eq!(endpoint.weight, 1);
    assert!(endpoint.mtls);
    assert_eq!(endpoint.instance, "good-00001");
    assert_eq!(
        endpoint.identity,
        "spiffe://outrigger.local/ns/default/sa/chat"
    );

    let credentials = mesh.join("impostor").await;
    let mut bad = mesh
        .open(&credentials, server("bad-000001", "127.0.0.1:9002"))
        .await;
    let refusals = bad.announce(&[("default/chat", 80, Ready)]).await;
    assert!(
        refusals[0].reason.contains("may not serve it"),
        "{}",
        refusals[0].reason
    );
    good.quiet().await;
    // Its permission comes later, without a word from it.
    mesh.apply(CHAT).await;
    good.until("both", count("default/chat", 2)).await;
}

#[tokio::test]
async fn announcements_that_make_no_sense_are_refused_one_by_one() {
    let mesh = Mesh::start().await;
    mesh.apply(CHAT).await;
    let credentials = mesh.join("chat").await;
    let mut sidecar = mesh
        .open(&credentials, server("server-0001", "127.0.0.1:9001"))
        .await;
    let refusals = sidecar
        .announce(&[
            ("default/chat", 80, Ready),
            ("default/chat", 80, NotReady),
            ("chat", 80, Ready),
            ("default/chat", 0, Ready),
            ("default/chat", 70_000, Ready),
            ("default/chat", 81, Ready),
            ("default/chat", 82, wire::EndpointState::Unspecified),
        ])
        .await;
    assert_eq!(refusals.len(), 6, "{refusals:?}");
    assert!(refusals.iter().all(|it| !it.reason.is_empty()));
    let mut caller = mesh.open(&credentials, caller("caller-0001")).await;
    let refusals = caller.announce(&[("default/chat", 80, Ready)]).await;
    assert!(
        refusals[0].reason.contains("inbound address"),
        "{}",
        refusals[0].reason
    );
}

#[tokio::test]
async fn nobody_takes_over_another_identitys_instance() {
    let mesh = Mesh::start().await;
    mesh.apply(CHAT).await;
    let credentials = mesh.join("chat").await;
    let mut owner = mesh
        .open(&credentials, server("server-0001", "127.0.0.1:9001"))
        .await;
    owner.announce(&[("default/chat", 80, Ready)]).await;
    let thief = mesh.join("thief").await;
    let mut stream = mesh.dial(&thief).await.unwrap();
    stream
        .send(Up::Hello(server("server-0001", "127.0.0.1:6666")))
        .await;
    assert_eq!(stream.end().await.code(), Code::PermissionDenied);
    owner.subscribe(&["endpoints/default/chat"]).await;
    owner.until("endpoints", count("default/chat", 1)).await;
    assert_eq!(
        owner.endpoints("default/chat").unwrap()[0].address,
        "127.0.0.1:9001"
    );
}

#[tokio::test]
async fn a_newer_stream_of_an_instance_takes_the_place_of_the_older_one() {
    let mesh = Mesh::start().await;
    mesh.apply(CHAT).await;
    let credentials = mesh.join("chat").await;
    let mut old = mesh
        .open(&credentials, server("server-0001", "127.0.0.1:9001"))
        .await;
    old.announce(&[("default/chat", 80, Ready)]).await;
    let mut new = mesh
        .open(&credentials, server("server-0001", "127.0.0.1:9001"))
        .await;
    assert_eq!(old.end().await.code(), Code::Aborted);
    // The endpoints are still there, and the record is the new stream's.
    new.subscribe(&["endpoints/default/chat"]).await;
    new.until("endpoints", count("default/chat", 1)).await;
    mesh.sidecar("server-0001", |it| {
        it.connected && it.serves == ["default/chat"]
    })
    .await;
    assert_eq!(mesh.sidecars().await.len(), 1);
}

#[tokio::test]
async fn streams_that_break_the_rules_are_ended_with_a_reason() {
    let mesh = Mesh::start().await;
    let credentials = mesh.join("chat").await;
    let hello = |change: fn(&mut wire::Hello)| {
        let mut hello = caller("caller-0001");
        change(&mut hello);
        Up::Hello(hello)
    };
    for first in [
        Up::Heartbeat(wire::Heartbeat {}),
        hello(|it| it.instance.clear()),
        hello(|it| it.instance = "a/b/c/d/e/f".to_owned()),
        hello(|it| it.inbound_address = "somewhere".to_owned()),
        hello(|it| it.inbound_address = "0.0.0.0:15006".to_owned()),
        hello(|it| it.inbound_address = "10.0.0.1:0".to_owned()),
        hello(|it| it.labels = [("x".repeat(300), String::new())].into()),
        hello(|it| it.held = [("x".repeat(3000), 1)].into()),
    ] {
        let mut stream = mesh.dial(&credentials).await.unwrap();
        let text = format!("{first:?}");
        stream.send(first).await;
        let status = stream.end().await;
        assert_eq!(status.code(), Code::InvalidArgument, "{text}");
        assert!(!status.message().is_empty());
    }
    let mut stream = mesh.open(&credentials, caller("caller-0001")).await;
    stream.send(Up::Hello(caller("caller-0001"))).await;
    assert_eq!(stream.end().await.code(), Code::InvalidArgument);
    let mut stream = mesh.open(&credentials, caller("caller-0001")).await;
    let many: Vec<String> = (0..10_001)
        .map(|number| format!("host/h{number}"))
        .collect();
    stream
        .subscribe(&many.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    assert_eq!(stream.end().await.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn reports_are_taken_from_the_sidecars_own_identity_only() {
    use outrigger_proto::telemetry::v1::ReportRequest;
    use outrigger_proto::telemetry::v1::telemetry_service_client::TelemetryServiceClient;
    let mesh = Mesh::start().await;
    let credentials = mesh.join("shop").await;
    let mut stream = mesh.open(&credentials, caller("caller-0001")).await;
    let report = || ReportRequest {
        instance: "caller-0001".to_owned(),
        ..Default::default()
    };
    let address = mesh.plane().sidecar_address;
    let channel = mesh.channel(address, Some(&credentials)).await.unwrap();
    TelemetryServiceClient::new(channel)
        .report(report())
        .await
        .unwrap();
    let other = mesh.join("other").await;
    let channel = mesh.channel(address, Some(&other)).await.unwrap();
    let error = TelemetryServiceClient::new(channel)
        .report(report())
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied);
    assert!(matches!(stream.next().await, Down::Delta(_)));
}
