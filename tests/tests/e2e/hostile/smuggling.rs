use std::sync::{Arc, Mutex};
use std::time::Duration;

use outrigger_tests::client::raw;
use outrigger_tests::upstream::Listener;
use outrigger_tests::{ControlPlane, Sidecar};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::mesh::{plain_endpoints, service};

/// An application that keeps every byte it gets, and answers each empty line.
async fn recording() -> (Listener, Arc<Mutex<Vec<u8>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&seen);
    let listener = Listener::start(move |mut stream| {
        let seen = Arc::clone(&all);
        async move {
            let mut bytes = [0; 4096];
            let mut tail: Vec<u8> = Vec::new();
            while let Ok(read @ 1..) = stream.read(&mut bytes).await {
                seen.lock().unwrap().extend(&bytes[..read]);
                tail.extend(&bytes[..read]);
                while let Some(end) = tail.windows(4).position(|four| four == b"\r\n\r\n") {
                    tail.drain(..end + 4);
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    if stream.write_all(answer).await.is_err() {
                        return;
                    }
                }
            }
        }
    })
    .await;
    (listener, seen)
}

/// Requests that two parsers may read differently. Each carries the word `smuggled` where one of the readings has a second
/// request; the application must never see it begin a line of a request.
const AMBIGUOUS: &[(&str, &str)] = &[
    (
        "a length and chunks",
        "POST / HTTP/1.1\r\nhost: chat\r\ncontent-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: chat\r\n\r\n",
    ),
    (
        "chunks and a length",
        "POST / HTTP/1.1\r\nhost: chat\r\ntransfer-encoding: chunked\r\ncontent-length: 40\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: chat\r\n\r\n",
    ),
    (
        "two lengths",
        "POST / HTTP/1.1\r\nhost: chat\r\ncontent-length: 0\r\ncontent-length: 41\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: chat\r\n\r\n",
    ),
    (
        "a list of lengths",
        "POST / HTTP/1.1\r\nhost: chat\r\ncontent-length: 0, 41\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: chat\r\n\r\n",
    ),
    (
        "a length with a sign",
        "POST / HTTP/1.1\r\nhost: chat\r\ncontent-length: +0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: chat\r\n\r\n",
    ),
    (
        "a length in hexadecimal",
        "POST / HTTP/1.1\r\nhost: chat\r\ncontent-length: 0x0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: chat\r\n\r\n",
    ),
    (
        "a folded line",
        "POST / HTTP/1.1\r\nhost: chat\r\ncontent-length: 0\r\nx: y\r\n transfer-encoding: chunked\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
    ),
    (
        "a folded coding",
        "POST / HTTP/1.1\r\nhost: chat\r\ntransfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
    ),
    (
        "a space before the colon",
        "POST / HTTP/1.1\r\nhost: chat\r\ntransfer-encoding : chunked\r\ncontent-length: 0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
    ),
    (
        "a tab before the coding's end",
        "POST / HTTP/1.1\r\nhost: chat\r\ntransfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
    ),
    (
        "a coding that is not last",
        "POST / HTTP/1.1\r\nhost: chat\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
    ),
    (
        "two codings",
        "POST / HTTP/1.1\r\nhost: chat\r\ntransfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
    ),
    (
        "a coding nobody knows",
        "POST / HTTP/1.1\r\nhost: chat\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
    ),
    (
        "chunks in HTTP/1.0",
        "POST / HTTP/1.0\r\nhost: chat\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
    ),
    (
        "a chunk size with a sign",
        "POST / HTTP/1.1\r\nhost: chat\r\ntransfer-encoding: chunked\r\n\r\n+0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
    ),
    (
        "a chunk size that overflows",
        "POST / HTTP/1.1\r\nhost: chat\r\ntransfer-encoding: chunked\r\n\r\n10000000000000000\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
    ),
    (
        "a bare line feed after a chunk size",
        "POST / HTTP/1.1\r\nhost: chat\r\ntransfer-encoding: chunked\r\n\r\n2;x\nzz\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
    ),
    (
        "a bare carriage return in a value",
        "GET / HTTP/1.1\r\nhost: chat\r\nx: y\rtransfer-encoding: chunked\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
    ),
    (
        "a zero byte in a value",
        "GET / HTTP/1.1\r\nhost: chat\r\nx: y\0z\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
    ),
    (
        "two hosts",
        "GET / HTTP/1.1\r\nhost: chat\r\nhost: admin\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
    ),
    (
        "a space in the target",
        "GET / x HTTP/1.1\r\nhost: chat\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
    ),
    (
        "a header before the request line's end",
        "GET /\thost: chat\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
    ),
];

#[tokio::test]
async fn nothing_ambiguous_is_forwarded() {
    let (application, seen) = recording().await;
    let control_plane = ControlPlane::start().await;
    control_plane.apply(&service("chat", &plain_endpoints(&[application.address()])));
    let caller = Sidecar::caller(&control_plane).await;
    caller.reaches("chat").await;
    for (shape, request) in AMBIGUOUS {
        seen.lock().unwrap().clear();
        let answer = raw(
            caller.outbound(),
            request.as_bytes(),
            Duration::from_millis(500),
        )
        .await;
        let forwarded = String::from_utf8_lossy(&seen.lock().unwrap()).into_owned();
        assert!(
            !forwarded.contains("smuggled"),
            "{shape}: {forwarded:?} was forwarded, {answer:?} answered"
        );
        // What is found in a body is found when the request is on its way: it and the connection are given up.
        let in_body = request.contains("chunked\r\n\r\n") && shape.contains("chunk size");
        assert!(
            answer.starts_with("HTTP/1.1 400") || (in_body && answer.is_empty()),
            "{shape}: {answer:?} was answered; forwarded {forwarded:?}"
        );
    }
    assert_eq!(caller.get("chat", "/").await.status, 200);
}

/// What is only loosely written is made unambiguous, or refused: bare line feeds end lines for some parsers and not for
/// others (RFC 9112, section 2.2), and hop-by-hop headers name what a next hop must not see.
#[tokio::test]
async fn what_is_forwarded_is_written_anew() {
    let (application, seen) = recording().await;
    let control_plane = ControlPlane::start().await;
    control_plane.apply(&service("chat", &plain_endpoints(&[application.address()])));
    let caller = Sidecar::caller(&control_plane).await;
    caller.reaches("chat").await;
    for request in [
        "GET /bare HTTP/1.1\nhost: chat\nconnection: close\n\n",
        "GET /hop HTTP/1.1\r\nhost: chat\r\nconnection: close, x-secret\r\nx-secret: 1\r\nkeep-alive: 9\r\n\r\n",
        "POST /chunks HTTP/1.1\r\nhost: chat\r\nconnection: close\r\ntransfer-encoding: Chunked\r\n\r\n3;ext=\"x\"\r\nabc\r\n0\r\nx-trailer: 1\r\n\r\n",
    ] {
        seen.lock().unwrap().clear();
        let answer = raw(
            caller.outbound(),
            request.as_bytes(),
            Duration::from_secs(5),
        )
        .await;
        let forwarded = seen.lock().unwrap().clone();
        if answer.starts_with("HTTP/1.1 400") {
            assert!(forwarded.is_empty(), "{request:?}");
            continue;
        }
        assert!(
            answer.starts_with("HTTP/1.1 200"),
            "{request:?}: {answer:?}"
        );
        let text = String::from_utf8_lossy(&forwarded).to_lowercase();
        for (index, byte) in forwarded.iter().enumerate() {
            assert!(
                *byte != b'\n' || forwarded[index - 1] == b'\r',
                "a bare line feed: {text:?}"
            );
        }
        for word in ["x-secret", "keep-alive", "ext="] {
            assert!(!text.contains(word), "{word}: {text:?}");
        }
        let lengths = text.matches("content-length").count();
        let codings = text.matches("transfer-encoding").count();
        assert!(lengths + codings <= 1, "{text:?}");
    }
}
