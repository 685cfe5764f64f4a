use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::client::{Http1, get};
use super::mesh::{
    Calls, Pair, Sidecar, application, calling, endpoint, nobody, plain, server, serving, sockets,
    text,
};
use crate::balance::EndpointState;
use crate::policy::Protocol;
use crate::policy::health::{CheckKind, HealthCheck};
use crate::resilience::outlier::Policy;
use crate::resilience::{checks, sweep};
use crate::tls::test_ca::TestCa;

/// Ends with the test.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What the control thread does.
fn watch(sidecar: &Sidecar) -> [Task; 2] {
    [
        Task(tokio::spawn(sweep::run(Arc::clone(&sidecar.shared)))),
        Task(tokio::spawn(checks::run(Arc::clone(&sidecar.shared)))),
    ]
}

fn outliers() -> Policy {
    Policy {
        base_ejection_time: Duration::from_millis(300),
        max_ejection_percent: 100,
        ..Policy::default()
    }
}

fn states(sidecar: &Sidecar) -> Vec<EndpointState> {
    let snapshot = sidecar.shared.snapshot.load();
    let endpoints = &snapshot.services["default/chat"].upstream.endpoints;
    endpoints.stats().iter().map(|it| it.state).collect()
}

async fn wait_for(what: &str, mut is_true: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if is_true() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

/// Answers 200, or 503 while it is told to.
struct Switch {
    address: std::net::SocketAddr,
    bad: Arc<AtomicBool>,
    seen: Arc<AtomicUsize>,
}

async fn switch(bad: bool) -> Switch {
    let bad = Arc::new(AtomicBool::new(bad));
    let seen = Arc::new(AtomicUsize::new(0));
    let (is_bad, count) = (Arc::clone(&bad), Arc::clone(&seen));
    let address = application(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        let bad = is_bad.load(Ordering::SeqCst);
        async move {
            if bad {
                let answer = Response::builder().status(StatusCode::SERVICE_UNAVAILABLE);
                return answer.body(Full::from(Bytes::from("no"))).unwrap();
            }
            text("yes")
        }
    })
    .await;
    Switch { address, bad, seen }
}

#[tokio::test]
async fn an_endpoint_that_answers_503_is_out_until_one_request_succeeds() {
    let (bad, good) = (switch(true).await, switch(false).await);
    let calls = Calls {
        outliers: Some(Policy {
            base_ejection_time: Duration::from_secs(1),
            ..outliers()
        }),
        ..Calls::default()
    };
    let caller = plain(calls, &[bad.address, good.address]);
    let _watch = watch(&caller);
    let mut failures = 0;
    for _ in 0..30 {
        failures += usize::from(get(caller.outbound(), "/").await.head.status == 503);
    }
    // In turn: the first five that it got, and not one more.
    assert_eq!(failures, 5);
    assert_eq!(states(&caller)[0], EndpointState::Ejected);
    let ejections = "outrigger_endpoint_ejections_total";
    let reason = "reason=\"consecutive-gateway-failures\"} 1";
    caller.expect_metric(&[ejections, reason]).await;
    let ejected = "state=\"ejected\"} 1";
    caller
        .expect_metric(&["outrigger_endpoints", ejected])
        .await;

    // Still bad: one request finds that out, and it is out again.
    wait_for("the probation", || {
        states(&caller)[0] == EndpointState::Probing
    })
    .await;
    let before = bad.seen.load(Ordering::SeqCst);
    for _ in 0..10 {
        get(caller.outbound(), "/").await;
    }
    assert_eq!(bad.seen.load(Ordering::SeqCst), before + 1, "one request");
    assert_eq!(states(&caller)[0], EndpointState::Ejected);

    bad.bad.store(false, Ordering::SeqCst);
    wait_for("the second probation", || {
        states(&caller)[0] == EndpointState::Probing
    })
    .await;
    for _ in 0..4 {
        assert_eq!(get(caller.outbound(), "/").await.body, "yes");
    }
    assert!(matches!(
        states(&caller)[0],
        EndpointState::Ready | EndpointState::Penalised
    ));
}

#[tokio::test]
async fn others_keep_away_while_the_one_request_is_under_way() {
    let slow = sockets(|mut stream| async move {
        let mut bytes = [0; 1024];
        let mut number = 0;
        while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {
            number += 1;
            // The probation's answer takes its time.
            if bytes.starts_with(b"GET /probe") {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let status = if bytes.starts_with(b"GET /fail") {
                "500 No"
            } else {
                "200 OK"
            };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 4\r\n\r\nslow");
            if stream.write_all(answer.as_bytes()).await.is_err() || number > 100 {
                return;
            }
        }
    })
    .await;
    let good = application(|_| async { text("good") }).await;
    let calls = Calls {
        outliers: Some(outliers()),
        ..Calls::default()
    };
    let caller = plain(calls, &[slow, good]);
    let _watch = watch(&caller);
    for _ in 0..20 {
        get(caller.outbound(), "/fail").await;
    }
    wait_for("the probation", || {
        states(&caller)[0] == EndpointState::Probing
    })
    .await;
    let address = caller.outbound();
    let probes: Vec<_> = (0..2)
        .map(|_| tokio::spawn(async move { get(address, "/probe").await.body }))
        .collect();
    wait_for("the request", || {
        let snapshot = caller.shared.snapshot.load();
        let endpoints = &snapshot.services["default/chat"].upstream.endpoints;
        endpoints.endpoints()[0].load.in_flight() == 1
    })
    .await;
    for _ in 0..10 {
        assert_eq!(get(caller.outbound(), "/").await.body, "good");
    }
    let mut bodies = Vec::new();
    for probe in probes {
        bodies.push(probe.await.unwrap());
    }
    bodies.sort();
    assert_eq!(bodies, ["good", "slow"]);
    wait_for("its return", || {
        !matches!(
            states(&caller)[0],
            EndpointState::Probing | EndpointState::Ejected
        )
    })
    .await;
}

#[tokio::test]
async fn the_last_one_is_never_out() {
    let (one, other) = (switch(true).await, switch(true).await);
    let calls = Calls {
        outliers: Some(outliers()),
        ..Calls::default()
    };
    let caller = plain(calls, &[one.address, other.address]);
    for _ in 0..40 {
        assert_eq!(get(caller.outbound(), "/").await.head.status, 503);
    }
    let out = states(&caller)
        .into_iter()
        .filter(|state| *state == EndpointState::Ejected)
        .count();
    assert_eq!(out, 1);
}

#[tokio::test]
async fn streams_that_break_after_a_200_count() {
    let breaks = sockets(|mut stream| async move {
        let mut bytes = [0; 1024];
        let _ = stream.read(&mut bytes).await;
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
        let _ = stream.write_all(head).await;
    })
    .await;
    let good = application(|_| async { text("good") }).await;
    let calls = Calls {
        outliers: Some(outliers()),
        ..Calls::default()
    };
    let caller = plain(calls, &[breaks, good]);
    for _ in 0..14 {
        let mut client = Http1::connect(caller.outbound()).await;
        client.write("GET / HTTP/1.1\r\nhost: chat\r\n\r\n").await;
        let head = client.head().await;
        assert_eq!(head.status, 200);
        if head.get("transfer-encoding").is_some() {
            while client.try_chunk().await.flatten().is_some() {}
        }
    }
    assert_eq!(states(&caller)[0], EndpointState::Ejected);
}

#[tokio::test]
async fn clients_that_leave_and_their_own_mistakes_do_not() {
    let slow = application(|request| async move {
        if request.uri().path() == "/slow" {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        let answer = Response::builder().status(404);
        answer.body(Full::from(Bytes::new())).unwrap()
    })
    .await;
    let calls = Calls {
        outliers: Some(outliers()),
        ..Calls::default()
    };
    let caller = plain(calls, &[slow, slow]);
    for _ in 0..15 {
        get(caller.outbound(), "/").await;
        let mut client = Http1::connect(caller.outbound()).await;
        client
            .write("GET /slow HTTP/1.1\r\nhost: chat\r\n\r\n")
            .await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        drop(client);
    }
    caller.idle().await;
    assert!(!states(&caller).contains(&EndpointState::Ejected));
}

fn check(kind: CheckKind) -> HealthCheck {
    HealthCheck {
        kind,
        port: 80,
        interval: Duration::from_millis(100),
        timeout: Duration::from_millis(400),
        unhealthy_threshold: 2,
        healthy_threshold: 2,
    }
}

fn http() -> CheckKind {
    CheckKind::Http {
        path: "/health".parse().unwrap(),
        host: "chat.default".parse().unwrap(),
        expected: vec![200..=299],
    }
}

#[tokio::test]
async fn checks_go_the_way_of_requests_through_both_sidecars() {
    let app = switch(false).await;
    let calls = Calls {
        checks: vec![check(http())],
        ..Calls::default()
    };
    let pair = Pair::new(calls, app.address);
    let _watch = watch(&pair.caller);
    let caller = &pair.caller;
    caller
        .expect_metric(&["outrigger_health_checks_total", "result=\"success\""])
        .await;
    assert_eq!(states(caller), [EndpointState::Ready]);
    app.bad.store(true, Ordering::SeqCst);
    wait_for("unhealthy", || {
        states(caller)[0] == EndpointState::Unhealthy
    })
    .await;
    let snapshot = caller.shared.snapshot.load_full();
    let view = snapshot.services["default/chat"]
        .upstream
        .endpoints
        .endpoints()[0]
        .health
        .view();
    assert_eq!(view.reason(), Some("health-check"));
    assert_eq!(view.last_failure.unwrap().text, "status 503");
    // There is no other: it is asked all the same.
    assert_eq!(get(pair.address(), "/").await.body, "no");
    app.bad.store(false, Ordering::SeqCst);
    wait_for("healthy", || states(caller)[0] != EndpointState::Unhealthy).await;
    // Checks are no requests of the application's.
    let outbound: u64 = caller
        .shared
        .metrics
        .all_requests()
        .iter()
        .map(|kind| kind.totals().requests)
        .sum();
    assert_eq!(outbound, 1);
    // What is no longer checked is not unhealthy.
    app.bad.store(true, Ordering::SeqCst);
    wait_for("unhealthy again", || {
        states(caller)[0] == EndpointState::Unhealthy
    })
    .await;
    let endpoints = snapshot.services["default/chat"]
        .upstream
        .endpoints
        .endpoints();
    let health = endpoints[0].health.clone();
    caller
        .set(Calls::default().snapshot(&caller.shared.metrics, vec![endpoint(app.address, false)]));
    wait_for("the end of the checks", || health.is_available()).await;
}

/// Passes connections on; while it is silent, those that there are and those that come get nothing, and stay open.
async fn relay(
    to: std::net::SocketAddr,
    silent: tokio::sync::watch::Receiver<bool>,
) -> std::net::SocketAddr {
    sockets(move |mut stream| {
        let mut silent = silent.clone();
        async move {
            let passing = async {
                let mut onward = tokio::net::TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut onward).await;
                // Kept from the peer, too, once it is silent.
                onward
            };
            let silenced = tokio::select! {
                biased;
                _ = silent.wait_for(|silent| *silent) => true,
                _ = passing => false,
            };
            if silenced {
                tokio::time::sleep(Duration::from_secs(600)).await;
                drop(stream);
            }
        }
    })
    .await
}

/// A connection to a peer is there, and nothing comes any more: no reset, no end.
#[tokio::test]
async fn a_half_open_peer_is_found_by_every_kind_of_check() {
    let serves = application(|_| async {
        let serving = Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1]);
        Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "0")
            .body(Full::from(serving))
            .unwrap()
    })
    .await;
    let grpc = CheckKind::Grpc {
        service: String::new(),
        host: "chat.default".parse().unwrap(),
    };
    for (kind, protocol) in [
        (http(), Protocol::Http),
        (grpc, Protocol::Grpc),
        (CheckKind::Tcp, Protocol::Tcp),
    ] {
        let name = kind.as_str();
        let ca = TestCa::new();
        let peer = server(&ca, super::mesh::CHAT);
        peer.set(serving(serves, protocol));
        let (silence, silent) = tokio::sync::watch::channel(false);
        let caller = calling(&ca);
        let calls = Calls {
            protocol,
            checks: vec![check(kind)],
            ..Calls::default()
        };
        let endpoints = vec![endpoint(relay(peer.inbound(), silent).await, true)];
        caller.set(calls.snapshot(&caller.shared.metrics, endpoints));
        let _watch = watch(&caller);
        caller
            .expect_metric(&["outrigger_health_checks_total", "result=\"success\""])
            .await;
        wait_for(name, || states(&caller) == [EndpointState::Ready]).await;
        silence.send_replace(true);
        wait_for(name, || states(&caller) == [EndpointState::Unhealthy]).await;
        silence.send_replace(false);
        wait_for(name, || states(&caller) == [EndpointState::Ready]).await;
    }
}

#[tokio::test]
async fn a_peer_that_does_not_prove_who_it_is_is_unhealthy() {
    let ca = TestCa::new();
    let app = switch(false).await;
    let other = server(&ca, "spiffe://outrigger.local/ns/default/sa/other");
    other.set(serving(app.address, Protocol::Http));
    let caller = calling(&ca);
    let calls = Calls {
        checks: vec![check(http())],
        ..Calls::default()
    };
    let endpoints = vec![endpoint(other.inbound(), true)];
    caller.set(calls.snapshot(&caller.shared.metrics, endpoints));
    let _watch = watch(&caller);
    wait_for("unhealthy", || {
        states(&caller)[0] == EndpointState::Unhealthy
    })
    .await;
    assert_eq!(app.seen.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn the_first_check_of_a_dead_endpoint_decides() {
    let good = application(|_| async { text("good") }).await;
    let hangs = sockets(|stream| async move {
        tokio::time::sleep(Duration::from_secs(600)).await;
        drop(stream);
    })
    .await;
    let mut slow = check(http());
    slow.interval = Duration::from_secs(600);
    slow.unhealthy_threshold = 100;
    let calls = Calls {
        checks: vec![slow],
        ..Calls::default()
    };
    // Half of them: below that all would be used.
    let caller = plain(calls, &[nobody().await, good, hangs, good]);
    let _watch = watch(&caller);
    let unhealthy = EndpointState::Unhealthy;
    wait_for("both", || {
        let states = states(&caller);
        (states[0], states[2]) == (unhealthy, unhealthy)
    })
    .await;
    for _ in 0..10 {
        assert_eq!(get(caller.outbound(), "/").await.body, "good");
    }
    let states = states(&caller);
    assert_eq!(
        (states[1], states[3]),
        (EndpointState::Ready, EndpointState::Ready)
    );
}

#[tokio::test]
async fn tcp_checks_want_a_connection_that_stays() {
    let stays = sockets(|stream| async move {
        tokio::time::sleep(Duration::from_secs(600)).await;
        drop(stream);
    })
    .await;
    let speaks = sockets(|mut stream| async move {
        let _ = stream.write_all(b"220 hello\r\n").await;
    })
    .await;
    let closes = sockets(|stream| async move { drop(stream) }).await;
    let calls = Calls {
        checks: vec![check(CheckKind::Tcp)],
        ..Calls::default()
    };
    let caller = plain(calls, &[stays, speaks, closes]);
    let _watch = watch(&caller);
    let ready = EndpointState::Ready;
    wait_for("the verdict", || {
        states(&caller) == [ready, ready, EndpointState::Unhealthy]
    })
    .await;
}
