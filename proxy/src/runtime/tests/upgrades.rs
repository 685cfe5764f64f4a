use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::Http1;
use super::mesh::{
    CHAT, Calls, Onto, Pair, application, calling, endpoint, nobody, plain, server, serving,
    sockets, text,
};
use crate::policy::{Cause, Causes, Protocol, Timeouts};
use crate::tls::test_ca::TestCa;

const ASK: &str = "GET /ws HTTP/1.1\r\nhost: chat\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-key: x\r\n\r\n";

/// Changes the protocol and sends back what it gets.
async fn echo() -> std::net::SocketAddr {
    sockets(|mut stream| async move {
        let mut head = vec![0; 2048];
        let count = stream.read(&mut head).await.unwrap();
        let head = String::from_utf8_lossy(&head[..count]).to_ascii_lowercase();
        assert!(head.contains("connection: upgrade"), "{head}");
        assert!(head.contains("upgrade: websocket"), "{head}");
        let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
            sec-websocket-accept: y\r\n\r\nhello";
        stream.write_all(answer.as_bytes()).await.unwrap();
        let mut bytes = [0; 1024];
        while let Ok(count @ 1..) = stream.read(&mut bytes).await {
            stream.write_all(&bytes[..count]).await.unwrap();
        }
    })
    .await
}

#[tokio::test]
async fn a_websocket() {
    let app = echo().await;
    let pair = Pair::new(Calls::default(), app);
    let one_hop = plain(Calls::default(), &[app]);
    for sidecar in [&pair.caller, &one_hop] {
        let mut client = Http1::connect(sidecar.outbound()).await;
        client.write(ASK).await;
        let head = client.head().await;
        assert_eq!(head.status, 101);
        assert_eq!(head.get("upgrade"), Some("websocket"));
        assert_eq!(head.get("sec-websocket-accept"), Some("y"));
        let mut bytes = [0; 5];
        client.stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"hello");
        for _ in 0..5 {
            client.write("frame").await;
            client.stream.read_exact(&mut bytes).await.unwrap();
            assert_eq!(&bytes, b"frame");
        }
        client.stream.shutdown().await.unwrap();
        assert!(client.is_closed().await);
        let line = &sidecar.log_lines(1).await[0];
        assert_eq!(line["status"], 101);
        assert_eq!(line["bytes_in"], 25);
        assert_eq!(line["bytes_out"], 30);
        sidecar.idle().await;
    }
    pair.server.idle().await;
}

#[tokio::test]
async fn an_upgrade_that_is_declined() {
    let app = application(|_| async { text("no thanks") }).await;
    let pair = Pair::new(Calls::default(), app);
    let mut client = Http1::connect(pair.address()).await;
    let answer = client.request(ASK).await;
    assert_eq!(
        (answer.head.status, answer.body.as_str()),
        (200, "no thanks")
    );
    // The connection is still one of HTTP.
    let answer = client.request("GET / HTTP/1.1\r\nhost: chat\r\n\r\n").await;
    assert_eq!(answer.body, "no thanks");
}

#[tokio::test]
async fn an_upgrade_finds_another_endpoint() {
    let caller = plain(Calls::default(), &[nobody().await, echo().await]);
    for _ in 0..2 {
        let mut client = Http1::connect(caller.outbound()).await;
        client.write(ASK).await;
        assert_eq!(client.head().await.status, 101);
    }
}

#[tokio::test]
async fn a_websocket_that_is_silent() {
    let calls = Calls {
        timeouts: Timeouts {
            stream_idle: Some(Duration::from_millis(200)),
            ..Timeouts::default()
        },
        ..Calls::default()
    };
    let caller = plain(calls, &[echo().await]);
    let mut client = Http1::connect(caller.outbound()).await;
    client.write(ASK).await;
    assert_eq!(client.head().await.status, 101);
    let mut all = Vec::new();
    let read = client.stream.read_to_end(&mut all);
    let _ = tokio::time::timeout(Duration::from_secs(5), read)
        .await
        .unwrap();
    let line = &caller.log_lines(1).await[0];
    assert_eq!(line["reason"], "stream-idle-timeout");
}

#[tokio::test]
async fn connect_makes_a_tunnel() {
    let app = sockets(|mut stream| async move {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        all.reverse();
        stream.write_all(&all).await.unwrap();
    })
    .await;
    let calls = Calls {
        protocol: Protocol::Tcp,
        ..Calls::default()
    };
    let pair = Pair::new(calls.clone(), app);
    let mut client = Http1::connect(pair.address()).await;
    client
        .write("CONNECT chat:80 HTTP/1.1\r\nhost: chat:80\r\n\r\n")
        .await;
    let head = client.head().await;
    assert_eq!(head.status, 200);
    client.write("abc").await;
    client.stream.shutdown().await.unwrap();
    let mut all = String::new();
    client.stream.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "cba");
    // Plain requests are not for such a port.
    let answer = super::client::get(pair.address(), "/").await;
    assert_eq!(
        (answer.head.status, answer.head.reason()),
        (501, "method-not-supported")
    );
    let endpoints = vec![endpoint(nobody().await, true)];
    let metrics = &pair.caller.shared.metrics;
    pair.caller.set(calls.snapshot(metrics, endpoints));
    let mut client = Http1::connect(pair.address()).await;
    client
        .write("CONNECT chat:80 HTTP/1.1\r\nhost: chat:80\r\n\r\n")
        .await;
    let head = client.head().await;
    assert_eq!((head.status, head.reason()), (503, "connect-failed"));
}

/// Accepts connections and answers nothing.
async fn mute() -> std::net::SocketAddr {
    sockets(|mut stream| async move {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
    })
    .await
}

#[tokio::test]
async fn an_upgrade_is_answered_in_time() {
    let short = Some(Duration::from_millis(150));
    for (timeouts, reason) in [
        (
            Timeouts {
                request: short,
                ..Timeouts::default()
            },
            "request-timeout",
        ),
        (
            Timeouts {
                response_headers: short,
                ..Timeouts::default()
            },
            "response-headers-timeout",
        ),
        (
            Timeouts {
                per_try: short,
                ..Timeouts::default()
            },
            "per-try-timeout",
        ),
    ] {
        let calls = Calls {
            timeouts,
            ..Calls::default()
        };
        let pair = Pair::new(calls, mute().await);
        let mut client = Http1::connect(pair.address()).await;
        let answer = client.request(ASK).await;
        assert_eq!((answer.head.status, answer.head.reason()), (504, reason));
        // The application is not left with it.
        pair.server.idle().await;
    }
    // The caller's own time counts beside the application, too.
    let server = server(&TestCa::new(), CHAT);
    let mut snapshot = serving(mute().await, Protocol::Http);
    snapshot.mesh.permissive = true;
    server.set(snapshot);
    let mut client = Http1::connect(server.inbound()).await;
    let ask = ASK.replace("sec-", "x-request-timeout-ms: 150\r\nsec-");
    let answer = client.request(&ask).await;
    assert_eq!(
        (answer.head.status, answer.head.reason()),
        (504, "deadline-exceeded")
    );
}

#[tokio::test]
async fn clocks_of_the_answer_do_not_end_what_follows() {
    let calls = Calls {
        timeouts: Timeouts {
            request: Some(Duration::from_millis(1500)),
            ..Timeouts::default()
        },
        ..Calls::default()
    };
    let pair = Pair::new(calls, echo().await);
    let mut client = Http1::connect(pair.address()).await;
    client.write(ASK).await;
    assert_eq!(client.head().await.status, 101);
    let mut bytes = [0; 5];
    client.stream.read_exact(&mut bytes).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1700)).await;
    client.write("frame").await;
    client.stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"frame");
}

#[tokio::test]
async fn an_upgrade_has_fallbacks() {
    let spare = echo().await;
    let calls = Calls {
        fallbacks: vec![(
            [Cause::ConnectFailed].into_iter().collect::<Causes>(),
            Onto::Service("default/spare", vec![spare]),
        )],
        expose_attempts: true,
        ..Calls::default()
    };
    let caller = plain(calls, &[nobody().await]);
    let mut client = Http1::connect(caller.outbound()).await;
    client.write(ASK).await;
    let head = client.head().await;
    assert_eq!(head.status, 101);
    assert_eq!(head.get("x-outrigger-fallback"), Some("default/spare"));
    assert_eq!(head.get("x-outrigger-attempts"), Some("2"));
    let mut bytes = [0; 5];
    client.stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"hello");
}

#[tokio::test]
async fn an_upgrade_leaves_a_sidecar_whose_application_is_gone() {
    let ca = TestCa::new();
    let (dead, alive) = (server(&ca, CHAT), server(&ca, CHAT));
    dead.set(serving(nobody().await, Protocol::Http));
    alive.set(serving(echo().await, Protocol::Http));
    let caller = calling(&ca);
    let endpoints = vec![
        endpoint(dead.inbound(), true),
        endpoint(alive.inbound(), true),
    ];
    caller.set(Calls::default().snapshot(&caller.shared.metrics, endpoints));
    for _ in 0..2 {
        let mut client = Http1::connect(caller.outbound()).await;
        client.write(ASK).await;
        assert_eq!(client.head().await.status, 101);
    }
}
