use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::{Http1, get, once, post};
use super::mesh::{
    CALLER, CHAT, Calls, Pair, application, calling, endpoint, nobody, plain, retry, server,
    serving, sockets, text, tls,
};
use crate::balance::Policy;
use crate::policy::{Protocol, Snapshot};
use crate::runtime::Bindings;
use crate::tls::test_ca::TestCa;

#[tokio::test]
async fn hosts_that_lead_nowhere() {
    let caller = plain(Calls::default(), &[]);
    let address = caller.outbound();
    let answer = once(address, "GET / HTTP/1.1\r\nhost: nobody\r\n\r\n").await;
    assert_eq!(
        (answer.head.status, answer.head.reason()),
        (404, "no-route")
    );
    let answer = get(address, "/").await;
    assert_eq!(
        (answer.head.status, answer.head.reason()),
        (503, "no-endpoints")
    );
    assert_eq!(
        answer.head.get("content-type"),
        Some("text/plain; charset=utf-8")
    );
    let answer = get(address, "/v1/models").await;
    assert_eq!(answer.head.get("content-type"), Some("application/json"));
    assert!(
        answer.body.contains("\"code\":\"no-endpoints\""),
        "{}",
        answer.body
    );
    let text = "HEAD / HTTP/1.1\r\nhost: nobody\r\n\r\n";
    let mut client = Http1::connect(address).await;
    for _ in 0..2 {
        client.write(text).await;
        assert_eq!(client.head().await.status, 404);
    }
    caller
        .expect_metric(&[
            "outrigger_requests_total",
            "no-route",
            "code=\"4xx\"",
            "} 3",
        ])
        .await;
    let lines = caller.log_lines(5).await;
    assert!(
        lines.iter().all(|line| line["reason"] != "client-gone"),
        "{lines:?}"
    );
}

#[tokio::test]
async fn requests_without_one_host() {
    let caller = plain(Calls::default(), &[]);
    for head in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost:\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: chat\r\nhost: chat\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: user@chat\r\n\r\n",
    ] {
        let answer = once(caller.outbound(), head).await;
        assert_eq!(answer.head.status, 400, "{head}");
        assert_eq!(answer.head.reason(), "bad-request");
    }
}

#[tokio::test]
async fn heads_that_are_none() {
    let caller = plain(
        Calls::default(),
        &[application(|_| async { text("") }).await],
    );
    for (head, status) in [
        (
            "GET / HTTP/1.1\r\nhost: chat\r\nbad header\r\n\r\n".to_owned(),
            400,
        ),
        ("\0\0\0\r\n\r\n".to_owned(), 400),
        (
            "POST / HTTP/1.1\r\nhost: chat\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"
                .to_owned(),
            400,
        ),
        (
            "POST / HTTP/1.1\r\nhost: chat\r\ntransfer-encoding: gzip\r\n\r\n".to_owned(),
            400,
        ),
        (
            format!(
                "GET / HTTP/1.1\r\nhost: chat\r\nx: {}\r\n\r\n",
                "x".repeat(200_000)
            ),
            431,
        ),
        (
            format!(
                "GET / HTTP/1.1\r\nhost: chat\r\n{}\r\n",
                "x: y\r\n".repeat(200)
            ),
            431,
        ),
    ] {
        let mut client = Http1::connect(caller.outbound()).await;
        // The answer may come before all is written.
        let _ = client.stream.write_all(head.as_bytes()).await;
        assert_eq!(
            client.head().await.status,
            status,
            "{}",
            &head[..40.min(head.len())]
        );
    }
    for reason in ["bad-request", "head-too-large"] {
        caller
            .expect_metric(&["outrigger_requests_total", reason])
            .await;
    }
}

#[tokio::test]
async fn before_there_is_anything() {
    let bindings = Bindings {
        outbound: Some(super::mesh::any()),
        ..Bindings::default()
    };
    let caller = super::mesh::Sidecar::start(None, bindings);
    let answer = get(caller.outbound(), "/").await;
    assert_eq!(
        (answer.head.status, answer.head.reason()),
        (503, "not-ready")
    );
}

#[tokio::test]
async fn a_dead_application() {
    let pair = Pair::new(Calls::default(), nobody().await);
    let answer = post(pair.address(), "/", "x").await;
    assert_eq!(
        (answer.head.status, answer.head.reason()),
        (503, "connect-failed")
    );
    pair.caller
        .expect_metric(&["outrigger_requests_total", "outbound", "connect-failed"])
        .await;
    // The sidecar itself is gone.
    let caller = plain(Calls::default(), &[nobody().await]);
    let answer = get(caller.outbound(), "/").await;
    assert_eq!(
        (answer.head.status, answer.head.reason()),
        (503, "connect-failed")
    );
}

#[tokio::test]
async fn an_application_that_hangs_up() {
    let app = sockets(|mut stream| async move {
        let mut head = [0; 1024];
        let _ = stream.read(&mut head).await;
    })
    .await;
    let pair = Pair::new(Calls::default(), app);
    let one_hop = plain(Calls::default(), &[app]);
    for address in [pair.address(), one_hop.outbound()] {
        let answer = post(address, "/", "x").await;
        assert_eq!(
            (answer.head.status, answer.head.reason()),
            (502, "upstream-reset")
        );
    }
}

#[tokio::test]
async fn a_truncated_answer_does_not_look_whole() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let app = sockets(move |mut stream| async move {
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        let pair = Pair::new(Calls::default(), app);
        let one_hop = plain(Calls::default(), &[app]);
        for sidecar in [&pair.caller, &one_hop] {
            let mut client = Http1::connect(sidecar.outbound()).await;
            client.write("GET / HTTP/1.1\r\nhost: chat\r\n\r\n").await;
            let head = client.head().await;
            assert_eq!(head.status, 200);
            let mut rest = Vec::new();
            let end = client.stream.read_to_end(&mut rest).await;
            let rest = String::from_utf8(rest).unwrap();
            assert!(rest.contains("half"), "{rest:?}");
            assert!(!rest.ends_with("0\r\n\r\n"), "{rest:?} {end:?}");
            sidecar
                .expect_metric(&["outrigger_requests_total", "upstream-truncated"])
                .await;
            // And to HTTP/1.0, where only the end of the connection tells.
            let mut client = Http1::connect(sidecar.outbound()).await;
            client.write("GET / HTTP/1.0\r\nhost: chat\r\n\r\n").await;
            let head = client.head().await;
            assert_eq!(head.status, 200);
            let mut rest = Vec::new();
            let end = client.stream.read_to_end(&mut rest).await;
            assert!(
                end.is_err() || head.get("content-length") == Some("10"),
                "{end:?} {rest:?}"
            );
        }
        let mut http2 = super::http2::connect(pair.address()).await;
        let request = http::Request::get("http://chat/").body(()).unwrap();
        let (response, _) = http2.send_request(request, true).unwrap();
        let mut body = response.await.unwrap().into_body();
        let mut reset = None;
        while let Some(chunk) = body.data().await {
            if let Err(error) = chunk {
                reset = error.reason();
                break;
            }
        }
        assert_eq!(reset, Some(h2::Reason::INTERNAL_ERROR));
    }
}

#[tokio::test]
async fn servers_that_are_somebody_else() {
    let ca = TestCa::new();
    let other_ca = TestCa::new();
    let app = application(|_| async { text("secret") }).await;
    let right = server(&ca, CHAT);
    right.set(serving(app, Protocol::Http));
    let wrong_account = server(&ca, "spiffe://outrigger.local/ns/default/sa/other");
    wrong_account.set(serving(app, Protocol::Http));
    let wrong_ca = server(&other_ca, CHAT);
    wrong_ca.set(serving(app, Protocol::Http));
    let caller = calling(&ca);
    let metrics = &caller.shared.metrics;
    for (address, result) in [
        (wrong_account.inbound(), "wrong-identity"),
        (wrong_ca.inbound(), "untrusted"),
    ] {
        caller.set(Calls::default().snapshot(metrics, vec![endpoint(address, true)]));
        let answer = get(caller.outbound(), "/").await;
        assert_eq!(
            (answer.head.status, answer.head.reason()),
            (503, "upstream-untrusted")
        );
        caller
            .expect_metric(&["outrigger_tls_handshakes_total", "outbound", result])
            .await;
    }
    // It announced itself as somebody else of the service's accounts.
    let mut announced = endpoint(right.inbound(), true);
    std::sync::Arc::get_mut(&mut announced).unwrap().identity = Some(
        "spiffe://outrigger.local/ns/default/sa/chat2"
            .parse()
            .unwrap(),
    );
    let calls = Calls {
        identities: vec!["spiffe://outrigger.local/ns/default/sa/*"],
        ..Calls::default()
    };
    caller.set(calls.snapshot(metrics, vec![announced]));
    let answer = get(caller.outbound(), "/").await;
    assert_eq!(answer.head.reason(), "upstream-untrusted");
    // Another endpoint is tried, whatever the method.
    let endpoints = vec![
        endpoint(wrong_account.inbound(), true),
        endpoint(right.inbound(), true),
    ];
    caller.set(Calls::default().snapshot(metrics, endpoints));
    for _ in 0..4 {
        let answer = post(caller.outbound(), "/", "x").await;
        assert_eq!(answer.body, "secret");
    }
    // Ours is not trusted there.
    let stranger = super::mesh::Sidecar::start(
        Some(tls(&other_ca, CALLER)),
        Bindings {
            outbound: Some(super::mesh::any()),
            ..Bindings::default()
        },
    );
    let endpoints = vec![endpoint(right.inbound(), true)];
    stranger.set(Calls::default().snapshot(&stranger.shared.metrics, endpoints));
    let answer = get(stranger.outbound(), "/").await;
    assert_eq!(answer.head.reason(), "upstream-untrusted");
}

#[tokio::test]
async fn a_service_that_is_not_served() {
    let pair = Pair::new(Calls::default(), nobody().await);
    pair.server.set(Snapshot::default());
    let answer = get(pair.address(), "/").await;
    assert_eq!(
        (answer.head.status, answer.head.reason()),
        (404, "unknown-service")
    );
}

#[tokio::test]
async fn a_loop_is_found() {
    let caller = plain(Calls::default(), &[]);
    let calls = Calls {
        policy: Policy::Random,
        ..Calls::default()
    };
    let endpoints = vec![endpoint(caller.outbound(), false)];
    caller.set(calls.snapshot(&caller.shared.metrics, endpoints));
    let answer = get(caller.outbound(), "/").await;
    assert_eq!(
        (answer.head.status, answer.head.reason()),
        (508, "loop-detected")
    );

    let pair = Pair::new(Calls::default(), nobody().await);
    pair.server
        .set(serving(pair.server.inbound(), Protocol::Http));
    let answer = get(pair.address(), "/").await;
    assert_eq!(answer.head.reason(), "loop-detected");
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_at_once() {
    let (gone, mut went) = tokio::sync::mpsc::unbounded_channel();
    let app = sockets(move |mut stream| {
        let gone = gone.clone();
        async move {
            // Head and body may come in two parts.
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\nx") {
                if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            // Thinks; whoever asked is expected to wait.
            let end = stream.read_buf(&mut request).await;
            let _ = gone.send(matches!(end, Ok(0) | Err(_)));
        }
    })
    .await;
    let pair = Pair::new(Calls::default(), app);
    let one_hop = plain(Calls::default(), &[app]);
    for sidecar in [&pair.caller, &one_hop] {
        let mut client = Http1::connect(sidecar.outbound()).await;
        client
            .write("POST / HTTP/1.1\r\nhost: chat\r\ncontent-length: 1\r\n\r\nx")
            .await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(client);
        let noticed = tokio::time::timeout(Duration::from_secs(2), went.recv()).await;
        assert_eq!(noticed, Ok(Some(true)));
        let line = &sidecar.log_lines(1).await[0];
        assert_eq!(line["reason"], "client-gone");
        assert_eq!(line["status"], 499);
    }
}

#[tokio::test]
async fn what_a_client_breaks_is_not_the_upstreams_fault() {
    let app = sockets(|mut stream| async move {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
        assert!(!all.ends_with(b"0\r\n\r\n"), "a broken request looks whole");
    })
    .await;
    let caller = plain(
        Calls {
            retry: Some(retry(3)),
            ..Calls::default()
        },
        &[app],
    );
    let mut client = Http1::connect(caller.outbound()).await;
    client
        .write("PUT / HTTP/1.1\r\nhost: chat\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
        .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(client);
    let line = &caller.log_lines(1).await[0];
    assert_eq!(line["reason"], "client-gone", "{line}");
    assert_eq!(line["attempts"], 1);
}

#[tokio::test]
async fn an_answer_reaches_a_client_that_is_still_sending() {
    let caller = plain(Calls::default(), &[]);
    for _ in 0..10 {
        let mut client = Http1::connect(caller.outbound()).await;
        client
            .write("POST / HTTP/1.1\r\nhost: chat\r\ncontent-length: 4000000\r\n\r\n")
            .await;
        let chunk = [7; 100_000];
        for _ in 0..40 {
            client.stream.write_all(&chunk).await.unwrap();
        }
        let head = client.head().await;
        assert_eq!((head.status, head.reason()), (503, "no-endpoints"));
    }
}

#[tokio::test]
async fn a_server_that_lost_its_right_is_not_asked_again() {
    let app = application(|_| async { text("secret") }).await;
    let pair = Pair::new(Calls::default(), app);
    assert_eq!(get(pair.address(), "/").await.body, "secret");
    // The connection is there and stays open; the service is somebody else's now.
    let calls = Calls {
        identities: vec!["spiffe://outrigger.local/ns/default/sa/chat2"],
        ..Calls::default()
    };
    let mut endpoints = Vec::new();
    if let crate::policy::HostEntry::Service { service, .. } =
        &pair.caller.shared.snapshot.load().hosts["chat"]
    {
        endpoints.extend_from_slice(service.upstream.endpoints.endpoints());
    }
    let metrics = &pair.caller.shared.metrics;
    pair.caller.set(calls.snapshot(metrics, endpoints));
    let answer = get(pair.address(), "/").await;
    assert_eq!(answer.head.reason(), "upstream-untrusted");
}
