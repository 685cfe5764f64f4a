use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use tokio::net::TcpStream;

use super::mesh::{Calls, Pair, application, plain, sockets, text};
use crate::policy::Protocol;

/// A client of h2c with prior knowledge.
pub(super) async fn connect(address: std::net::SocketAddr) -> h2::client::SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (send, connection) = h2::client::Builder::new()
        // Tests read slowly on purpose; h2 takes many small frames for an attack.
        .data_frame_budget(usize::MAX >> 1)
        .handshake(stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    send.ready().await.unwrap()
}

async fn collect(mut body: h2::RecvStream) -> Result<(String, Option<HeaderMap>), h2::Error> {
    let mut all = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        all.extend_from_slice(&chunk);
    }
    let trailers = body.trailers().await?;
    Ok((String::from_utf8(all).unwrap(), trailers))
}

/// A gRPC-like application: bytes back as they come, and the status at the end.
pub(super) async fn echo(address_of: Protocol) -> std::net::SocketAddr {
    assert_ne!(address_of, Protocol::Tcp);
    sockets(|stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            tokio::spawn(async move {
                assert_eq!(request.headers()["te"], "trailers");
                let head = Response::builder()
                    .header("content-type", "application/grpc")
                    .body(())
                    .unwrap();
                let mut send = respond.send_response(head, false).unwrap();
                let mut body = request.into_body();
                while let Some(Ok(chunk)) = body.data().await {
                    body.flow_control().release_capacity(chunk.len()).unwrap();
                    send.send_data(chunk, false).unwrap();
                }
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                trailers.insert("grpc-message", HeaderValue::from_static("fine"));
                let _ = send.send_trailers(trailers);
            });
        }
    })
    .await
}

fn grpc(path: &str) -> Request<()> {
    Request::post(format!("http://chat{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap()
}

#[tokio::test]
async fn grpc_streams_both_ways_with_trailers() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let calls = Calls {
            protocol,
            ..Calls::default()
        };
        let app = echo(protocol).await;
        let pair = Pair::new(calls.clone(), app);
        let one_hop = plain(calls, &[app]);
        for address in [pair.address(), one_hop.outbound()] {
            let mut client = connect(address).await;
            let (response, mut send) = client.send_request(grpc("/a.B/C"), false).unwrap();
            send.send_data(Bytes::from_static(b"one"), false).unwrap();
            let response = response.await.unwrap();
            assert_eq!(response.status(), 200);
            let mut body = response.into_body();
            // Each message comes back before the next one is sent.
            assert_eq!(body.data().await.unwrap().unwrap(), "one");
            send.send_data(Bytes::from_static(b"two"), false).unwrap();
            assert_eq!(body.data().await.unwrap().unwrap(), "two");
            send.send_data(Bytes::new(), true).unwrap();
            let (rest, trailers) = collect(body).await.unwrap();
            assert_eq!(rest, "");
            let trailers = trailers.unwrap();
            assert_eq!(trailers["grpc-status"], "0");
            assert_eq!(trailers["grpc-message"], "fine");
        }
    }
}

#[tokio::test]
async fn errors_are_grpcs() {
    let pair = Pair::new(Calls::default(), super::mesh::nobody().await);
    let mut client = connect(pair.address()).await;
    let (response, _) = client.send_request(grpc("/a.B/C"), true).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["grpc-status"], "14");
    assert_eq!(response.headers()["x-outrigger-reason"], "connect-failed");
    assert!(response.body().is_end_stream());

    let request = Request::post("http://nobody/x")
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    assert_eq!(response.await.unwrap().headers()["grpc-status"], "12");
}

#[tokio::test]
async fn a_deadline_is_kept() {
    let app = application(|_| async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        text("")
    })
    .await;
    let pair = Pair::new(Calls::default(), app);
    let mut client = connect(pair.address()).await;
    let mut request = grpc("/a.B/C");
    let timeout = HeaderValue::from_static("100m");
    request.headers_mut().insert("grpc-timeout", timeout);
    let begun = std::time::Instant::now();
    let (response, _) = client.send_request(request, true).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "4");
    assert_eq!(response.headers()["x-outrigger-reason"], "request-timeout");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn plain_requests_over_http2() {
    let app = application(|request| async move {
        let version = format!("{:?}", request.version());
        let host = format!("{:?}", request.headers().get("host"));
        let body = request.into_body().collect().await.unwrap().to_bytes();
        text(&format!("{version} {host} {}", body.len()))
    })
    .await;
    let pair = Pair::new(Calls::default(), app);
    let mut client = connect(pair.address()).await;
    let mut answers = Vec::new();
    for _ in 0..50 {
        client = client.ready().await.unwrap();
        let request = Request::post("http://chat/x").body(()).unwrap();
        let (response, mut send) = client.send_request(request, false).unwrap();
        send.send_data(Bytes::from(vec![7; 1000]), true).unwrap();
        answers.push(response);
    }
    for answer in answers {
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        let (body, _) = collect(answer.into_body()).await.unwrap();
        assert_eq!(body, "HTTP/1.1 Some(\"chat\") 1000");
    }
    pair.caller.idle().await;
    pair.server.idle().await;
}

#[tokio::test]
async fn a_reset_of_the_client_reaches_the_application() {
    let (gone, mut went) = tokio::sync::mpsc::unbounded_channel();
    let app = sockets(move |stream| {
        let gone = gone.clone();
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let gone = gone.clone();
                tokio::spawn(async move {
                    let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
                    gone.send(reset.unwrap()).unwrap();
                });
            }
        }
    })
    .await;
    let pair = Pair::new(
        Calls {
            protocol: Protocol::Grpc,
            ..Calls::default()
        },
        app,
    );
    let mut client = connect(pair.address()).await;
    let (response, mut send) = client.send_request(grpc("/a.B/C"), false).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    send.send_reset(h2::Reason::CANCEL);
    drop(response);
    let reset = tokio::time::timeout(Duration::from_secs(5), went.recv()).await;
    assert_eq!(reset.unwrap(), Some(h2::Reason::CANCEL));
    pair.caller.idle().await;
    pair.caller
        .expect_metric(&["outrigger_requests_total", "client-gone"])
        .await;
}

#[tokio::test]
async fn an_interim_response_over_http2() {
    let app = sockets(|mut stream| async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await;
        let answer = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        let _ = stream.read(&mut head).await;
    })
    .await;
    let pair = Pair::new(Calls::default(), app);
    let mut client = connect(pair.address()).await;
    let request = Request::get("http://chat/x").body(()).unwrap();
    let (mut response, _) = client.send_request(request, true).unwrap();
    let interim = std::future::poll_fn(|cx| response.poll_informational(cx)).await;
    let interim = interim.unwrap().unwrap();
    assert_eq!(interim.status(), 103);
    assert_eq!(interim.headers()["link"], "</a>");
    assert_eq!(response.await.unwrap().status(), 200);
}

#[tokio::test]
async fn more_requests_than_streams_on_a_connection() {
    let app = application(|_| async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        text("ok")
    })
    .await;
    let pair = Pair::new(Calls::default(), app);
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(connect(pair.address()).await);
    }
    let mut answers = Vec::new();
    for number in 0..900 {
        let client = &mut clients[number % 3];
        let request = Request::get("http://chat/x").body(()).unwrap();
        let (response, _) = client
            .clone()
            .ready()
            .await
            .unwrap()
            .send_request(request, true)
            .unwrap();
        answers.push(response);
    }
    for answer in answers {
        assert_eq!(answer.await.unwrap().status(), 200);
    }
}
