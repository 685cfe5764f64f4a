//! HTTP as the RFCs have it: what a proxy must pass on, must not pass on, and must not change.

use std::time::Duration;

use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use outrigger_tests::client::{self, Connection, empty, full, raw};
use outrigger_tests::upstream::{Listener, read_head, scripted};
use outrigger_tests::{ControlPlane, Sidecar};
use tokio::io::AsyncWriteExt;

use crate::mesh::{Mesh, service};

#[tokio::test]
async fn hop_by_hop_headers_stay_on_their_hop() {
    let mesh = Mesh::start("").await;
    let head = http::Request::builder()
        .uri("/")
        .header("host", "chat")
        .header("connection", "keep-alive, x-secret")
        .header("x-secret", "of this connection")
        .header("keep-alive", "timeout=5")
        .header("proxy-authorization", "Basic abc")
        .header("proxy-connection", "keep-alive")
        .header("te", "trailers")
        .header("x-kept", "1")
        .header("x-kept", "2");
    let answer = client::request(mesh.caller.outbound(), head, empty()).await;
    let headers = &answer.json()["headers"];
    for gone in [
        "x-secret",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "upgrade",
    ] {
        assert!(headers[gone].is_null(), "{gone}: {headers}");
    }
    assert_eq!(headers["x-kept"], "1, 2");
}

#[tokio::test]
async fn request_ids_and_trace_contexts() {
    let mesh = Mesh::start("").await;
    let id = mesh.caller.get("chat", "/").await.json()["headers"]["x-request-id"].to_string();
    assert!(id.len() > 10, "no x-request-id was made: {id}");

    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let head = http::Request::builder()
        .uri("/")
        .header("host", "chat")
        .header("x-request-id", "mine")
        .header("traceparent", trace)
        .header("tracestate", "vendor=1");
    let headers = client::request(mesh.caller.outbound(), head, empty())
        .await
        .json()["headers"]
        .clone();
    assert_eq!(headers["x-request-id"], "mine");
    assert!(
        headers["traceparent"]
            .as_str()
            .unwrap()
            .starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"),
        "{headers}"
    );
    assert_eq!(headers["tracestate"], "vendor=1");
}

#[tokio::test]
async fn bodies_and_their_absence() {
    let mesh = Mesh::start("").await;
    for mut connection in [
        Connection::http1(mesh.caller.outbound()).await.unwrap(),
        Connection::http2(mesh.caller.outbound()).await.unwrap(),
    ] {
        let mut ask = async |method: &str, path: &str, body| {
            let request = connection.request(method, "chat", path, body);
            let response = client::Answer::read(connection.send(request).await.unwrap());
            outrigger_tests::within(path, Duration::from_secs(5), response)
                .await
                .unwrap()
        };
        let get = ask("GET", "/bytes/1000", empty()).await;
        assert_eq!(get.body.len(), 1000);
        let head = ask("HEAD", "/fixed", empty()).await;
        assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
        assert!(
            !head.header("content-length").is_empty(),
            "HEAD says how long GET's body is: {:?}",
            head.headers
        );
        for status in [204, 304] {
            let answer = ask("GET", &format!("/status/{status}"), empty()).await;
            assert_eq!((answer.status.as_u16(), answer.body.len()), (status, 0));
        }
        let echoed = ask("PUT", "/", full("a body")).await;
        assert_eq!(
            (&echoed.json()["body"], &echoed.json()["method"]),
            (&"a body".into(), &"PUT".into())
        );
        for method in ["OPTIONS", "PATCH", "DELETE", "PROPFIND"] {
            assert_eq!(ask(method, "/", empty()).await.json()["method"], method);
        }
        // The connection is in order after all that.
        assert_eq!(ask("GET", "/", empty()).await.status, 200);
    }
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let mesh = Mesh::start("").await;
    let mut connection = Connection::http2(mesh.caller.outbound()).await.unwrap();
    let mut request = connection.request("GET", "chat", "/trailers", empty());
    request
        .headers_mut()
        .insert("te", "trailers".parse().unwrap());
    let answer = client::Answer::read(connection.send(request).await.unwrap())
        .await
        .unwrap();
    assert_eq!(answer.text(), "with trailers\n");
    assert_eq!(answer.trailers.unwrap()["x-checksum"], "abc");

    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-sum", "12".parse().unwrap());
    // Without a length: HTTP/1.1 has trailers after chunks only.
    let frames = [
        Ok::<_, client::Error>(Frame::data("data".into())),
        Ok(Frame::trailers(trailers)),
    ];
    let body = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
    let mut request = connection.request("POST", "chat", "/", body);
    request
        .headers_mut()
        .insert("trailer", "x-sum".parse().unwrap());
    let answer = client::Answer::read(connection.send(request).await.unwrap())
        .await
        .unwrap();
    assert_eq!(
        answer.json()["trailers"]["x-sum"],
        "12",
        "{}",
        answer.text()
    );
    for (sidecar, direction) in [(&mesh.caller, "outbound"), (&mesh.server, "inbound")] {
        let labels = [("direction", direction), ("reason", "client-gone")];
        let metrics = sidecar.metrics().await;
        assert_eq!(
            metrics.sum("outrigger_requests_total", &labels),
            0.0,
            "{direction}: the end was not seen"
        );
    }
}

#[tokio::test]
async fn informational_responses() {
    // An application that sends early hints.
    let control_plane = ControlPlane::start().await;
    let app = scripted(
        b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n\
          HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello",
    )
    .await;
    control_plane.apply(&service("chat", ""));
    let _server = Sidecar::serving(&control_plane, "chat:80", app.address()).await;
    let caller = Sidecar::caller(&control_plane).await;
    caller.reaches("chat").await;
    let request = b"GET / HTTP/1.1\r\nhost: chat\r\nconnection: close\r\n\r\n";
    let answer = raw(caller.outbound(), request, Duration::from_secs(5)).await;
    let last = answer.rsplit("HTTP/1.1 ").next().unwrap();
    assert!(
        last.starts_with("200 OK") && last.ends_with("hello"),
        "{answer:?}"
    );

    // One that wants the body only after it said so.
    let patient = Listener::start(|mut stream| async move {
        let Some(head) = read_head(&mut stream).await else {
            return;
        };
        let expects = head.to_ascii_lowercase().contains("expect: 100-continue");
        if expects {
            let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
        }
        let mut body = [0; 4];
        let _ = tokio::io::AsyncReadExt::read_exact(&mut stream, &mut body).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\n")
            .await;
        let _ = stream.write_all(&body).await;
    })
    .await;
    control_plane.apply(&service("patient", ""));
    let _server = Sidecar::serving(&control_plane, "patient:80", patient.address()).await;
    outrigger_tests::eventually("a body is asked for, sent and echoed", Duration::from_secs(15), async || {
        let mut stream = tokio::net::TcpStream::connect(caller.outbound()).await.unwrap();
        let head = b"POST / HTTP/1.1\r\nhost: patient\r\ncontent-length: 4\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n";
        stream.write_all(head).await.unwrap();
        let first = read_head(&mut stream).await.unwrap_or_default();
        if !first.starts_with("HTTP/1.1 100") {
            return Err(first);
        }
        stream.write_all(b"body").await.unwrap();
        let mut rest = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut rest).await.unwrap();
        if rest.starts_with("HTTP/1.1 200") && rest.ends_with("body") { Ok(()) } else { Err(rest) }
    })
    .await;
}

#[tokio::test]
async fn connections_are_kept_and_pipelined_requests_answered_in_order() {
    let mesh = Mesh::start("").await;
    let request = "GET /a HTTP/1.1\r\nhost: chat\r\n\r\nGET /b HTTP/1.1\r\nhost: chat\r\nconnection: close\r\n\r\n";
    let answer = raw(
        mesh.caller.outbound(),
        request.as_bytes(),
        Duration::from_secs(5),
    )
    .await;
    let (first, second) = (
        answer.find("\"path\":\"/a\""),
        answer.find("\"path\":\"/b\""),
    );
    assert!(first.is_some() && first < second, "{answer}");

    // HTTP/1.0 has no chunks and no connection to keep.
    let answer = raw(
        mesh.caller.outbound(),
        b"GET /bytes/100000 HTTP/1.0\r\nhost: chat\r\n\r\n",
        Duration::from_secs(5),
    )
    .await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(!head.to_ascii_lowercase().contains("chunked"), "{head}");
    assert_eq!(body.len(), 100_000);
}
