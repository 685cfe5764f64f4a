//! Streams: what is said first, what is acknowledged, and how a lost one is taken up again.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use outrigger_proto::dataplane::v1 as wire;
use tonic::Status;
use wire::discover_request::Message as Up;
use wire::resource::Body;

use super::super::cache;
use super::*;

#[tokio::test]
async fn hello_says_who_is_there() {
    let mut fake = Fake::start();
    let application = "127.0.0.1:1".parse().unwrap();
    let side = start(&fake, serving(&fake, application));
    let stream = stream(&mut fake).await;
    assert_eq!(stream.peer.as_ref().unwrap().as_str(), ID);
    let hello = &stream.hello;
    assert_eq!(hello.instance, "run-1");
    assert_eq!(hello.proxy_version, env!("CARGO_PKG_VERSION"));
    assert_eq!(hello.inbound_address, "127.0.0.1:15006");
    assert_eq!(hello.metrics_address, "127.0.0.1:15020");
    assert_eq!(hello.labels["version"], "v1");
    assert!(hello.held.is_empty());
    assert!(hello.certificate_expires_at.is_some());
    connected(&side.shared, true).await;
    assert!(side.shared.ready().is_err(), "no configuration yet");
}

#[tokio::test]
async fn what_is_in_effect_is_acknowledged() {
    let mut fake = Fake::start();
    let side = start(&fake, settings(&fake));
    let mut stream = stream(&mut fake).await;
    assert!(matches!(stream.delta(chat(7)).await, Up::Ack(_)));
    let snapshot = side.shared.snapshot.load_full();
    assert_eq!(snapshot.version, 7);
    assert!(has_host(&snapshot, "chat"));
    assert!(side.shared.status.has_config());
    assert_eq!(metric(&side.shared, "outrigger_config_version"), 7.0);
}

#[tokio::test]
async fn what_is_refused_is_named_and_the_last_good_one_stays() {
    let mut fake = Fake::start();
    let side = start(&fake, settings(&fake));
    let mut stream = stream(&mut fake).await;
    stream.delta(chat(1)).await;
    let mut bad = service("default", "chat", 2);
    if let Some(Body::Service(service)) = &mut bad.body {
        service.rules[0].matches = vec![wire::Match {
            path: Some(wire::StringMatch {
                kind: Some(wire::string_match::Kind::Regex("(".into())),
            }),
            ..Default::default()
        }];
    }
    let other = vec![bad, host("other", "default/chat", 2)];
    let Up::Nack(nack) = stream.delta(delta(2, other)).await else {
        panic!("a bad resource was acknowledged")
    };
    assert_eq!(nack.refusals.len(), 1);
    assert_eq!(nack.refusals[0].name, "service/default/chat");
    assert!(
        nack.refusals[0]
            .reason
            .starts_with("rules[0].matches[0].path.regex: ")
    );
    let snapshot = side.shared.snapshot.load_full();
    assert!(has_host(&snapshot, "chat") && has_host(&snapshot, "other"));
    let text = side.shared.metrics.render(&side.shared);
    assert!(text.contains("outrigger_config_rejections_total{kind=\"service\"} 1"));
}

#[tokio::test]
async fn limits_that_make_no_sense_are_refused_and_the_last_good_ones_stay() {
    let mut fake = Fake::start();
    let application = "127.0.0.1:9".parse().unwrap();
    let side = start(&fake, serving(&fake, application));
    let mut stream = stream(&mut fake).await;
    let limited = |version, requests| {
        let mut limited = service("default", "chat", version);
        if let Some(Body::Service(service)) = &mut limited.body {
            service.limits = Some(wire::CallerLimits {
                requests: Some(requests),
                ..Default::default()
            });
        }
        limited
    };
    let workload = |version, limit| wire::Resource {
        name: "workload".into(),
        version,
        body: Some(Body::Workload(wire::Workload {
            ports: vec![wire::InboundPort {
                service: "default/chat".into(),
                port: 80,
                limits: Some(wire::ServerLimits {
                    concurrency: Some(wire::server_limits::Concurrency::Fixed(limit)),
                    ..Default::default()
                }),
                ..Default::default()
            }],
        })),
    };
    let places = vec![
        host("chat", "default/chat", 1),
        endpoints("default/chat", 1, vec![endpoint("10.0.0.1:80", "a")]),
    ];
    let first = [vec![limited(1, 7), workload(1, 3)], places].concat();
    assert!(matches!(stream.delta(delta(1, first)).await, Up::Ack(_)));
    let bad = vec![
        limited(2, 0),
        workload(2, 0),
        host("other", "default/chat", 2),
    ];
    let Up::Nack(nack) = stream.delta(delta(2, bad)).await else {
        panic!("limits of 0 were acknowledged")
    };
    let mut reasons: Vec<_> = nack
        .refusals
        .iter()
        .map(|it| (&*it.name, &*it.reason))
        .collect();
    reasons.sort_unstable();
    assert_eq!(
        reasons,
        [
            (
                "service/default/chat",
                "limits.requests: 0 lets nothing through"
            ),
            ("workload", "ports[0].limits.fixed: 0 lets nothing through"),
        ]
    );
    let snapshot = side.shared.snapshot.load_full();
    assert!(has_host(&snapshot, "other"), "what is good is in effect");
    let limits = &snapshot.services["default/chat"].upstream.limits;
    assert_eq!(limits.as_ref().unwrap().limits.requests, Some(7));
    let port = snapshot.inbound.values().next().unwrap();
    assert_eq!(port.gate.as_ref().unwrap().settings().limit(), 3);
    // Better ones are taken, and count what was under way before.
    let held = port.gate.as_ref().unwrap().clone();
    let better = vec![limited(3, 9), workload(3, 5)];
    assert!(matches!(stream.delta(delta(3, better)).await, Up::Ack(_)));
    let snapshot = side.shared.snapshot.load_full();
    let port = snapshot.inbound.values().next().unwrap();
    assert!(std::sync::Arc::ptr_eq(port.gate.as_ref().unwrap(), &held));
    assert_eq!(held.settings().limit(), 5);
}

#[tokio::test]
async fn a_killed_control_plane_leaves_everything_and_is_resumed() {
    let mut fake = Fake::start();
    let side = start(&fake, settings(&fake));
    let mut first = stream(&mut fake).await;
    first.delta(chat(1)).await;
    let lookup = {
        let shared = side.shared.clone();
        tokio::spawn(async move { shared.lookups.host(&shared, "nobody").await })
    };
    first.subscribe().await;
    let mut absent = delta(2, Vec::new());
    absent.removed.push("host/nobody".into());
    first.delta(absent).await;
    assert!(matches!(lookup.await.unwrap(), Some(HostEntry::Absent)));

    let (address, issuer) = (fake.address, fake.issuer.clone());
    drop(fake);
    connected(&side.shared, false).await;
    let before = side.shared.snapshot.load_full();
    assert!(has_host(&before, "chat"));

    let mut fake = again(address, issuer).await;
    let mut second = stream(&mut fake).await;
    connected(&side.shared, true).await;
    let held = second.hello.held.clone();
    assert_eq!(held.len(), 4, "{held:?}");
    assert_eq!(held["service/default/chat"], 1);
    // Absent ones have no version: they are asked for again.
    assert_eq!(second.subscribe().await.names, ["host/nobody"]);
    // The service went while the stream was away.
    let mut gone = delta(3, Vec::new());
    gone.removed = vec!["host/chat".into(), "service/default/chat".into()];
    assert!(matches!(second.delta(gone).await, Up::Ack(_)));
    assert!(
        !side
            .shared
            .snapshot
            .load()
            .services
            .contains_key("default/chat")
    );
}

#[tokio::test]
async fn an_ended_stream_is_opened_again() {
    let mut fake = Fake::start();
    let _side = start(&fake, settings(&fake));
    for _ in 0..3 {
        let ended = stream(&mut fake).await;
        ended.fail(Status::unavailable("restarting")).await;
    }
    stream(&mut fake).await;
}

#[tokio::test]
async fn a_renewed_identity_gets_a_stream_of_its_own() {
    let mut fake = Fake::start();
    let side = start(&fake, settings(&fake));
    let mut first = stream(&mut fake).await;
    first.delta(chat(1)).await;
    connected(&side.shared, true).await;
    let expires = first.hello.certificate_expires_at;
    let renewed = fake.issuer.ca.identity_for(ID, (-60, 7200));
    side.identity.send_replace(Some(Arc::new(renewed)));
    let second = stream(&mut fake).await;
    assert_ne!(second.hello.certificate_expires_at, expires);
    assert_eq!(second.hello.held.len(), 4);
    assert_eq!(
        metric(&side.shared, "outrigger_control_plane_connected"),
        1.0
    );
    assert!(has_host(&side.shared.snapshot.load(), "chat"));
}

#[tokio::test]
async fn heartbeats_come_three_times_in_a_lease() {
    let mut fake = Fake::start();
    let _side = start(&fake, settings(&fake));
    let mut stream = stream(&mut fake).await;
    let begun = std::time::Instant::now();
    for _ in 0..2 {
        stream.find(|up| matches!(up, Up::Heartbeat(_))).await;
    }
    let took = begun.elapsed();
    assert!(
        took > Duration::from_millis(1500) && took < Duration::from_millis(2900),
        "{took:?}"
    );
}

#[tokio::test]
async fn a_stored_configuration_is_started_with() {
    let dir = tempfile::tempdir().unwrap();
    let mut fake = Fake::start();
    let side = start(&fake, with_data_dir(settings(&fake), dir.path()));
    let mut stream = stream(&mut fake).await;
    stream.delta(chat(9)).await;
    let written = tokio::time::timeout(PATIENCE, async {
        while !dir.path().join(cache::FILE).exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    written.await.expect("nothing was stored");
    drop(side);

    // The control plane is away.
    let gone = Settings {
        control_plane: "127.0.0.1:1".into(),
        ..with_data_dir(settings(&fake), dir.path())
    };
    let side = start(&fake, gone.clone());
    until(
        &side.shared,
        "the stored configuration is used",
        |snapshot| snapshot.version == 9 && has_host(snapshot, "chat"),
    )
    .await;
    assert!(side.shared.status.has_config());
    drop(side);

    // It is back: what is stored is held.
    let side = start(&fake, with_data_dir(settings(&fake), dir.path()));
    let again = super::stream(&mut fake).await;
    assert_eq!(again.hello.held["host/chat"], 1);
    drop(side);

    // A damaged file is no configuration, and no reason not to start.
    std::fs::write(
        dir.path().join(cache::FILE),
        b"outrigger-config-v1 nonsense",
    )
    .unwrap();
    let side = start(&fake, gone);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!side.shared.status.has_config());
    assert!(!side.task.is_finished());
}

#[tokio::test]
async fn a_control_plane_of_another_ca_is_not_talked_to() {
    let mut fake = Fake::start();
    let other = Fake::start();
    // An identity of `other`, which trusts `other` alone.
    let (shared, queue) = shared();
    let identity = Arc::new(other.issuer.ca.identity(ID));
    let (_sender, receiver) = watch::channel(Some(identity));
    let id = ID.parse().unwrap();
    let task = tokio::spawn(super::super::run(
        shared.clone(),
        settings(&fake),
        id,
        receiver,
        queue,
    ));
    let came = tokio::time::timeout(Duration::from_millis(500), fake.stream());
    assert!(came.await.is_err(), "a stream was opened");
    assert!(!task.is_finished());
    assert_eq!(metric(&shared, "outrigger_control_plane_connected"), 0.0);
    task.abort();
}
