use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::Http1;
use super::mesh::{Calls, Pair, plain, sockets};

/// Sends tokens, each only after it was told that the one before has arrived.
#[tokio::test]
async fn each_token_comes_at_once() {
    let (arrived, waits) = tokio::sync::mpsc::channel::<()>(1);
    let waits = Arc::new(tokio::sync::Mutex::new(waits));
    let app = sockets(move |mut stream| {
        let waits = Arc::clone(&waits);
        async move {
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
            let mut waits = waits.lock().await;
            for number in 0..20 {
                let token = format!("data: {number}\n\n");
                let chunk = format!("{:x}\r\n{token}\r\n", token.len());
                stream.write_all(chunk.as_bytes()).await.unwrap();
                waits.recv().await.unwrap();
            }
            stream.write_all(b"0\r\n\r\n").await.unwrap();
            let _ = stream.read(&mut head).await;
        }
    })
    .await;
    let pair = Pair::new(Calls::default(), app);
    let one_hop = plain(Calls::default(), &[app]);
    for address in [pair.address(), one_hop.outbound()] {
        let mut client = Http1::connect(address).await;
        client.write("GET / HTTP/1.1\r\nhost: chat\r\n\r\n").await;
        assert_eq!(client.head().await.status, 200);
        for number in 0..20 {
            let chunk = client.chunk().await.unwrap();
            assert_eq!(chunk, format!("data: {number}\n\n").as_bytes());
            arrived.send(()).await.unwrap();
        }
        assert_eq!(client.chunk().await, None);
    }
}

#[tokio::test]
async fn a_reader_that_stands_still_stops_the_application() {
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let app = sockets(move |mut stream| {
        let count = Arc::clone(&count);
        async move {
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            let length = 64 << 20;
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            let chunk = [7; 64 * 1024];
            for _ in 0..length / chunk.len() {
                if stream.write_all(&chunk).await.is_err() {
                    return;
                }
                count.fetch_add(chunk.len(), Ordering::SeqCst);
            }
            let _ = stream.read(&mut head).await;
        }
    })
    .await;
    let pair = Pair::new(Calls::default(), app);
    let one_hop = plain(Calls::default(), &[app]);
    for sidecar in [&pair.caller, &one_hop] {
        written.store(0, Ordering::SeqCst);
        let mut client = Http1::connect(sidecar.outbound()).await;
        client.write("GET / HTTP/1.1\r\nhost: chat\r\n\r\n").await;
        assert_eq!(client.head().await.status, 200);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let stopped_at = written.load(Ordering::SeqCst);
        // Sockets' buffers (a few MB each on loopback) and one stream's window.
        assert!(stopped_at < 32 << 20, "{stopped_at} bytes without a reader");
        // Others are not held up.
        let mut other = Http1::connect(sidecar.outbound()).await;
        other.write("GET / HTTP/1.1\r\nhost: chat\r\n\r\n").await;
        assert_eq!(other.head().await.status, 200);
        drop(other);
        // All of it arrives when it is read.
        let mut rest = vec![0; 64 << 20];
        client.stream.read_exact(&mut rest).await.unwrap();
        assert!(rest.iter().all(|byte| *byte == 7));
    }
}

#[tokio::test]
async fn an_application_that_stands_still_stops_the_client() {
    let app = sockets(|stream| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(stream);
    })
    .await;
    let pair = Pair::new(Calls::default(), app);
    let one_hop = plain(Calls::default(), &[app]);
    for address in [pair.address(), one_hop.outbound()] {
        let mut client = Http1::connect(address).await;
        client
            .write("POST / HTTP/1.1\r\nhost: chat\r\ncontent-length: 1000000000\r\n\r\n")
            .await;
        let chunk = [7; 64 * 1024];
        let mut written = 0;
        let patience = Duration::from_millis(500);
        while let Ok(result) = tokio::time::timeout(patience, client.stream.write_all(&chunk)).await
        {
            result.unwrap();
            written += chunk.len();
            assert!(written < 64 << 20, "nothing stops the client");
        }
    }
}

#[tokio::test]
async fn many_slow_readers_of_small_frames() {
    // Tokens of a few bytes that nobody reads: they must not cost the connection, which others use as well.
    let app = sockets(|mut stream| async move {
        let mut head = [0; 1024];
        while let Ok(count @ 1..) = stream.read(&mut head).await {
            let few = head[..count].starts_with(b"GET /few");
            let mut answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
            answer.push_str(&"8\r\ntoken 12\r\n".repeat(if few { 3 } else { 10_000 }));
            answer.push_str("0\r\n\r\n");
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await;
    let pair = Pair::new(Calls::default(), app);
    let mut slow = Vec::new();
    for _ in 0..8 {
        let mut http2 = super::http2::connect(pair.address()).await;
        let request = http::Request::get("http://chat/many").body(()).unwrap();
        let (response, _) = http2.send_request(request, true).unwrap();
        slow.push((response.await.unwrap(), http2));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let answer = super::client::get(pair.address(), "/few").await;
    assert_eq!(answer.body, "token 12".repeat(3));
    // And the slow ones get all of theirs in the end.
    for (response, _http2) in slow {
        let mut body = response.into_body();
        let mut length = 0;
        while let Some(chunk) = body.data().await {
            let chunk = chunk.unwrap();
            body.flow_control().release_capacity(chunk.len()).unwrap();
            length += chunk.len();
        }
        assert_eq!(length, 10_000 * 8);
    }
}
