//! Pools: how many connections there are, how they end, and that no request is lost with them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client;
use super::mesh::{Calls, Pair, Sidecar, application, plain, serving_with, sockets, text};
use crate::policy::{ConnectionPool, KeepAlive, Protocol};

pub(super) fn calls(pool: ConnectionPool) -> Calls {
    Calls {
        protocol: Protocol::Http2,
        pool,
        ..Calls::default()
    }
}

/// Many requests at a time; returns the statuses that were not 200.
pub(super) async fn load(address: SocketAddr, clients: usize, each: usize) -> Vec<u16> {
    let clients = (0..clients).map(|_| {
        tokio::spawn(async move {
            let mut bad = Vec::new();
            for _ in 0..each {
                let answer = client::get(address, "/").await;
                if answer.head.status != 200 {
                    bad.push(answer.head.status);
                }
            }
            bad
        })
    });
    let mut bad = Vec::new();
    for client in clients.collect::<Vec<_>>() {
        bad.extend(client.await.unwrap());
    }
    bad
}

#[tokio::test]
async fn accepted_connections_that_grow_old_cost_no_request() {
    let app = application(|_| async { text("fine") }).await;
    let pair = Pair::new(Calls::default(), app);
    let pool = ConnectionPool {
        max_age: Some(Duration::from_millis(50)),
        ..ConnectionPool::default()
    };
    pair.server.set(serving_with(app, Protocol::Http, pool));
    for _ in 0..5 {
        let bad = load(pair.address(), 8, 50).await;
        assert!(bad.is_empty(), "{bad:?}");
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    assert!(opened(&pair.caller) > 1, "{}", pair.caller.metrics());
}

/// Upstream HTTP/2 connections that were opened.
fn opened(sidecar: &Sidecar) -> usize {
    let metrics = sidecar.metrics();
    let line = metrics
        .lines()
        .find(|line| {
            line.starts_with("outrigger_connections_total{")
                && ["outbound", "upstream", "h2"]
                    .iter()
                    .all(|part| line.contains(part))
        })
        .unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Answers over h2c after a while, and knows how much goes on at a time.
#[derive(Clone, Default)]
struct Busy {
    connections: Arc<AtomicUsize>,
    streams: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Busy {
    async fn start(&self, allowed: u32) -> SocketAddr {
        let busy = self.clone();
        sockets(move |stream| {
            let busy = busy.clone();
            async move {
                busy.connections.fetch_add(1, Ordering::SeqCst);
                let mut connection = h2::server::Builder::new()
                    .max_concurrent_streams(allowed)
                    .handshake::<_, bytes::Bytes>(stream)
                    .await
                    .unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let busy = busy.clone();
                    tokio::spawn(async move {
                        let streams = busy.streams.fetch_add(1, Ordering::SeqCst) + 1;
                        busy.most.fetch_max(streams, Ordering::SeqCst);
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        busy.streams.fetch_sub(1, Ordering::SeqCst);
                        let _ = respond.send_response(Response::new(()), true);
                    });
                }
            }
        })
        .await
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn more_connections_are_made_where_the_peer_allows_few_streams() {
    let app = Busy::default();
    let caller = plain(calls(ConnectionPool::default()), &[app.start(5).await]);
    // The peer's limit is known with its first settings.
    assert!(load(caller.outbound(), 1, 1).await.is_empty());
    assert!(load(caller.outbound(), 20, 3).await.is_empty());
    assert!(app.most() > 5, "{} streams", app.most());
    assert!(
        (2..=16).contains(&app.connections()),
        "{}",
        app.connections()
    );
}

#[tokio::test]
async fn own_limits_hold_and_the_rest_waits() {
    let app = Busy::default();
    let pool = ConnectionPool {
        http2_streams: Some(2),
        http2_connections: 2,
        ..ConnectionPool::default()
    };
    let caller = plain(calls(pool), &[app.start(100).await]);
    let outbound = caller.outbound();
    let loading = tokio::spawn(load(outbound, 12, 2));
    caller
        .expect_metric(&["outrigger_pool_waiting{direction=\"outbound\"} 8"])
        .await;
    assert!(loading.await.unwrap().is_empty());
    assert!(app.most() <= 4, "{} streams at a time", app.most());
    assert!(app.connections() <= 2);
}

#[tokio::test]
async fn connections_end_with_their_share_of_requests_or_time() {
    let app = Busy::default();
    let pool = ConnectionPool {
        max_requests: Some(3),
        ..ConnectionPool::default()
    };
    let caller = plain(calls(pool), &[app.start(100).await]);
    assert!(load(caller.outbound(), 1, 7).await.is_empty());
    assert_eq!(app.connections(), 3);
    caller
        .expect_metric(&["outrigger_pool_closed_total", "h2", "\"requests\"} 2"])
        .await;
    caller
        .expect_metric(&["outrigger_pool_reused_total", "outbound", "h2", "} 4"])
        .await;

    let app = Busy::default();
    let pool = ConnectionPool {
        max_age: Some(Duration::from_millis(150)),
        ..ConnectionPool::default()
    };
    let caller = plain(calls(pool), &[app.start(100).await]);
    // The second one begins before the connection is too old, and ends after it.
    assert!(load(caller.outbound(), 1, 6).await.is_empty());
    assert!(app.connections() >= 2, "{}", app.connections());
    caller
        .expect_metric(&["outrigger_pool_closed_total", "h2", "\"age\""])
        .await;
}

#[tokio::test]
async fn a_peer_that_is_gone_without_a_word_is_noticed() {
    // It shakes hands, and then does nothing ever again, its connection open: what a partition looks like.
    let app = sockets(|stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let _request = connection.accept().await;
        std::future::pending::<()>().await;
    })
    .await;
    let pool = ConnectionPool {
        keep_alive: KeepAlive {
            interval: Duration::from_millis(200),
            timeout: Duration::from_millis(200),
        },
        ..ConnectionPool::default()
    };
    let caller = plain(calls(pool), &[app]);
    let answer = client::get(caller.outbound(), "/");
    let answer = tokio::time::timeout(Duration::from_secs(20), answer)
        .await
        .unwrap();
    assert_eq!(answer.head.status, 502);
    assert_eq!(answer.head.reason(), "upstream-reset");
    caller
        .expect_metric(&["outrigger_pool_closed_total", "keep-alive"])
        .await;
}

#[tokio::test]
async fn slow_is_not_gone() {
    let app = application(|_| async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        text("at last")
    })
    .await;
    let pool = ConnectionPool {
        keep_alive: KeepAlive {
            interval: Duration::from_millis(100),
            timeout: Duration::from_secs(10),
        },
        ..ConnectionPool::default()
    };
    let caller = plain(calls(pool), &[app]);
    let answer = client::get(caller.outbound(), "/").await;
    assert_eq!(answer.head.status, 200);
}

#[tokio::test]
async fn connections_are_open_before_they_are_needed() {
    let app = Busy::default();
    let pool = ConnectionPool {
        pre_warm: 2,
        ..ConnectionPool::default()
    };
    let caller = plain(calls(pool), &[app.start(100).await]);
    for _ in 0..1000 {
        if app.connections() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(app.connections(), 2);
    assert!(load(caller.outbound(), 2, 1).await.is_empty());
    assert_eq!(app.connections(), 2);
}

#[tokio::test]
async fn http_1_connections_are_open_before_they_are_needed_too() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let app = sockets(move |stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            let service = hyper::service::service_fn(|_| async {
                Ok::<_, std::convert::Infallible>(text("fine"))
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
                .await;
        }
    })
    .await;
    let pool = ConnectionPool {
        pre_warm: 2,
        http1_idle: Duration::from_secs(60),
        ..ConnectionPool::default()
    };
    let calls = Calls {
        pool,
        ..Calls::default()
    };
    let caller = plain(calls, &[app]);
    let reused = ["outrigger_pool_reused_total", "outbound", "http/1.1", "} 6"];
    for _ in 0..1000 {
        if count.load(Ordering::SeqCst) == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(count.load(Ordering::SeqCst), 2);
    assert!(load(caller.outbound(), 1, 6).await.is_empty());
    caller.expect_metric(&reused).await;
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn requests_share_one_attempt_to_connect_and_survive_who_began_it() {
    let app = Busy::default();
    let at = app.start(100).await;
    let caller = plain(calls(ConnectionPool::default()), &[at]);
    let outbound = caller.outbound();
    let leader = tokio::spawn(async move { client::get(outbound, "/").await });
    let others = tokio::spawn(load(outbound, 10, 1));
    tokio::task::yield_now().await;
    leader.abort();
    assert!(others.await.unwrap().is_empty());
    assert_eq!(app.connections(), 1);
}

/// Answers one request on each connection, and closes it the moment the next one arrives.
async fn closes_under_the_second_request() -> SocketAddr {
    sockets(|mut stream| async move {
        let mut buffer = vec![0; 4096];
        if stream.read(&mut buffer).await.unwrap_or(0) == 0 {
            return;
        }
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine";
        stream.write_all(answer).await.unwrap();
        // Not one byte of it is read: the kernel answers with a reset.
        let _ = stream.readable().await;
    })
    .await
}

#[tokio::test]
async fn dead_keep_alive_connections_never_surface() {
    let app = closes_under_the_second_request().await;
    let one_hop = plain(Calls::default(), &[app]);
    let pair = Pair::new(Calls::default(), app);
    for address in [one_hop.outbound(), pair.address()] {
        let bad = load(address, 4, 100).await;
        assert!(bad.is_empty(), "{} of 400 failed: {bad:?}", bad.len());
    }
}

#[tokio::test]
async fn a_stream_goes_on_when_its_connection_takes_no_more() {
    let app = sockets(|stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            connection.graceful_shutdown();
            tokio::spawn(async move {
                let mut body = respond.send_response(Response::new(()), false).unwrap();
                for token in 0..10 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    let token = format!("{token} ");
                    body.send_data(token.into(), false).unwrap();
                }
                body.send_data(bytes::Bytes::new(), true).unwrap();
            });
        }
    })
    .await;
    let caller = plain(calls(ConnectionPool::default()), &[app]);
    let mut requests = Vec::new();
    for _ in 0..8 {
        let outbound = caller.outbound();
        requests.push(tokio::spawn(
            async move { client::get(outbound, "/").await },
        ));
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    for request in requests {
        let answer = request.await.unwrap();
        assert_eq!(answer.head.status, 200);
        assert_eq!(answer.body, "0 1 2 3 4 5 6 7 8 9 ");
    }
}

#[tokio::test]
async fn http_1_connections_follow_the_settings_too() {
    // Counts its connections in what it answers.
    let connections = Arc::new(AtomicUsize::new(0));
    let app = sockets(move |stream| {
        let number = connections.fetch_add(1, Ordering::SeqCst) + 1;
        async move {
            let service = hyper::service::service_fn(move |_| async move {
                Ok::<_, std::convert::Infallible>(text(&number.to_string()))
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
                .await;
        }
    })
    .await;
    let http1 = |pool| Calls {
        pool,
        ..Calls::default()
    };
    let caller = plain(
        http1(ConnectionPool {
            max_requests: Some(2),
            ..ConnectionPool::default()
        }),
        &[app],
    );
    let mut numbers = Vec::new();
    for _ in 0..5 {
        numbers.push(client::get(caller.outbound(), "/").await.body);
    }
    assert_eq!(numbers, ["1", "1", "2", "2", "3"]);
    let closed = ["outrigger_pool_closed_total", "http/1.1"];
    caller
        .expect_metric(&[closed[0], closed[1], "\"requests\"} 2"])
        .await;
    let caller = plain(
        http1(ConnectionPool {
            http1_idle: Duration::from_millis(50),
            ..ConnectionPool::default()
        }),
        &[app],
    );
    assert_eq!(client::get(caller.outbound(), "/").await.body, "4");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(client::get(caller.outbound(), "/").await.body, "5");
    caller.expect_metric(&[closed[0], closed[1], "idle"]).await;
}
