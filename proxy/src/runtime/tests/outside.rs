//! Servers outside the mesh, and endpoints without TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::client::once;
use super::filters::mirrored_to;
use super::mesh::{Calls, Pair, application, calling, endpoint, nobody, plain, text};
use crate::balance::Endpoint;
use crate::policy::Outside;
use crate::tls::test_ca::TestCa;

/// A server with this DNS name, in plaintext.
fn outside(address: SocketAddr) -> Arc<Endpoint> {
    let name = Some(Arc::from("api.example"));
    let outside = Outside::new(name, address, None).map(Arc::new);
    Arc::new(Endpoint {
        outside,
        ..Arc::into_inner(endpoint(address, false)).unwrap()
    })
}

/// Says what came: the host, and which headers of ours.
async fn tells() -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let (send, receive) = mpsc::unbounded_channel();
    let app = application(move |request: Request<Incoming>| {
        let send = send.clone();
        async move {
            let headers = request.headers();
            let ours = headers.keys().filter(|name| {
                let name = name.as_str();
                name.starts_with("x-outrigger-") || name == "x-forwarded-client-cert"
            });
            let ours: Vec<_> = ours.map(|name| name.as_str()).collect();
            let host = headers["host"].to_str().unwrap();
            let _ = send.send(format!("{host} {ours:?}"));
            text("ok")
        }
    })
    .await;
    (app, receive)
}

const ASK: &str = "GET / HTTP/1.1\r\nhost: chat\r\nx-outrigger-priority: critical\r\n\
    x-outrigger-attempts: 1\r\nx-forwarded-client-cert: URI=spiffe://evil\r\n\r\n";

#[tokio::test]
async fn they_are_told_nothing_of_the_mesh() {
    let (app, mut told) = tells().await;
    let caller = calling(&TestCa::new());
    let calls = Calls::default();
    caller.set(calls.snapshot(&caller.shared.metrics, vec![outside(app)]));
    assert_eq!(once(caller.outbound(), ASK).await.body, "ok");
    let host = format!("api.example:{}", app.port());
    assert_eq!(told.recv().await.unwrap(), format!("{host} []"));
    // Nor by a copy.
    let (shadow, mut told) = tells().await;
    let limit = Duration::from_secs(10);
    mirrored_to(&caller, &calls, app, outside(shadow), limit);
    assert_eq!(once(caller.outbound(), ASK).await.body, "ok");
    let host = format!("api.example:{}", shadow.port());
    assert_eq!(told.recv().await.unwrap(), format!("{host} []"));
}

#[tokio::test]
async fn what_asks_for_tls_does_not_go_out_without() {
    let app = application(|_| async { text("reached") }).await;
    let proxied = "GET https://chat/secret HTTP/1.1\r\nhost: chat\r\n\r\n";
    let in_h2 = async |address: SocketAddr| {
        let mut send = super::http2::connect(address).await;
        let request = Request::get("https://chat/").body(()).unwrap();
        let (response, _) = send.send_request(request, true).unwrap();
        response.await.unwrap().status().as_u16()
    };
    let refused = (400, "protocol-mismatch".to_owned());
    let of = async |address: SocketAddr| {
        let answer = once(address, proxied).await;
        (answer.head.status, answer.head.reason().to_owned())
    };

    let caller = calling(&TestCa::new());
    let calls = Calls::default();
    caller.set(calls.snapshot(&caller.shared.metrics, vec![outside(app)]));
    assert_eq!(of(caller.outbound()).await, refused);
    assert_eq!(in_h2(caller.outbound()).await, 400);
    let answer = once(caller.outbound(), proxied).await;
    assert!(answer.body.contains("CONNECT"), "{}", answer.body);

    // Within the mesh it is said of each connection's HTTP/2, and means nothing there.
    let caller = plain(Calls::default(), &[app]);
    assert_eq!(of(caller.outbound()).await, refused);
    assert_eq!(in_h2(caller.outbound()).await, 200);

    // Between sidecars there is TLS.
    let pair = Pair::new(Calls::default(), app);
    assert_eq!(of(pair.address()).await, (200, String::new()));

    // It is not the service's failure, nor is it tried elsewhere.
    let caller = plain(Calls::default(), &[nobody().await, app]);
    assert_eq!(of(caller.outbound()).await, refused);
}
