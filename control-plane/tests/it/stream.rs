use std::time::{Duration, Instant};

use outrigger_proto::api::v1 as api;
use outrigger_proto::dataplane::v1 as wire;
use tonic::Code;

use crate::harness::{CHAT, Mesh, Up, caller, service};

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
    let mut removed = delta.removed;
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
    // One that lacks nothing at all is in sync without a word.
    let hello = wire::Hello {
        held: held
            .into_iter()
            .filter(|(name, _)| !name.ends_with("embed"))
            .collect(),
        ..caller("caller-0002")
    };
    let mut other = mesh.open(&credentials, hello).await;
    other.quiet().await;
    let record = mesh
        .sidecar("caller-0002", |it| it.sync() == api::SidecarSync::Synced)
        .await;
    let version = mesh
        .client
        .mesh()
        .get_status(api::GetStatusRequest {})
        .await
        .unwrap();
    assert_eq!(record.acked_version, version.into_inner().config_version);
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
