use std::time::{Duration, Instant};

use outrigger_proto::api::v1 as api;
use outrigger_proto::dataplane::v1 as wire;
use tonic::Code;
use wire::EndpointState::{NotReady, Ready};

use crate::harness::{CHAT, Down, Mesh, Up, caller, count, server, service};

const CANARY: &str = r#"
apiVersion: outrigger.dev/v1alpha1
kind: Route
metadata: {name: canary}
spec:
  parentRefs: [{name: chat}]
  rules:
  - backendRefs: [{name: chat, port: 80, weight: 9}, {name: chat-v2, port: 80, weight: 1}]
"#;

fn names(delta: &wire::Delta) -> Vec<&str> {
    let mut names: Vec<&str> = delta.resources.iter().map(|it| it.name.as_str()).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn the_first_delta_has_the_mesh_and_the_workload() {
    let mesh = Mesh::start().await;
    let credentials = mesh.join("chat").await;
    let mut sidecar = mesh.open(&credentials, caller("caller-0001")).await;
    let delta = sidecar.delta().await;
    assert_eq!(names(&delta), ["mesh", "workload"]);
    assert!(delta.removed.is_empty() && delta.version > 0 && !delta.nonce.is_empty());
    sidecar.take(delta).await;
    sidecar.quiet().await;
}

#[tokio::test]
async fn a_subscription_to_a_host_brings_all_that_a_request_needs() {
    let mesh = Mesh::start().await;
    mesh.apply(&format!("{CHAT}---{}---{CANARY}", service("chat-v2")))
        .await;
    let credentials = mesh.join("shop").await;
    let mut sidecar = mesh.open(&credentials, caller("caller-0001")).await;
    let first = sidecar.delta().await;
    sidecar.take(first).await;
    sidecar.subscribe(&["host/chat.models"]).await;
    let delta = sidecar.delta().await;
    assert_eq!(
        names(&delta),
        [
            "endpoints/default/chat",
            "endpoints/default/chat-v2",
            "host/chat.models",
            "service/default/chat",
            "service/default/chat-v2",
        ]
    );
    sidecar.take(delta).await;
    let rules = sidecar.service("default/chat").unwrap().rules;
    assert_eq!(rules[0].route, "default/canary");
    assert_eq!(rules[0].backends.len(), 2);
    let record = mesh
        .sidecar("caller-0001", |it| {
            it.sync() == api::SidecarSync::Synced && it.acked_version > 0
        })
        .await;
    assert_eq!(record.subscriptions, ["host/chat.models"]);
    assert_eq!(record.acked_version, record.sent_version);
    assert_eq!(
        record.identity,
        "spiffe://outrigger.local/ns/default/sa/shop"
    );
}

#[tokio::test]
async fn an_apply_is_pushed_within_milliseconds() {
    let mesh = Mesh::start().await;
    mesh.apply(CHAT).await;
    let credentials = mesh.join("shop").await;
    let mut sidecar = mesh.open(&credentials, caller("caller-0001")).await;
    sidecar.subscribe(&["service/default/chat"]).await;
    sidecar
        .until("service", |held| held.contains_key("service/default/chat"))
        .await;
    let mut best = Duration::MAX;
    for timeout in ["1s", "2s", "3s", "4s", "5s"] {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let changed = CHAT.replace(
            "spec:",
            &format!("spec:\n  timeouts: {{request: {timeout}}}"),
        );
        mesh.apply(&changed).await;
        let applied = Instant::now();
        let delta = sidecar.delta().await;
        best = best.min(applied.elapsed());
        assert_eq!(names(&delta), ["service/default/chat"]);
        sidecar.take(delta).await;
    }
    assert!(best < Duration::from_millis(50), "{best:?}");
}

#[tokio::test]
async fn what_does_not_exist_is_answered_and_pushed_when_it_comes() {
    let mesh = Mesh::start().await;
    let credentials = mesh.join("shop").await;
    let mut sidecar = mesh.open(&credentials, caller("caller-0001")).await;
    let first = sidecar.delta().await;
    sidecar.take(first).await;
    let wanted = [
        "host/chat.models",
        "host/chat:81",
        "service/default/chat",
        "endpoints/default/chat",
        "nonsense",
        "host/",
    ];
    sidecar.subscribe(&wanted).await;
    let delta = sidecar.delta().await;
    assert!(delta.resources.is_empty());
    let mut removed = delta.removed.clone();
    removed.sort();
    let mut expected = wanted.map(str::to_owned);
    expected.sort();
    assert_eq!(removed, expected);
    sidecar.take(delta).await;
    sidecar.quiet().await;

    mesh.apply(CHAT).await;
    let delta = sidecar.delta().await;
    assert_eq!(
        names(&delta),
        [
            "endpoints/default/chat",
            "host/chat.models",
            "service/default/chat"
        ]
    );
    assert!(delta.removed.is_empty(), "{:?}", delta.removed);
    sidecar.take(delta).await;

    mesh.delete("Service", "chat").await;
    let delta = sidecar.delta().await;
    let mut removed = delta.removed.clone();
    removed.sort();
    assert_eq!(
        removed,
        [
            "endpoints/default/chat",
            "host/chat.models",
            "service/default/chat"
        ]
    );
}

#[tokio::test]
async fn hosts_are_looked_up_from_the_sidecars_namespace() {
    let mesh = Mesh::start().await;
    let elsewhere = service("chat")
        .replace("name: chat}", "name: chat, namespace: other}")
        .replace("chat.models", "other.models");
    mesh.apply(&format!("{CHAT}---{elsewhere}")).await;
    let credentials = mesh.join("shop").await;
    let mut sidecar = mesh.open(&credentials, caller("caller-0001")).await;
    let hosts = [
        "chat",
        "chat:80",
        "chat.other",
        "chat.other.svc.cluster.local:80",
        "other.models",
        "chat.nowhere",
    ];
    let wanted: Vec<String> = hosts.iter().map(|host| format!("host/{host}")).collect();
    sidecar
        .subscribe(&wanted.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    sidecar
        .until("hosts", |held| held.contains_key("host/other.models"))
        .await;
    let service = |host: &str| match sidecar.held.get(&format!("host/{host}"))?.body.clone()? {
        wire::resource::Body::Host(host) => Some((host.service, host.port)),
        other => panic!("{other:?}"),
    };
    let expect = |service: &str| Some((service.to_owned(), 80));
    assert_eq!(service("chat"), expect("default/chat"));
    assert_eq!(service("chat:80"), expect("default/chat"));
    assert_eq!(service("chat.other"), expect("other/chat"));
    assert_eq!(
        service("chat.other.svc.cluster.local:80"),
        expect("other/chat")
    );
    assert_eq!(service("other.models"), expect("other/chat"));
    assert_eq!(service("chat.nowhere"), None);
}

#[tokio::test]
async fn the_closure_grows_and_shrinks_with_the_routes() {
    let mesh = Mesh::start().await;
    mesh.apply(&format!("{CHAT}---{}", service("chat-v2")))
        .await;
    let credentials = mesh.join("shop").await;
    let mut sidecar = mesh.open(&credentials, caller("caller-0001")).await;
    sidecar.subscribe(&["host/chat"]).await;
    sidecar
        .until("host", |held| held.contains_key("host/chat"))
        .await;
    assert!(!sidecar.held.contains_key("service/default/chat-v2"));

    mesh.apply(CANARY).await;
    let delta = sidecar.delta().await;
    assert_eq!(
        names(&delta),
        [
            "endpoints/default/chat-v2",
            "service/default/chat",
            "service/default/chat-v2"
        ]
    );
    sidecar.take(delta).await;

    mesh.delete("Route", "canary").await;
    let delta = sidecar.delta().await;
    assert_eq!(names(&delta), ["service/default/chat"]);
    let mut removed = delta.removed.clone();
    removed.sort();
    assert_eq!(
        removed,
        ["endpoints/default/chat-v2", "service/default/chat-v2"]
    );
    sidecar.take(delta).await;

    sidecar.unsubscribe(&["host/chat"]).await;
    let delta = sidecar.delta().await;
    let mut removed = delta.removed.clone();
    removed.sort();
    // The host itself was dropped by the sidecar; what it brought along is told.
    assert_eq!(removed, ["endpoints/default/chat", "service/default/chat"]);
    sidecar.take(delta).await;
    sidecar.subscribe(&["host/chat"]).await;
    assert_eq!(sidecar.delta().await.resources.len(), 3);
}

#[tokio::test]
async fn a_refused_resource_is_shown_until_a_good_one_comes() {
    let mesh = Mesh::start().await;
    mesh.apply(CHAT).await;
    let credentials = mesh.join("shop").await;
    let mut sidecar = mesh.open(&credentials, caller("caller-0001")).await;
    sidecar.subscribe(&["service/default/chat"]).await;
    loop {
        let delta = sidecar.delta().await;
        if !names(&delta).contains(&"service/default/chat") {
            sidecar.take(delta).await;
            continue;
        }
        let refusal = wire::Refusal {
            name: "service/default/chat".to_owned(),
            reason: "rules[0].path: regex is too large".to_owned(),
        };
        sidecar
            .send(Up::Nack(wire::Nack {
                nonce: delta.nonce,
                refusals: vec![refusal],
            }))
            .await;
        break;
    }
    let record = mesh
        .sidecar("caller-0001", |it| !it.rejections.is_empty())
        .await;
    assert_eq!(record.sync(), api::SidecarSync::Rejected);
    assert_eq!(record.rejections[0].resource, "service/default/chat");
    assert_eq!(
        record.rejections[0].reason,
        "rules[0].path: regex is too large"
    );
    let status = mesh.get("Service", "chat").await.status.unwrap();
    let number = |name: &str| match status.fields[name].kind {
        Some(prost_types::value::Kind::NumberValue(number)) => number,
        ref other => panic!("{other:?}"),
    };
    assert_eq!((number("acceptedBy"), number("refusedBy")), (0.0, 1.0));
    // The same content is not sent again.
    sidecar.quiet().await;

    mesh.apply(&CHAT.replace("protocol: http", "protocol: grpc"))
        .await;
    let delta = sidecar.delta().await;
    sidecar.take(delta).await;
    mesh.sidecar("caller-0001", |it| it.sync() == api::SidecarSync::Synced)
        .await;
}

#[tokio::test]
async fn a_stalled_sidecar_gets_the_newest_and_holds_nobody_up() {
    let mesh = Mesh::start().await;
    mesh.apply(CHAT).await;
    let credentials = mesh.join("shop").await;
    let mut slow = mesh.open(&credentials, caller("slow-00001")).await;
    let mut fast = mesh.open(&credentials, caller("fast-00001")).await;
    for sidecar in [&mut slow, &mut fast] {
        sidecar.subscribe(&["service/default/chat"]).await;
        sidecar
            .until("service", |held| held.contains_key("service/default/chat"))
            .await;
    }
    let changed = |seconds: usize| {
        CHAT.replace(
            "spec:",
            &format!("spec:\n  timeouts: {{request: {seconds}s}}"),
        )
    };
    let timeout = |delta: &wire::Delta| match delta.resources[0].body.clone() {
        Some(wire::resource::Body::Service(service)) => {
            service.rules[0].timeouts.unwrap().request.unwrap().seconds
        }
        other => panic!("{other:?}"),
    };
    let mut unanswered = None;
    for seconds in 1..=20 {
        mesh.apply(&changed(seconds)).await;
        let delta = fast.delta().await;
        assert_eq!(timeout(&delta), i64::try_from(seconds).unwrap());
        fast.take(delta).await;
        if seconds == 1 {
            unanswered = Some(slow.delta().await);
        }
    }
    let unanswered = unanswered.unwrap();
    assert_eq!(timeout(&unanswered), 1);
    // One is on its way: nothing more comes until it is answered, and then one with the newest.
    slow.quiet().await;
    let record = mesh.sidecar("slow-00001", |_| true).await;
    assert_eq!(record.sync(), api::SidecarSync::Pending);
    slow.take(unanswered).await;
    let newest = slow.delta().await;
    assert_eq!(timeout(&newest), 20);
    slow.take(newest).await;
    slow.quiet().await;
}

#[tokio::test]
async fn an_answer_to_something_else_releases_nothing() {
    let mesh = Mesh::start().await;
    mesh.apply(CHAT).await;
    let credentials = mesh.join("shop").await;
    let mut sidecar = mesh.open(&credentials, caller("caller-0001")).await;
    let first = sidecar.delta().await;
    sidecar.subscribe(&["host/chat"]).await;
    sidecar.ack("another").await;
    sidecar.quiet().await;
    sidecar.take(first).await;
    assert_eq!(sidecar.delta().await.resources.len(), 3);
}

#[tokio::test]
async fn what_is_held_from_an_earlier_stream_is_not_sent_again_across_a_restart() {
    let mut mesh = Mesh::start().await;
    mesh.apply(&format!("{CHAT}---{}", service("embed"))).await;
    let credentials = mesh.join("shop").await;
    let mut sidecar = mesh.open(&credentials, caller("caller-0001")).await;
    sidecar.subscribe(&["host/chat", "host/embed"]).await;
    sidecar
        .until("hosts", |held| held.contains_key("host/embed"))
        .await;
    let held = sidecar.versions();
    assert_eq!(held.len(), 8);
    drop(sidecar);

    mesh.delete("Service", "embed").await;
    mesh.restart().await;
    let hello = wire::Hello {
        held: held.clone(),
        ..caller("caller-0001")
    };
    let mut sidecar = mesh.open(&credentials, hello).await;
    let delta = sidecar.delta().await;
    assert!(
        delta.resources.is_empty(),
        "sent again: {:?}",
        names(&delta)
    );
    let mut removed = delta.removed.clone();
    removed.sort();
    assert_eq!(
        removed,
        [
            "endpoints/default/embed",
            "host/embed",
            "service/default/embed"
        ]
    );
    sidecar.take(delta).await;
    sidecar.quiet().await;
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
async fn mesh_settings_are_pushed_and_services_follow_their_defaults() {
    let mesh = Mesh::start().await;
    mesh.apply(CHAT).await;
    let credentials = mesh.join("shop").await;
    let mut sidecar = mesh.open(&credentials, caller("caller-0001")).await;
    sidecar.subscribe(&["service/default/chat"]).await;
    sidecar
        .until("service", |held| held.contains_key("service/default/chat"))
        .await;
    mesh.apply(
        r#"
apiVersion: outrigger.dev/v1alpha1
kind: Mesh
metadata: {name: default}
spec:
  mtls: {mode: permissive}
  timeouts: {connect: 3s}
"#,
    )
    .await;
    let delta = sidecar.delta().await;
    assert_eq!(names(&delta), ["mesh", "service/default/chat"]);
    sidecar.take(delta).await;
    assert_eq!(
        sidecar
            .service("default/chat")
            .unwrap()
            .connect_timeout
            .unwrap()
            .seconds,
        3
    );
    let Some(wire::resource::Body::Mesh(settings)) = &sidecar.held["mesh"].body else {
        panic!("{:?}", sidecar.held["mesh"]);
    };
    assert_eq!(settings.mtls_mode(), wire::MtlsMode::Permissive);
    assert_eq!(settings.trust_domain, "outrigger.local");
}

#[tokio::test]
async fn a_stop_tells_the_streams() {
    let mut mesh = Mesh::start().await;
    let credentials = mesh.join("shop").await;
    let mut sidecar = mesh.open(&credentials, caller("caller-0001")).await;
    let stopped = Instant::now();
    mesh.restart().await;
    assert!(
        stopped.elapsed() < Duration::from_secs(3),
        "{:?}",
        stopped.elapsed()
    );
    assert_eq!(sidecar.end().await.code(), Code::Unavailable);
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
