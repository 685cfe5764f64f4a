//! Limits on connections and on requests that wait for one: they hold, and what was taken comes back however it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::client::{self, Http1};
use super::mesh::{Calls, Pair, Sidecar, application, calling, endpoint, plain, sockets, text};
use super::pool::load;
use crate::admission::{Breaker, Counted};
use crate::policy::{CallerLimits, ConnectionPool, HostEntry};
use crate::tls::test_ca::TestCa;

fn calls(limits: CallerLimits) -> Calls {
    Calls {
        limits: Some(limits),
        ..Calls::default()
    }
}

fn breaker(sidecar: &Sidecar) -> Arc<Breaker> {
    let snapshot = sidecar.shared.snapshot.load();
    let Some(HostEntry::Service { service, .. }) = snapshot.hosts.get("chat") else {
        panic!("no service");
    };
    service.upstream.limits.clone().unwrap()
}

/// Waits until so much is in use.
async fn uses(sidecar: &Sidecar, counted: Counted, count: u32) {
    let usage = Arc::clone(&breaker(sidecar).usage);
    for _ in 0..1000 {
        if usage.get(counted) == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{counted:?}: {} in use, not {count}", usage.get(counted));
}

/// Sends a request and does not wait for its response.
async fn begin(address: SocketAddr) -> Http1 {
    let mut client = Http1::connect(address).await;
    client.write("GET / HTTP/1.1\r\nhost: chat\r\n\r\n").await;
    client
}

async fn refused(address: SocketAddr) {
    let answer = client::get(address, "/").await;
    assert_eq!(answer.head.status, 503);
    assert_eq!(answer.head.reason(), "circuit-open");
}

/// Answers as often as it is allowed to.
async fn held() -> (SocketAddr, Arc<Semaphore>) {
    let allowed = Arc::new(Semaphore::new(0));
    let allow = Arc::clone(&allowed);
    let app = application(move |_| {
        let allowed = Arc::clone(&allowed);
        async move {
            allowed.acquire().await.unwrap().forget();
            text("fine")
        }
    })
    .await;
    (app, allow)
}

/// Accepts connections, and does nothing with them.
async fn silent() -> SocketAddr {
    sockets(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await
}

#[tokio::test]
async fn who_needs_one_connection_too_many_is_refused_until_one_is_free() {
    let (app, allow) = held().await;
    let caller = plain(
        calls(CallerLimits {
            connections: Some(2),
            ..CallerLimits::default()
        }),
        &[app],
    );
    let mut first = begin(caller.outbound()).await;
    let second = begin(caller.outbound()).await;
    uses(&caller, Counted::Connections, 2).await;
    refused(caller.outbound()).await;
    // Who goes away takes its connection with it.
    drop(second);
    uses(&caller, Counted::Connections, 1).await;
    let mut third = begin(caller.outbound()).await;
    uses(&caller, Counted::Connections, 2).await;
    allow.add_permits(3);
    assert_eq!(first.head().await.status, 200);
    assert_eq!(third.head().await.status, 200);
    // A kept connection counts, and takes the next request.
    allow.add_permits(10);
    assert!(load(caller.outbound(), 1, 5).await.is_empty());
    assert!(breaker(&caller).usage.get(Counted::Connections) <= 2);
    assert_eq!(breaker(&caller).usage.get(Counted::Pending), 0);
}

#[tokio::test]
async fn an_idle_connection_to_another_endpoint_makes_room() {
    let mut apps = Vec::new();
    for _ in 0..3 {
        apps.push(application(|_| async { text("fine") }).await);
    }
    let caller = plain(
        calls(CallerLimits {
            connections: Some(1),
            ..CallerLimits::default()
        }),
        &apps,
    );
    assert!(load(caller.outbound(), 1, 12).await.is_empty());
    uses(&caller, Counted::Connections, 1).await;
}

#[tokio::test]
async fn an_endpoint_has_no_more_connections_than_it_may_have() {
    let (first, _) = held().await;
    let (second, _) = held().await;
    let caller = plain(
        calls(CallerLimits {
            endpoint_connections: Some(1),
            ..CallerLimits::default()
        }),
        &[first, second],
    );
    let one = begin(caller.outbound()).await;
    uses(&caller, Counted::Connections, 1).await;
    let _other = begin(caller.outbound()).await;
    uses(&caller, Counted::Connections, 2).await;
    refused(caller.outbound()).await;
    drop(one);
    uses(&caller, Counted::Connections, 1).await;
    let _another = begin(caller.outbound()).await;
    uses(&caller, Counted::Connections, 2).await;
}

#[tokio::test]
async fn so_many_wait_for_a_connection_and_no_more() {
    // Between sidecars, where they wait for the same one.
    let caller = calling(&TestCa::new());
    let calls = Calls {
        connect_timeout: Duration::from_secs(3),
        ..calls(CallerLimits {
            pending: Some(2),
            ..CallerLimits::default()
        })
    };
    let endpoints = vec![endpoint(silent().await, true)];
    caller.set(calls.snapshot(&caller.shared.metrics, endpoints));
    let mut first = begin(caller.outbound()).await;
    let second = begin(caller.outbound()).await;
    uses(&caller, Counted::Pending, 2).await;
    assert_eq!(breaker(&caller).usage.get(Counted::Connections), 1);
    refused(caller.outbound()).await;
    // Who is given up waits no more; the attempt goes on for the others.
    drop(second);
    uses(&caller, Counted::Pending, 1).await;
    let mut third = begin(caller.outbound()).await;
    uses(&caller, Counted::Pending, 2).await;
    for waiting in [&mut first, &mut third] {
        let head = waiting.head().await;
        assert_eq!(head.reason(), "connect-timeout");
    }
    uses(&caller, Counted::Pending, 0).await;
    uses(&caller, Counted::Connections, 0).await;
}

#[tokio::test]
async fn between_sidecars_one_connection_is_enough() {
    let app = application(|_| async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        text("fine")
    })
    .await;
    let pair = Pair::new(
        Calls {
            pool: ConnectionPool {
                http2_streams: Some(2),
                http2_connections: 4,
                ..ConnectionPool::default()
            },
            ..calls(CallerLimits {
                connections: Some(1),
                pending: Some(64),
                ..CallerLimits::default()
            })
        },
        app,
    );
    assert!(load(pair.address(), 16, 5).await.is_empty());
    let usage = Arc::clone(&breaker(&pair.caller).usage);
    assert_eq!(usage.get(Counted::Connections), 1);
    assert_eq!(usage.get(Counted::Pending), 0);
    assert_eq!(usage.get(Counted::Requests), 0);
}
