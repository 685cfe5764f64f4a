#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn status_lines() {
    let of = |text: &str| status_of(text.as_bytes()).map(|status| status.as_u16());
    assert_eq!(of("HTTP/1.1 200 OK\r\n"), Some(200));
    assert_eq!(of("HTTP/1.0 503\r\n"), Some(503));
    for bad in [
        "",
        "HTTP/2 200\r\n",
        "SSH-2.0-x\r\n",
        "HTTP/1.1 abc\r\n",
        "HTTP/1.1\r\n",
    ] {
        assert_eq!(of(bad), None, "{bad:?}");
    }
}

#[test]
fn a_tcp_check_waits_within_its_own_time() {
    for (timeout, stays) in [(1000, 250), (500, 250), (100, 50), (10, 5)] {
        let timeout = Duration::from_millis(timeout);
        assert_eq!(stays_open(timeout), Duration::from_millis(stays));
    }
}

fn text(result: Result<(), Failed>) -> Option<String> {
    match result {
        Ok(()) => None,
        Err(Failed::Says(text)) => Some(text),
        Err(Failed::NotReady) => Some("not ready".into()),
    }
}

#[test]
fn grpc_answers() {
    assert_eq!(&grpc_message("")[..], [0, 0, 0, 0, 0]);
    assert_eq!(
        &grpc_message("ab")[..],
        [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']
    );
    assert_eq!(text(serving(&[0, 0, 0, 0, 2, 8, 1])), None);
    let no = "grpc.health.v1 says NOT_SERVING";
    assert_eq!(text(serving(&[0, 0, 0, 0, 2, 8, 2])).unwrap(), no);
    assert_eq!(text(serving(&[0; 5])).unwrap(), "grpc.health.v1 says 0");
    let wrong = "the answer is not one of grpc.health.v1";
    for bad in [
        &b""[..],
        &[0, 0],
        &[1, 0, 0, 0, 2, 8, 1],
        &[0, 0, 0, 0, 2, 8, 0xff],
    ] {
        assert_eq!(text(serving(bad)).unwrap(), wrong);
    }
}

/// An HTTP/2 server on a pipe that answers with this gRPC status and message.
async fn answers(status: &'static str, message: &'static [u8]) -> Option<String> {
    let (client, server) = tokio::io::duplex(16 << 10);
    tokio::spawn(async move {
        let mut connection = h2::server::handshake(server).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            assert_eq!(request.uri().path(), GRPC_PATH);
            assert_eq!(request.headers()[CONTENT_TYPE], "application/grpc");
            let head = Response::builder().header(CONTENT_TYPE, "application/grpc");
            let mut body = respond
                .send_response(head.body(()).unwrap(), false)
                .unwrap();
            body.send_data(Bytes::from_static(message), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", http::HeaderValue::from_static(status));
            body.send_trailers(trailers).unwrap();
        }
    });
    let (send, connection) = h2::client::handshake(client).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    let kind = CheckKind::Grpc {
        service: "chat".into(),
        host: "chat.default".parse().unwrap(),
    };
    text(exchange(send, &kind).await.unwrap())
}

#[tokio::test]
async fn grpc_over_a_connection() {
    assert_eq!(answers("0", &[0, 0, 0, 0, 2, 8, 1]).await, None);
    let not_serving = answers("0", &[0, 0, 0, 0, 2, 8, 2]).await;
    assert_eq!(not_serving.unwrap(), "grpc.health.v1 says NOT_SERVING");
    let missing = answers("12", b"").await;
    assert_eq!(missing.unwrap(), "grpc.health.v1 is not implemented there");
    let long = answers("0", &[0; 300]).await;
    assert_eq!(long.unwrap(), "the answer is too long for a health check");
}
