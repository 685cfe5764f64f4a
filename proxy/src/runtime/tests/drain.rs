use std::time::Duration;

use tokio::net::TcpStream;

use super::client::{Http1, get};
use super::mesh::{Calls, Pair, application, text};
use crate::drain::Drained;

#[tokio::test]
async fn what_is_under_way_is_finished() {
    let app = application(|request| async move {
        if request.uri().path() == "/slow" {
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
        text("ok")
    })
    .await;
    let pair = Pair::new(Calls::default(), app);
    let mut slow = Http1::connect(pair.address()).await;
    slow.write("GET /slow HTTP/1.1\r\nhost: chat\r\n\r\n").await;
    let mut idle = Http1::connect(pair.address()).await;
    idle.request("GET / HTTP/1.1\r\nhost: chat\r\n\r\n").await;
    tokio::time::sleep(Duration::from_millis(100)).await;

    // Both sidecars drain; the server's tells its peer by GOAWAY.
    let (caller, server) = (&pair.caller.shared.drain, &pair.server.shared.drain);
    for drain in [caller, server] {
        drain.start();
        drain.announced();
    }
    assert!(idle.is_closed().await);
    let head = slow.head().await;
    assert_eq!(head.get("connection"), Some("close"));
    assert_eq!(slow.rest(head).await.body, "ok");
    let patience = Duration::from_secs(5);
    assert_eq!(caller.run(patience).await, Drained::Idle);
    assert_eq!(server.run(patience).await, Drained::Idle);
    assert!(
        TcpStream::connect(pair.address()).await.is_err(),
        "still accepting"
    );
}

#[tokio::test]
async fn a_server_that_drains_fails_no_request() {
    let app = application(|_| async { text("ok") }).await;
    let pair = Pair::new(Calls::default(), app);
    assert_eq!(get(pair.address(), "/").await.body, "ok");
    // Announced, but its callers have not heard yet: requests are still taken.
    pair.server.shared.drain.start();
    for _ in 0..5 {
        assert_eq!(get(pair.address(), "/").await.body, "ok");
    }
}
