use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::{Http1, get, once};
use super::mesh::{CALLER, CHAT, Calls, Pair, application, serving, text, tls};
use crate::policy::Protocol;

async fn who() -> std::net::SocketAddr {
    application(|request| async move {
        let certificate = request.headers().get("x-forwarded-client-cert").cloned();
        let certificate = certificate.map(|value| value.to_str().unwrap().to_owned());
        let _ = request.into_body().collect().await;
        text(&format!("{certificate:?}"))
    })
    .await
}

#[tokio::test]
async fn plaintext_in_a_strict_mesh() {
    let pair = Pair::new(Calls::default(), who().await);
    let mut stream = TcpStream::connect(pair.server.inbound()).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: chat\r\n\r\n")
        .await
        .unwrap();
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all).await;
    assert!(all.is_empty(), "{}", String::from_utf8_lossy(&all));
    pair.server
        .expect_metric(&[
            "outrigger_tls_handshakes_total",
            "inbound",
            "no-certificate",
            "} 1",
        ])
        .await;
}

#[tokio::test]
async fn plaintext_in_a_permissive_mesh() {
    let app = who().await;
    let pair = Pair::new(Calls::default(), app);
    let mut snapshot = serving(app, Protocol::Http);
    snapshot.mesh.permissive = true;
    pair.server.set(snapshot);
    let request =
        "GET / HTTP/1.1\r\nhost: chat\r\nx-forwarded-client-cert: URI=spiffe://evil\r\n\r\n";
    let answer = once(pair.server.inbound(), request).await;
    assert_eq!(answer.body, "None", "nobody's identity");
    // TLS is taken as before.
    assert_eq!(
        get(pair.address(), "/").await.body,
        format!("Some(\"URI={CALLER}\")")
    );
    // And HTTP/2.
    let mut client = super::http2::connect(pair.server.inbound()).await;
    let request = http::Request::get("http://chat/").body(()).unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
}

#[tokio::test]
async fn no_tls_at_all_is_counted() {
    let pair = Pair::new(Calls::default(), who().await);
    let mut stream = TcpStream::connect(pair.server.inbound()).await.unwrap();
    stream
        .write_all(&[0x16, 3, 1, 0, 5, 1, 2, 3, 4, 5])
        .await
        .unwrap();
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all).await;
    pair.server
        .expect_metric(&[
            "outrigger_tls_handshakes_total",
            "inbound",
            "protocol",
            "} 1",
        ])
        .await;
    assert_eq!(get(pair.address(), "/").await.head.status, 200);
}

#[tokio::test]
async fn a_new_certificate_cuts_nothing() {
    let app = application(|request| async move {
        if request.uri().path() == "/slow" {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        text("ok")
    })
    .await;
    let pair = Pair::new(Calls::default(), app);
    let mut slow = Http1::connect(pair.address()).await;
    slow.write("GET /slow HTTP/1.1\r\nhost: chat\r\n\r\n").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    pair.caller
        .shared
        .tls
        .store(Some(Arc::new(tls(&pair.ca, CALLER))));
    pair.server
        .shared
        .tls
        .store(Some(Arc::new(tls(&pair.ca, CHAT))));
    assert_eq!(get(pair.address(), "/").await.body, "ok");
    let head = slow.head().await;
    assert_eq!(slow.rest(head).await.body, "ok");
    // The request after the change went over a connection made with the new one.
    pair.caller
        .expect_metric(&[
            "outrigger_connections_total",
            "outbound",
            "upstream",
            "h2",
            "} 2",
        ])
        .await;
}

#[tokio::test]
async fn an_endpoint_that_leaves_the_configuration() {
    let app = application(|request| async move {
        if request.uri().path() == "/slow" {
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        text("ok")
    })
    .await;
    let pair = Pair::new(Calls::default(), app);
    let mut slow = Http1::connect(pair.address()).await;
    slow.write("GET /slow HTTP/1.1\r\nhost: chat\r\n\r\n").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    pair.caller
        .set(Calls::default().snapshot(&pair.caller.shared.metrics, Vec::new()));
    assert_eq!(get(pair.address(), "/").await.head.reason(), "no-endpoints");
    let head = slow.head().await;
    assert_eq!(slow.rest(head).await.body, "ok");
    // Then its connection is closed.
    pair.caller
        .expect_metric(&["outrigger_connections_open", "outbound", "upstream", "} 0"])
        .await;
}
