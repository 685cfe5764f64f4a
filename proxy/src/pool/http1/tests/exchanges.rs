//! What is sent, and what comes back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{answers, ask, get, head, local, path, request, server, target, text};
use crate::error::Reason;
use crate::http::body::Source;
use crate::http::interim::Interim;
use crate::pool::Path;
use crate::pool::http1::{Http1Response, send, send_for_upgrade};
use crate::runtime::tests::idle_worker;

#[tokio::test]
async fn requests_as_they_are_sent() {
    local(async {
        let (told, mut tell) = tokio::sync::mpsc::unbounded_channel();
        let (address, _) = server(move |mut stream, _| {
            let told = told.clone();
            async move {
                let mut all = Vec::new();
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    all.extend_from_slice(&buffer[..count]);
                    let ended = all.ends_with(b"\r\n\r\n") || all.ends_with(b"END");
                    if ended {
                        told.send(std::mem::take(&mut all)).unwrap();
                        let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
                        stream.write_all(answer).await.unwrap();
                    }
                }
            }
        })
        .await;
        let worker = idle_worker();
        let large = Bytes::from([vec![b'x'; 9_997], b"END".to_vec()].concat());
        for (method, headers, body, expected) in [
            (
                "GET",
                &[("host", "a")][..],
                Bytes::new(),
                "GET /x?y HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
            ),
            (
                "POST",
                &[("content-length", "0")],
                Bytes::new(),
                "POST /x?y HTTP/1.1\r\ncontent-length: 0\r\n\r\n".to_owned(),
            ),
            (
                "POST",
                &[],
                Bytes::new(),
                "POST /x?y HTTP/1.1\r\ncontent-length: 0\r\n\r\n".to_owned(),
            ),
            // Whatever the head claims: nothing is nothing.
            (
                "POST",
                &[("content-length", "9")],
                Bytes::new(),
                "POST /x?y HTTP/1.1\r\ncontent-length: 0\r\n\r\n".to_owned(),
            ),
            (
                "POST",
                &[("content-length", "5")],
                Bytes::from_static(b"abEND"),
                "POST /x?y HTTP/1.1\r\ncontent-length: 5\r\n\r\nabEND".to_owned(),
            ),
            (
                "PUT",
                &[],
                Bytes::from_static(b"abc"),
                "PUT /x?y HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
                    .to_owned(),
            ),
            (
                "PUT",
                &[],
                large.clone(),
                format!(
                    "PUT /x?y HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2710\r\n{}\r\n0\r\n\r\n",
                    std::str::from_utf8(&large).unwrap()
                ),
            ),
            (
                "PUT",
                &[("content-length", "10000")],
                large.clone(),
                format!(
                    "PUT /x?y HTTP/1.1\r\ncontent-length: 10000\r\n\r\n{}",
                    std::str::from_utf8(&large).unwrap()
                ),
            ),
        ] {
            let mut seen = String::new();
            let asking = async {
                let answer = ask(&worker, address, request(method, headers, body)).await;
                assert_eq!(answer.unwrap().status(), 204);
            };
            let telling = async {
                // A body may come behind its head.
                while seen.len() < expected.len() {
                    seen.push_str(&String::from_utf8(tell.recv().await.unwrap()).unwrap());
                }
            };
            tokio::join!(asking, telling);
            assert_eq!(seen, expected);
            // What was answered before its body came is not asked again.
            worker.pool.close_idle();
        }
    })
    .await;
}

#[tokio::test]
async fn a_body_of_another_length_than_its_head_says_is_not_sent() {
    local(async {
        let (address, _) = server(|mut stream, _| async move {
            let mut all = Vec::new();
            let _ = stream.read_to_end(&mut all).await;
        })
        .await;
        let worker = idle_worker();
        for length in ["2", "4"] {
            let headers = [("content-length", length)];
            let request = request("POST", &headers, Bytes::from_static(b"abc"));
            let failure = ask(&worker, address, request).await.unwrap_err();
            assert_eq!(failure.reason, Reason::UpstreamReset);
            assert!(!failure.unprocessed && !failure.stale);
        }
    })
    .await;
}

#[tokio::test]
async fn an_answer_may_come_before_the_request_was_read() {
    local(async {
        let (address, _) = server(|mut stream, _| async move {
            head(&mut stream).await;
            let answer = b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            stream.write_all(b"big").await.unwrap();
            // Reads nothing; it closes when the other side has.
            stream.readable().await.unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
        })
        .await;
        let worker = idle_worker();
        let large = Bytes::from(vec![b'x'; 32 * 1024 * 1024]);
        let response = ask(&worker, address, request("POST", &[], large))
            .await
            .unwrap();
        assert_eq!(response.status(), 413);
        assert_eq!(text(response).await.unwrap(), "big");
        assert!(
            worker
                .pool
                .place(&target(address))
                .http1
                .borrow()
                .is_empty()
        );
    })
    .await;
}

#[tokio::test]
async fn the_rest_of_a_request_is_sent_while_nobody_reads_the_response() {
    local(async {
        let (told, mut tell) = tokio::sync::mpsc::unbounded_channel();
        let (address, _) = server(move |mut stream, _| {
            let told = told.clone();
            async move {
                head(&mut stream).await;
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n";
                stream.write_all(answer).await.unwrap();
                let mut left = vec![0; 16 * 1024 * 1024];
                told.send(stream.read_exact(&mut left).await.is_ok())
                    .unwrap();
                stream.write_all(b"done").await.unwrap();
                head(&mut stream).await;
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nagain";
                stream.write_all(answer).await.unwrap();
            }
        })
        .await;
        let worker = idle_worker();
        let length = (16 * 1024 * 1024).to_string();
        let large = Bytes::from(vec![b'x'; 16 * 1024 * 1024]);
        let request = request("POST", &[("content-length", &length)], large);
        let response = ask(&worker, address, request).await.unwrap();
        assert_eq!(tell.recv().await, Some(true));
        assert_eq!(text(response).await.unwrap(), "done");
        // Then its connection is as good as any.
        let response = get(&worker, address).await.unwrap();
        assert_eq!(text(response).await.unwrap(), "again");
    })
    .await;
}

#[tokio::test]
async fn interim_responses_are_passed_on() {
    local(async {
        let (address, _) = answers(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n\
             HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        )
        .await;
        let worker = idle_worker();
        let interim = Arc::new(Interim::default());
        let target = target(address);
        let path = Path {
            interim: Some(&interim),
            ..path(&worker, &target)
        };
        let response = send(path, || request("GET", &[], Bytes::new()))
            .await
            .unwrap();
        let passed = interim.take();
        assert_eq!(passed.len(), 1);
        assert_eq!(passed[0].status(), 103);
        assert_eq!(text(response).await.unwrap(), "ok");
    })
    .await;
}

#[tokio::test]
async fn an_upgrade_gives_the_connection_away() {
    local(async {
        let (address, _) = server(|mut stream, number| async move {
            head(&mut stream).await;
            let answer: &[u8] = if number == 1 {
                b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\nhello"
            } else {
                b"HTTP/1.1 426 No\r\ncontent-length: 2\r\n\r\nno"
            };
            stream.write_all(answer).await.unwrap();
            let mut bytes = [0; 5];
            if stream.read_exact(&mut bytes).await.is_ok() {
                stream.write_all(&bytes).await.unwrap();
            }
        })
        .await;
        let worker = idle_worker();
        let target = target(address);
        let path = path(&worker, &target);
        let wish = || {
            request(
                "GET",
                &[("connection", "upgrade"), ("upgrade", "x")],
                Bytes::new(),
            )
        };
        let response = send_for_upgrade(path, wish).await.unwrap();
        assert_eq!(response.status(), 101);
        let Source::Upgraded(mut upgraded) = response.into_body() else {
            panic!("no connection");
        };
        let mut bytes = [0; 5];
        upgraded.stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"hello");
        upgraded.stream.write_all(b"world").await.unwrap();
        upgraded.stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"world");

        let response = send_for_upgrade(path, wish).await.unwrap();
        assert_eq!(text(response).await.unwrap(), "no");
    })
    .await;
}

#[test]
fn what_streams_hold_is_small() {
    assert!(
        size_of::<Http1Response>() <= 256,
        "{}",
        size_of::<Http1Response>()
    );
    assert!(size_of::<Source>() <= 64, "{}", size_of::<Source>());
}
