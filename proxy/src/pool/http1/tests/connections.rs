//! What becomes of a connection.

use std::rc::Rc;
use std::time::Duration;

use http_body::Body;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::{answers, get, head, local, server, text};
use crate::error::Reason;
use crate::pool::Failure;
use crate::runtime::tests::idle_worker;

#[tokio::test]
async fn a_connection_is_used_again_when_its_response_has_ended() {
    local(async {
        for (answer, connections) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 1),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
                1,
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
                3,
            ),
            ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", 3),
            // More than was asked for.
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200",
                3,
            ),
        ] {
            let (address, count) = answers(answer).await;
            let worker = idle_worker();
            for _ in 0..3 {
                let response = get(&worker, address).await.unwrap();
                assert_eq!(text(response).await.unwrap(), "ok");
            }
            assert_eq!(count.get(), connections, "{answer}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_response_that_is_dropped_closes_its_connection() {
    local(async {
        let (told, mut tell) = tokio::sync::mpsc::unbounded_channel();
        let (address, _) = server(move |mut stream, _| {
            let told = told.clone();
            async move {
                head(&mut stream).await;
                let answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n";
                stream.write_all(answer).await.unwrap();
                told.send(stream.read_u8().await.is_err()).unwrap();
            }
        })
        .await;
        let worker = idle_worker();
        let mut response = get(&worker, address).await.unwrap();
        let frame = response.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "a");
        drop(response);
        assert_eq!(tell.recv().await, Some(true));
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_not_used() {
    local(async {
        let (told, mut tell) = tokio::sync::mpsc::unbounded_channel();
        let (address, count) = server(move |mut stream, _| {
            let told = told.clone();
            async move {
                head(&mut stream).await;
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                stream.write_all(answer).await.unwrap();
                drop(stream);
                told.send(()).unwrap();
            }
        })
        .await;
        let worker = idle_worker();
        for number in 1..=3 {
            let response = get(&worker, address).await.unwrap();
            assert_eq!(text(response).await.unwrap(), "ok");
            assert_eq!(count.get(), number);
            tell.recv().await.unwrap();
            // The runtime has to hear of it.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_breaks_when_it_is_used_again_is_stale() {
    local(async {
        let (address, _) = server(|mut stream, _| async move {
            head(&mut stream).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            stream.write_all(answer).await.unwrap();
            head(&mut stream).await;
        })
        .await;
        let worker = idle_worker();
        let response = get(&worker, address).await.unwrap();
        assert_eq!(text(response).await.unwrap(), "ok");
        let failure = get(&worker, address).await.unwrap_err();
        assert_eq!(
            failure,
            Failure {
                reason: Reason::UpstreamReset,
                unprocessed: false,
                stale: true,
            }
        );
        // A new one that breaks is not.
        let (address, _) = server(|mut stream, _| async move {
            head(&mut stream).await;
        })
        .await;
        let failure = get(&worker, address).await.unwrap_err();
        assert!(!failure.stale && !failure.unprocessed);
    })
    .await;
}

#[tokio::test]
async fn a_broken_answer_says_something_about_the_server() {
    local(async {
        for answer in [
            "HTTP/1.1 200 OK\r\ncontent-le",
            "SSH-2.0-OpenSSH\r\n\r\n",
            // It had begun.
            "HTTP/1.1 103 Early Hints\r\n\r\n",
        ] {
            let (address, _) = server(move |mut stream, number| async move {
                while head(&mut stream).await.is_some() {
                    if number == 1 {
                        let good = b"HTTP/1.1 204 No Content\r\n\r\n";
                        stream.write_all(good).await.unwrap();
                    }
                    if head(&mut stream).await.is_some() {
                        stream.write_all(answer.as_bytes()).await.unwrap();
                        return;
                    }
                }
            })
            .await;
            let worker = idle_worker();
            get(&worker, address).await.unwrap();
            let failure = get(&worker, address).await.unwrap_err();
            assert_eq!(failure.reason, Reason::UpstreamReset);
            assert!(!failure.stale && !failure.unprocessed, "{answer}");
        }
    })
    .await;
}

#[tokio::test]
async fn only_a_body_without_a_length_ends_with_its_connection() {
    local(async {
        for (answer, ends) in [
            ("HTTP/1.1 200 OK\r\n\r\nok", true),
            ("HTTP/1.0 200 OK\r\n\r\nok", true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok", false),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n",
                false,
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n",
                false,
            ),
        ] {
            let (address, count) = server(move |mut stream, _| async move {
                head(&mut stream).await;
                stream.write_all(answer.as_bytes()).await.unwrap();
            })
            .await;
            let worker = idle_worker();
            for number in 1..=2 {
                let response = get(&worker, address).await.unwrap();
                let mut body = response.into_body();
                let first = body.frame().await.unwrap().unwrap();
                assert_eq!(first.into_data().unwrap(), "ok");
                let end = body.frame().await;
                assert_eq!(end.is_none(), ends, "{answer}");
                assert_eq!(body.is_end_stream(), ends, "{answer}");
                assert_eq!(count.get(), number);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_reset_is_no_end() {
    local(async {
        let read = Rc::new(Notify::new());
        let was_read = Rc::clone(&read);
        let (address, _) = server(move |mut stream, _| {
            let was_read = Rc::clone(&was_read);
            async move {
                head(&mut stream).await;
                let answer = b"HTTP/1.1 200 OK\r\n\r\nok";
                stream.write_all(answer).await.unwrap();
                // A reset takes away what was not read.
                was_read.notified().await;
                stream.set_zero_linger().unwrap();
            }
        })
        .await;
        let worker = idle_worker();
        let mut body = get(&worker, address).await.unwrap().into_body();
        let first = body.frame().await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "ok");
        read.notify_one();
        assert!(body.frame().await.unwrap().is_err());
    })
    .await;
}
