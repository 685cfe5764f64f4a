//! Bodies that flow: at the reader's pace, at once, both ways, in bounded memory.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use outrigger_tests::client::{Body, Connection, Error, empty};
use outrigger_tests::{eventually, within};
use tokio_stream::wrappers::ReceiverStream;

use crate::mesh::Mesh;

const MIB: u64 = 1 << 20;
/// More than all buffers on the way may hold: those of four sockets and of HTTP/2's windows, and less than what is sent.
const BUFFERED: u64 = 48 * MIB;
/// Resident memory of one sidecar while a gigabyte goes through it, KiB.
const RSS_KIB: u64 = 64 * 1024;

async fn reads_a_gigabyte_slowly(version: http::Version) {
    let mut mesh = Mesh::start("").await;
    let mut connection = open(&mesh, version).await;
    let total = 1024 * MIB;
    let request = connection.request("GET", "chat", &format!("/bytes/{total}"), empty());
    let mut body = connection.send(request).await.unwrap().into_body();
    let (mut read, mut next_pause) = (0, MIB);
    while let Some(frame) = within("the next piece", Duration::from_secs(20), body.frame()).await {
        read += frame.unwrap().data_ref().unwrap().len() as u64;
        if read >= next_pause {
            // Time enough for everything on the way to fill up.
            tokio::time::sleep(Duration::from_millis(700)).await;
            let ahead = mesh.app.bytes_sent() - read;
            assert!(
                ahead < BUFFERED,
                "{} MiB were sent that nobody had read",
                ahead / MIB
            );
            next_pause *= 8;
        }
    }
    assert_eq!(read, total);
    bounded(&mut mesh);
}

async fn open(mesh: &Mesh, version: http::Version) -> Connection {
    match version {
        http::Version::HTTP_2 => Connection::http2(mesh.caller.outbound()).await.unwrap(),
        _ => Connection::http1(mesh.caller.outbound()).await.unwrap(),
    }
}

fn bounded(mesh: &mut Mesh) {
    for sidecar in [&mut mesh.caller, &mut mesh.server] {
        let peak = sidecar.process().peak_rss_kib();
        assert!(peak < RSS_KIB, "{peak} KiB resident");
    }
}

#[tokio::test]
async fn a_gigabyte_through_a_slow_reader_over_http1() {
    reads_a_gigabyte_slowly(http::Version::HTTP_11).await;
}

#[tokio::test]
async fn a_gigabyte_through_a_slow_reader_over_http2() {
    reads_a_gigabyte_slowly(http::Version::HTTP_2).await;
}

/// A body that is made as it is asked for, and how much of it was.
fn upload(length: u64) -> (Body, std::sync::Arc<std::sync::atomic::AtomicU64>) {
    let made = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counter = std::sync::Arc::clone(&made);
    let stream = futures_util::stream::unfold(0, move |sent| {
        let counter = std::sync::Arc::clone(&counter);
        async move {
            if sent >= length {
                return None;
            }
            counter.fetch_add(65536, std::sync::atomic::Ordering::Relaxed);
            let piece = Frame::data(Bytes::from_static(&[1; 65536]));
            Some((Ok::<_, Error>(piece), sent + 65536))
        }
    });
    (StreamBody::new(stream).boxed_unsync(), made)
}

#[tokio::test]
async fn an_upload_waits_for_the_application() {
    let mut mesh = Mesh::start("").await;
    for version in [http::Version::HTTP_11, http::Version::HTTP_2] {
        let mut connection = open(&mesh, version).await;
        let received = mesh.app.bytes_received();
        let total = 256 * MIB;
        let (body, made) = upload(total);
        // It reads a piece in 100 ms: nothing, next to what it is sent.
        let request = connection.request("POST", "chat", "/slow-sink?ms=100", body);
        let slow = tokio::spawn(async move { connection.send(request).await });
        tokio::time::sleep(Duration::from_secs(2)).await;
        let ahead = made.load(std::sync::atomic::Ordering::Relaxed)
            - (mesh.app.bytes_received() - received);
        assert!(
            ahead < BUFFERED,
            "{version:?}: {} MiB were taken that nobody had read",
            ahead / MIB
        );
        slow.abort();

        let mut connection = open(&mesh, version).await;
        let (body, _) = upload(total);
        let request = connection.request("POST", "chat", "/sink", body);
        let response = within(
            "an upload",
            Duration::from_secs(60),
            connection.send(request),
        )
        .await
        .unwrap();
        let answer = outrigger_tests::client::Answer::read(response)
            .await
            .unwrap();
        assert_eq!(answer.text(), format!("{total} {total}"), "{version:?}");
    }
    bounded(&mut mesh);
}

#[tokio::test]
async fn tokens_arrive_one_by_one() {
    let mesh = Mesh::start("").await;
    for version in [http::Version::HTTP_11, http::Version::HTTP_2] {
        let mut connection = open(&mesh, version).await;
        let request = connection.request("GET", "chat", "/sse?n=5&ms=200", empty());
        let mut body = connection.send(request).await.unwrap().into_body();
        let mut arrivals = Vec::new();
        while let Some(frame) = body.frame().await {
            let text = String::from_utf8_lossy(frame.unwrap().data_ref().unwrap()).into_owned();
            arrivals.extend((0..text.matches("data: ").count()).map(|_| Instant::now()));
        }
        assert_eq!(arrivals.len(), 6);
        for pair in arrivals.windows(2) {
            let gap = pair[1] - pair[0];
            assert!(
                (Duration::from_millis(100)..Duration::from_millis(400)).contains(&gap),
                "{version:?}: {gap:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_stops_the_application_at_once() {
    let mesh = Mesh::start("").await;
    for version in [http::Version::HTTP_11, http::Version::HTTP_2] {
        // Before the head, and in the stream.
        for path in ["/slow?ms=30000", "/sse?n=100000&ms=20"] {
            let mut connection = open(&mesh, version).await;
            let request = connection.request("GET", "chat", path, empty());
            let task = tokio::spawn(async move {
                let mut body = connection.send(request).await.unwrap().into_body();
                while body.frame().await.is_some() {}
            });
            eventually(
                "the application works on it",
                Duration::from_secs(5),
                async || match mesh.app.in_flight() {
                    1 => Ok(()),
                    count => Err(format!("{count} in flight")),
                },
            )
            .await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            let left = Instant::now();
            task.abort();
            eventually(
                "the application may stop",
                Duration::from_secs(5),
                async || match mesh.app.in_flight() {
                    0 => Ok(()),
                    count => Err(format!("{version:?} {path}: {count} in flight")),
                },
            )
            .await;
            let took = left.elapsed();
            assert!(
                took < Duration::from_secs(1),
                "{version:?} {path}: {took:?}"
            );
        }
    }
    eventually("they are counted", Duration::from_secs(3), async || {
        let labels = [("direction", "outbound"), ("reason", "client-gone")];
        let count = mesh
            .caller
            .metrics()
            .await
            .sum("outrigger_requests_total", &labels);
        if count == 4.0 {
            Ok(())
        } else {
            Err(count.to_string())
        }
    })
    .await;
}

#[tokio::test]
async fn both_directions_flow_at_the_same_time() {
    let mesh = Mesh::start("").await;
    for version in [http::Version::HTTP_11, http::Version::HTTP_2] {
        let mut connection = open(&mesh, version).await;
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, Error>>(1);
        let body = StreamBody::new(ReceiverStream::new(receiver)).boxed_unsync();
        let request = connection.request("POST", "chat", "/duplex", body);
        sender
            .send(Ok(Frame::data(Bytes::from_static(b"0"))))
            .await
            .unwrap();
        let response = within(
            "the head before the request's end",
            Duration::from_secs(5),
            connection.send(request),
        );
        let mut body = response.await.unwrap().into_body();
        for number in 0..5_u8 {
            let frame = within("an echo", Duration::from_secs(5), body.frame())
                .await
                .unwrap()
                .unwrap();
            assert_eq!(
                frame.data_ref().unwrap()[..],
                [b'0' + number],
                "{version:?}"
            );
            if number < 4 {
                sender
                    .send(Ok(Frame::data(Bytes::from(vec![b'1' + number]))))
                    .await
                    .unwrap();
            }
        }
        drop(sender);
        // HTTP/2 may end a stream with an empty piece.
        let rest = within("the end", Duration::from_secs(5), body.collect()).await;
        assert!(rest.unwrap().to_bytes().is_empty(), "{version:?}");
    }
}

#[tokio::test]
async fn many_streams_share_few_connections() {
    let mesh = Mesh::start("").await;
    let before = mesh.app.requests();
    let mut streams = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let to = mesh.caller.outbound();
        streams.spawn(
            async move { outrigger_tests::client::get(to, "chat", "/sse?n=5&ms=100").await },
        );
    }
    while let Some(answer) = streams.join_next().await {
        assert!(answer.unwrap().text().ends_with("data: [DONE]\n\n"));
    }
    assert_eq!(mesh.app.requests() - before, 100);
    let labels = [("direction", "inbound"), ("side", "downstream")];
    let connections = mesh
        .server
        .metrics()
        .await
        .sum("outrigger_connections_total", &labels);
    assert!(
        connections <= 5.0,
        "{connections} connections between two sidecars for 100 streams"
    );
}
