use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::{Http1, get, once, post};
use super::mesh::{CALLER, Calls, Pair, application, plain, sockets, text};

/// Says what it got.
pub(super) async fn mirror(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let collected = body.collect().await.unwrap();
    let trailers = collected.trailers().cloned().unwrap_or_default();
    let mut seen = format!("{} {} {:?}\n", head.method, head.uri, head.version);
    for (name, value) in &head.headers {
        seen.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
    }
    for (name, value) in &trailers {
        seen.push_str(&format!("trailer {name}: {}\n", value.to_str().unwrap()));
    }
    seen.push_str(std::str::from_utf8(&collected.to_bytes()).unwrap());
    text(&seen)
}

#[tokio::test]
async fn through_both_sidecars() {
    let pair = Pair::new(Calls::default(), application(mirror).await);
    let answer = post(pair.address(), "/v1/x?y=1", "hello").await;
    assert_eq!(answer.head.status, 200, "{answer:?}");
    let seen = &answer.body;
    assert!(seen.starts_with("POST /v1/x?y=1 HTTP/1.1\n"), "{seen}");
    assert!(seen.contains("host: chat\n"));
    assert!(seen.contains("content-length: 5\n"));
    assert!(seen.contains(&format!("x-forwarded-client-cert: URI={CALLER}\n")));
    assert!(seen.contains("x-request-id: "));
    assert!(seen.ends_with("hello"));
    pair.caller
        .expect_metric(&[
            "outrigger_requests_total",
            "direction=\"outbound\"",
            "service=\"default/chat\"",
            "route=\"default/all\"",
            "code=\"2xx\"",
            "} 1",
        ])
        .await;
    pair.server
        .expect_metric(&[
            "outrigger_requests_total",
            "direction=\"inbound\"",
            CALLER,
            "2xx",
        ])
        .await;
    let line = &pair.caller.log_lines(1).await[0];
    assert_eq!(line["status"], 200);
    assert_eq!(line["path"], "/v1/x");
    assert_eq!(line["bytes_in"], 5);
    assert_eq!(line["attempts"], 1);
    let line = &pair.server.log_lines(1).await[0];
    assert_eq!(line["peer"], CALLER);
}

#[tokio::test]
async fn clients_of_all_kinds() {
    let pair = Pair::new(Calls::default(), application(mirror).await);
    // As through HTTP_PROXY: the URI goes before Host.
    let text =
        "GET http://chat:80/p HTTP/1.1\r\nhost: other\r\nproxy-connection: keep-alive\r\n\r\n";
    let answer = once(pair.address(), text).await;
    assert!(
        answer.body.starts_with("GET /p HTTP/1.1\n"),
        "{}",
        answer.body
    );
    assert!(answer.body.contains("host: chat:80\n"), "{}", answer.body);
    assert!(!answer.body.contains("proxy-connection"));
    // Case of the host does not matter.
    let answer = once(
        pair.address(),
        "GET / HTTP/1.1\r\nhost: CHAT.Default\r\n\r\n",
    )
    .await;
    assert_eq!(answer.head.status, 200);
    // HTTP/1.0, without keep-alive.
    let mut client = Http1::connect(pair.address()).await;
    let answer = client.request("GET / HTTP/1.0\r\nhost: chat\r\n\r\n").await;
    assert_eq!(answer.head.status, 200);
    assert!(client.is_closed().await);
    // The upgrade to HTTP/2 is not taken.
    let text = "GET / HTTP/1.1\r\nhost: chat\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n";
    let answer = once(pair.address(), text).await;
    assert_eq!(answer.head.status, 200);
    assert!(!answer.body.contains("upgrade"), "{}", answer.body);
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let pair = Pair::new(Calls::default(), application(mirror).await);
    let mut client = Http1::connect(pair.address()).await;
    for number in 0..20 {
        let text = format!("GET /{number} HTTP/1.1\r\nhost: chat\r\n\r\n");
        let answer = client.request(&text).await;
        assert!(answer.body.starts_with(&format!("GET /{number} ")));
    }
    // Two at once.
    let one = "GET /a HTTP/1.1\r\nhost: chat\r\n\r\n";
    let two = "GET /b HTTP/1.1\r\nhost: chat\r\n\r\n";
    client.write(&format!("{one}{two}")).await;
    for path in ["/a", "/b"] {
        let head = client.head().await;
        let answer = client.rest(head).await;
        assert!(answer.body.starts_with(&format!("GET {path} ")));
    }
    let opened = ["outrigger_connections_total", "upstream", "} 1"];
    pair.caller
        .expect_metric(&[&opened[..], &["h2"]].concat())
        .await;
    pair.server
        .expect_metric(&[&opened[..], &["http/1.1"]].concat())
        .await;
}

#[tokio::test]
async fn claims_and_hops_are_removed() {
    let pair = Pair::new(Calls::default(), application(mirror).await);
    let text = "GET / HTTP/1.1\r\nhost: chat\r\nx-forwarded-client-cert: URI=spiffe://evil\r\nx-outrigger-reason: x\r\n\
        connection: keep-alive, x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\nx-request-id: mine\r\n\
        traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n";
    let answer = once(pair.address(), text).await;
    let seen = &answer.body;
    for gone in ["evil", "x-outrigger-reason", "x-hop", "keep-alive"] {
        assert!(!seen.contains(gone), "{gone} in {seen}");
    }
    assert!(seen.contains("x-request-id: mine\n"));
    assert!(
        seen.contains("traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\n")
    );
}

#[tokio::test]
async fn chunked_bodies_and_trailers() {
    let pair = Pair::new(Calls::default(), application(mirror).await);
    let text = "POST / HTTP/1.1\r\nhost: chat\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
        3\r\nabc\r\n2\r\nde\r\n0\r\nx-sum: 42\r\n\r\n";
    let answer = once(pair.address(), text).await;
    assert!(
        answer.body.contains("trailer x-sum: 42\n"),
        "{}",
        answer.body
    );
    assert!(answer.body.ends_with("abcde"));

    let app = sockets(|mut stream| async move {
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await;
        let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
            3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        let _ = stream.read(&mut head).await;
    })
    .await;
    let pair = Pair::new(Calls::default(), app);
    let answer = once(
        pair.address(),
        "GET / HTTP/1.1\r\nhost: chat\r\nte: trailers\r\n\r\n",
    )
    .await;
    assert_eq!(answer.body, "abc");
    assert_eq!(answer.trailers, [("x-sum".to_owned(), "7".to_owned())]);
    for sidecar in [&pair.caller, &pair.server] {
        let line = &sidecar.log_lines(1).await[0];
        assert!(line.get("reason").is_none(), "{line}");
    }
}

#[tokio::test]
async fn responses_without_bodies() {
    let app = application(|request| async move {
        let answer = Response::builder();
        let answer = match request.uri().path() {
            "/204" => answer.status(204),
            "/304" => answer
                .status(304)
                .header("content-length", "1234")
                .header("etag", "\"x\""),
            _ => answer.header("content-length", "99"),
        };
        answer.body(Full::default()).unwrap()
    })
    .await;
    let pair = Pair::new(Calls::default(), app);
    let one_hop = plain(Calls::default(), &[app]);
    for address in [pair.address(), one_hop.outbound()] {
        let mut client = Http1::connect(address).await;
        for (method, path, status, length) in [
            ("HEAD", "/", 200, Some("99")),
            ("GET", "/204", 204, None),
            // hyper leaves the length out, as a server may.
            ("GET", "/304", 304, None),
            ("HEAD", "/", 200, Some("99")),
        ] {
            client
                .write(&format!("{method} {path} HTTP/1.1\r\nhost: chat\r\n\r\n"))
                .await;
            let head = client.head().await;
            assert_eq!(head.status, status);
            assert_eq!(head.get("content-length"), length, "{method} {path}");
            assert_eq!(head.get("transfer-encoding"), None);
        }
    }
    let line = &one_hop.log_lines(4).await[3];
    assert_eq!(line["status"], 200);
    assert!(line.get("reason").is_none(), "{line}");
}

#[tokio::test]
async fn interim_responses() {
    let app = sockets(|mut stream| async move {
        let mut head = [0; 4096];
        while stream.read(&mut head).await.unwrap_or(0) > 0 {
            let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";
            stream.write_all(hints.as_bytes()).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            let answer =
                "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    let pair = Pair::new(Calls::default(), app);
    let one_hop = plain(Calls::default(), &[app]);
    for address in [pair.address(), one_hop.outbound()] {
        let mut client = Http1::connect(address).await;
        for _ in 0..3 {
            client.write("GET / HTTP/1.1\r\nhost: chat\r\n\r\n").await;
            let hints = client.head().await;
            assert_eq!(hints.status, 103);
            assert_eq!(hints.get("link"), Some("</a.css>; rel=preload"));
            assert_eq!(client.head().await.status, 102);
            let head = client.head().await;
            assert_eq!(client.rest(head).await.body, "ok");
        }
        // HTTP/1.0 has no interim responses.
        let mut client = Http1::connect(address).await;
        client.write("GET / HTTP/1.0\r\nhost: chat\r\n\r\n").await;
        assert_eq!(client.head().await.status, 200);
    }
}

#[tokio::test]
async fn a_body_is_asked_for_when_somebody_takes_it() {
    let pair = Pair::new(Calls::default(), application(mirror).await);
    let mut client = Http1::connect(pair.address()).await;
    client
        .write("POST / HTTP/1.1\r\nhost: chat\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n")
        .await;
    assert_eq!(client.head().await.status, 100);
    client.write("hello").await;
    let head = client.head().await;
    let answer = client.rest(head).await;
    assert!(answer.body.ends_with("hello"));
    assert!(!answer.body.contains("expect"));

    // Nobody takes it: the final answer comes at once.
    let mut client = Http1::connect(pair.address()).await;
    client
        .write(
            "POST / HTTP/1.1\r\nhost: nobody\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n",
        )
        .await;
    assert_eq!(client.head().await.status, 404);
}

#[tokio::test]
async fn one_hop_to_a_plaintext_endpoint() {
    let caller = plain(Calls::default(), &[application(mirror).await]);
    let answer = get(caller.outbound(), "/x").await;
    assert!(
        answer.body.starts_with("GET /x HTTP/1.1\n"),
        "{}",
        answer.body
    );
    assert!(!answer.body.contains("x-forwarded-client-cert"));
}
