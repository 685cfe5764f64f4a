use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::{Http1, get};
use super::mesh::{Calls, Pair, Sidecar, application, plain, retry, sockets, text};
use crate::policy::Timeouts;

const SHORT: Duration = Duration::from_millis(150);

/// Sends a head, a first chunk, and then nothing more.
async fn stalls() -> std::net::SocketAddr {
    sockets(|mut stream| async move {
        let mut head = [0; 1024];
        let _ = stream.read(&mut head).await;
        let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        let _ = stream.read(&mut head).await;
    })
    .await
}

async fn hangs() -> std::net::SocketAddr {
    application(|_| async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        text("")
    })
    .await
}

fn with(timeouts: Timeouts) -> Calls {
    Calls {
        timeouts,
        ..Calls::default()
    }
}

#[tokio::test]
async fn clocks_before_the_head() {
    for (timeouts, reason) in [
        (
            Timeouts {
                request: Some(SHORT),
                ..Timeouts::default()
            },
            "request-timeout",
        ),
        (
            Timeouts {
                per_try: Some(SHORT),
                ..Timeouts::default()
            },
            "per-try-timeout",
        ),
        (
            Timeouts {
                response_headers: Some(SHORT),
                ..Timeouts::default()
            },
            "response-headers-timeout",
        ),
    ] {
        let pair = Pair::new(with(timeouts), hangs().await);
        let answer = get(pair.address(), "/").await;
        assert_eq!((answer.head.status, answer.head.reason()), (504, reason));
        // The application is not left with it.
        pair.server.idle().await;
    }
}

#[tokio::test]
async fn a_try_may_be_repeated() {
    let mut policy = retry(2);
    policy.on_timeout = true;
    let mut calls = with(Timeouts {
        per_try: Some(SHORT),
        ..Timeouts::default()
    });
    calls.retry = Some(policy);
    let app = application(|_| async { text("quick") }).await;
    let caller = plain(calls, &[hangs().await, app]);
    for _ in 0..4 {
        assert_eq!(get(caller.outbound(), "/").await.body, "quick");
    }
    caller
        .expect_metric(&["outrigger_retries_total", "cause=\"timeout\""])
        .await;
}

/// Runs a test whose meaning depends on what comes before a clock runs out, with ever longer clocks: on a machine under load the
/// clock may come first. `None`: it did. What is wrong is wrong with each clock.
async fn with_clocks(test: impl AsyncFn(Duration) -> Option<()>) {
    for clock in [150, 600, 2400, 9600] {
        if test(Duration::from_millis(clock)).await.is_some() {
            return;
        }
    }
    panic!("it came out the same with every clock");
}

/// `None`: the clock ran out before the head and the first chunk were here.
async fn cut_after_the_head(caller: &Sidecar, reason: &str) -> Option<()> {
    let mut client = Http1::connect(caller.outbound()).await;
    client.write("GET / HTTP/1.1\r\nhost: chat\r\n\r\n").await;
    if client.head().await.status != 200 {
        return None;
    }
    assert_eq!(client.try_chunk().await??, b"first");
    assert!(client.try_chunk().await.is_none(), "an end that is none");
    let line = &caller.log_lines(1).await[0];
    assert_eq!(line["reason"], reason);
    assert_eq!(line["status"], 200);
    Some(())
}

#[tokio::test]
async fn clocks_after_the_head_cut_the_stream() {
    with_clocks(async |clock| {
        let timeouts = Timeouts {
            request: Some(clock),
            ..Timeouts::default()
        };
        let caller = plain(with(timeouts.clone()), &[stalls().await]);
        cut_after_the_head(&caller, "request-timeout").await?;
        // The peer's sidecar has the same clock, and either may be the first to cut.
        let pair = Pair::new(with(timeouts), stalls().await);
        cut_after_the_head(&pair.caller, "request-timeout").await
    })
    .await;
    with_clocks(async |clock| {
        let timeouts = Timeouts {
            stream_idle: Some(clock),
            ..Timeouts::default()
        };
        let pair = Pair::new(with(timeouts), stalls().await);
        cut_after_the_head(&pair.caller, "stream-idle-timeout").await?;
        pair.server.idle().await;
        Some(())
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_moves_is_not_cut() {
    with_clocks(async |clock| {
        // Longer than each of the clocks in all, and never silent for so long.
        const CHUNKS: usize = 12;
        let app = sockets(move |mut stream| async move {
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
            for _ in 0..CHUNKS {
                // Fails where it was cut.
                let _ = stream.write_all(b"1\r\nx\r\n").await;
                tokio::time::sleep(clock / 8).await;
            }
            let _ = stream.write_all(b"0\r\n\r\n").await;
            let _ = stream.read(&mut head).await;
        })
        .await;
        let timeouts = Timeouts {
            stream_idle: Some(clock),
            response_headers: Some(clock),
            per_try: Some(clock),
            ..Timeouts::default()
        };
        let pair = Pair::new(with(timeouts), app);
        let mut client = Http1::connect(pair.address()).await;
        client.write("GET / HTTP/1.1\r\nhost: chat\r\n\r\n").await;
        if client.head().await.status != 200 {
            return None;
        }
        // Chunks that are late may come together.
        let mut got = Vec::new();
        while let Some(chunk) = client.try_chunk().await? {
            got.extend(chunk);
        }
        assert_eq!(got, [b'x'; CHUNKS]);
        Some(())
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_is_not_made() {
    // Accepts nothing: the handshake of TLS never ends.
    let silent = sockets(|stream| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(stream);
    })
    .await;
    let calls = Calls {
        connect_timeout: SHORT,
        ..Calls::default()
    };
    let caller = super::mesh::calling(&crate::tls::test_ca::TestCa::new());
    let endpoints = vec![super::mesh::endpoint(silent, true)];
    caller.set(calls.snapshot(&caller.shared.metrics, endpoints));
    let answer = get(caller.outbound(), "/").await;
    assert_eq!(
        (answer.head.status, answer.head.reason()),
        (504, "connect-timeout")
    );
}

const POST: &str = "POST / HTTP/1.1\r\nhost: chat\r\ncontent-length: 1\r\n\r\nx";

/// Stops in the middle of a head, after so many requests.
async fn stop_in_a_head(address: std::net::SocketAddr, before: usize) {
    let mut client = Http1::connect(address).await;
    for _ in 0..before {
        client.request(POST).await;
    }
    client.write("GET / HTTP/1.1\r\nhos").await;
    let begun = Instant::now();
    // The clock is one of ten seconds; a line is waited for as long.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let head = client.head().await;
    assert_eq!((head.status, head.reason()), (408, "head-timeout"));
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(9), "{took:?}");
    assert!(client.is_closed().await);
}

/// Says nothing for longer than a head may take, between two requests.
async fn stay_idle(address: std::net::SocketAddr) {
    let mut client = Http1::connect(address).await;
    assert_eq!(client.request(POST).await.body, "ok");
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(client.request(POST).await.body, "ok");
}

#[tokio::test]
async fn a_head_that_does_not_come() {
    let app = application(|_| async { text("ok") }).await;
    let caller = plain(Calls::default(), &[app]);
    let address = caller.outbound();
    tokio::join!(
        stop_in_a_head(address, 0),
        stop_in_a_head(address, 2),
        stay_idle(address),
    );
    caller
        .expect_metric(&["outrigger_requests_total", "head-timeout", "} 2"])
        .await;
}

#[tokio::test]
async fn a_reader_that_stands_still_is_cut_off() {
    let app = sockets(|mut stream| async move {
        let mut head = [0; 1024];
        let _ = stream.read(&mut head).await;
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        let chunk = [7; 64 * 1024];
        while stream.write_all(&chunk).await.is_ok() {}
    })
    .await;
    let pair = Pair::new(
        with(Timeouts {
            stream_idle: Some(Duration::from_millis(500)),
            ..Timeouts::default()
        }),
        app,
    );
    let mut http1 = Http1::connect(pair.address()).await;
    http1.write("GET / HTTP/1.1\r\nhost: chat\r\n\r\n").await;
    let mut http2 = super::http2::connect(pair.address()).await;
    let request = http::Request::get("http://chat/").body(()).unwrap();
    let (response, _) = http2.send_request(request, true).unwrap();
    let response = response.await.unwrap();
    // Nobody reads. On HTTP/1.1 it is noticed within ten seconds.
    let lines = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let lines = pair.caller.log_lines(0).await;
            if lines.len() == 2 {
                return lines;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    for line in lines.await.expect("readers are waited for for ever") {
        assert_eq!(line["reason"], "stream-idle-timeout", "{line}");
    }
    pair.server.idle().await;
    drop((http1, response));
}
