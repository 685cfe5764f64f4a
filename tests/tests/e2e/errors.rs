//! What callers get where there is nothing to get, and for requests that are no requests.

use std::net::SocketAddr;
use std::time::Duration;

use outrigger_tests::client::{self, raw};
use outrigger_tests::upstream::{Http, scripted};
use outrigger_tests::{ControlPlane, Sidecar, eventually, loopback};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::mesh::{Mesh, plain_endpoints, route, service};

fn head(answer: &str) -> &str {
    answer.lines().next().unwrap_or_default()
}

#[tokio::test]
async fn unknown_host_refused_connection_and_no_endpoint() {
    let control_plane = ControlPlane::start().await;
    control_plane.apply(&service("empty", ""));
    let nobody = SocketAddr::new(loopback().into(), 28000);
    control_plane.apply(&service("down", &plain_endpoints(&[nobody])));
    let caller = Sidecar::caller(&control_plane).await;
    for (host, status, reason) in [
        ("nobody", 404, "no-route"),
        ("down", 503, "connect-failed"),
        ("empty", 503, "no-endpoints"),
    ] {
        let answer = caller.get(host, "/").await;
        assert_eq!(
            (answer.status.as_u16(), answer.reason()),
            (status, reason),
            "{host}"
        );
        assert!(
            answer.header("content-type").starts_with("text/plain"),
            "{:?}",
            answer.headers
        );
        assert_eq!(
            answer.text().lines().count(),
            1,
            "one line: {:?}",
            answer.text()
        );

        let on_model_route = caller.get(host, "/v1/chat/completions").await;
        assert_eq!(
            (on_model_route.status.as_u16(), on_model_route.reason()),
            (status, reason),
            "{host}"
        );
        let error = &on_model_route.json()["error"];
        assert!(
            error["message"].is_string() && error["type"].is_string(),
            "{error}"
        );
        let labels = [("direction", "outbound"), ("reason", reason)];
        assert_eq!(
            caller
                .metrics()
                .await
                .sum("outrigger_requests_total", &labels),
            2.0,
            "{host}"
        );
    }
    // It comes to exist while somebody waits for it.
    control_plane.apply(&service("nobody", ""));
    eventually(
        "the service is known now",
        Duration::from_secs(5),
        async || {
            let answer = caller.get("nobody", "/").await;
            if answer.reason() == "no-endpoints" {
                Ok(())
            } else {
                Err(format!("{} {}", answer.status, answer.reason()))
            }
        },
    )
    .await;
}

#[tokio::test]
async fn no_rule_that_matches() {
    let mesh = Mesh::start("").await;
    mesh.control_plane
        .apply(&route("none", "[{backendRefs: [{name: gone, port: 80}]}]"));
    eventually(
        "a backend that does not exist has no endpoints",
        Duration::from_secs(5),
        async || {
            let answer = mesh.caller.get("chat", "/").await;
            if answer.reason() == "no-endpoints" {
                Ok(())
            } else {
                Err(format!("{} {}", answer.status, answer.reason()))
            }
        },
    )
    .await;
}

#[tokio::test]
async fn an_application_that_stops_or_breaks() {
    let mesh = Mesh::start("").await;
    let answer = mesh.caller.get("chat", "/reset?key=x&fail=100").await;
    assert_eq!(
        (answer.status.as_u16(), answer.reason()),
        (502, "upstream-reset"),
        "{}",
        answer.text()
    );

    let head = http::Request::builder()
        .uri("/truncate")
        .header("host", "chat");
    let cut = client::try_request(mesh.caller.outbound(), head, client::empty()).await;
    assert!(cut.is_err(), "a body that was cut looks whole: {cut:?}");
    let labels = [("direction", "outbound"), ("reason", "upstream-truncated")];
    eventually("it is counted", Duration::from_secs(3), async || {
        let count = mesh
            .caller
            .metrics()
            .await
            .sum("outrigger_requests_total", &labels);
        if count == 1.0 {
            Ok(())
        } else {
            Err(count.to_string())
        }
    })
    .await;

    // The sidecar notices that nobody listens any more and withdraws the endpoint.
    drop(mesh.app);
    eventually(
        "the endpoint is withdrawn",
        Duration::from_secs(10),
        async || {
            let answer = mesh.caller.get("chat", "/").await;
            if answer.reason() == "no-endpoints" {
                Ok(())
            } else {
                Err(format!("{} {}", answer.status, answer.reason()))
            }
        },
    )
    .await;
}

#[tokio::test]
async fn an_answer_that_is_no_http() {
    for garbage in [
        &b"SSH-2.0-OpenSSH_9.2\r\n\r\n"[..],
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
    ] {
        let upstream = scripted(garbage).await;
        let control_plane = ControlPlane::start().await;
        control_plane.apply(&service("chat", &plain_endpoints(&[upstream.address()])));
        let caller = Sidecar::caller(&control_plane).await;
        let answer = caller.get("chat", "/").await;
        assert_eq!(
            (answer.status.as_u16(), answer.reason()),
            (502, "upstream-reset"),
            "{}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn malformed_heads_get_400_and_do_not_reach_the_application() {
    let mesh = Mesh::start("").await;
    let before = mesh.app.requests();
    for request in [
        "NONSENSE\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: chat\r\nhost: other\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: chat\r\nbad header: x\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: chat\r\n: empty\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: ch at\r\n\r\n",
        "GET /\u{1} HTTP/1.1\r\nhost: chat\r\n\r\n",
        // Request smuggling: two lengths, a length and chunks, chunks not last.
        "POST / HTTP/1.1\r\nhost: chat\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "POST / HTTP/1.1\r\nhost: chat\r\ncontent-length: +1\r\n\r\na",
        "POST / HTTP/1.1\r\nhost: chat\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    ] {
        let answer = raw(
            mesh.caller.outbound(),
            request.as_bytes(),
            Duration::from_secs(10),
        )
        .await;
        assert!(
            head(&answer).starts_with("HTTP/1.1 400"),
            "{request:?}: {answer:?}"
        );
    }
    // Both a length and chunks: RFC 9112 6.1 lets a proxy refuse, or drop the length. It must not pass both on.
    let request = "POST / HTTP/1.1\r\nhost: chat\r\ncontent-length: 100\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let answer = raw(
        mesh.caller.outbound(),
        request.as_bytes(),
        Duration::from_secs(2),
    )
    .await;
    if !head(&answer).starts_with("HTTP/1.1 400") {
        assert!(head(&answer).starts_with("HTTP/1.1 200"), "{answer:?}");
        assert!(
            answer.contains("\"body\":\"abc\"") && !answer.contains("content-length\":\"100"),
            "{answer}"
        );
    }
    assert!(mesh.app.requests() <= before + 1);
    assert_eq!(mesh.caller.get("chat", "/").await.status, 200);
}

#[tokio::test]
async fn oversized_heads_get_431() {
    let mesh = Mesh::start("").await;
    let before = mesh.app.requests();
    let mut large = b"GET / HTTP/1.1\r\nhost: chat\r\nx-large: ".to_vec();
    large.resize(1 << 20, b'x');
    large.extend_from_slice(b"\r\n\r\n");
    let mut many = "GET / HTTP/1.1\r\nhost: chat\r\n".to_string();
    for number in 0..5000 {
        many.push_str(&format!("x-{number}: y\r\n"));
    }
    many.push_str("\r\n");
    for request in [large.as_slice(), many.as_bytes()] {
        let answer = raw(mesh.caller.outbound(), request, Duration::from_secs(10)).await;
        assert!(
            head(&answer).starts_with("HTTP/1.1 431"),
            "{:?}",
            head(&answer)
        );
    }
    assert_eq!(mesh.app.requests(), before);
}

#[tokio::test]
async fn slow_heads_get_408_and_cost_nobody_else() {
    let mesh = Mesh::start("").await;
    let mut stream = tokio::net::TcpStream::connect(mesh.caller.outbound())
        .await
        .unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: ch")
        .await
        .unwrap();
    assert_eq!(mesh.caller.get("chat", "/").await.status, 200);
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let read = tokio::time::timeout(Duration::from_secs(60), read)
        .await
        .expect("a head that never ends is given up");
    read.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(head(&answer).starts_with("HTTP/1.1 408"), "{answer:?}");
}

#[tokio::test]
async fn garbage_on_every_port_ends_no_process() {
    let mesh = Mesh::start("").await;
    let mut garbage = vec![0_u8; 4096];
    for (index, byte) in garbage.iter_mut().enumerate() {
        *byte = (index * 31 % 251) as u8;
    }
    let h2_preface_then_garbage =
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &garbage].concat();
    let tls_record_then_garbage = [b"\x16\x03\x01\x10\x00".as_slice(), &garbage].concat();
    for port in [
        mesh.caller.outbound(),
        mesh.caller.metrics_address(),
        mesh.server.inbound(),
        mesh.server.metrics_address(),
    ] {
        for bytes in [&garbage, &h2_preface_then_garbage, &tls_record_then_garbage] {
            raw(port, bytes, Duration::from_millis(300)).await;
        }
    }
    assert_eq!(mesh.caller.get("chat", "/").await.status, 200);
}

#[tokio::test]
async fn a_call_that_comes_back_is_a_loop() {
    let control_plane = ControlPlane::start().await;
    // The service's endpoint is the caller's own outbound listener.
    let caller = Sidecar::caller(&control_plane).await;
    control_plane.apply(&service("chat", &plain_endpoints(&[caller.outbound()])));
    eventually("the loop is found", Duration::from_secs(10), async || {
        let answer = caller.get("chat", "/").await;
        match (answer.status.as_u16(), answer.reason()) {
            (508, "loop-detected") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_sidecar_whose_application_is_not_there_yet() {
    let control_plane = ControlPlane::start().await;
    control_plane.apply(&service("chat", ""));
    let address = SocketAddr::new(loopback().into(), 28000);
    let _server = Sidecar::serving(&control_plane, "chat:80", address).await;
    let caller = Sidecar::caller(&control_plane).await;
    assert_eq!(caller.get("chat", "/").await.reason(), "no-endpoints");
    let app = Http::start_at("late", address).await;
    assert_eq!(caller.reaches("chat").await.instance(), "late");
    assert!(app.requests() >= 1);
}
