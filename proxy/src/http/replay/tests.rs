#![allow(clippy::unwrap_used)]
use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Body, Frame};
use tokio::task::LocalSet;

use super::{Replay, RequestBody};
use crate::http::body::{BodyError, Source};

/// A body as it comes from a client: through a real connection, because nothing else makes one.
async fn source(chunks: Vec<&'static str>, trailers: bool) -> Source {
    let (client, server) = tokio::io::duplex(64 * 1024);
    tokio::task::spawn_local(async move {
        let (mut send, connection) =
            hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(client))
                .await
                .unwrap();
        tokio::task::spawn_local(connection);
        let mut frames: Vec<Result<Frame<Bytes>, Infallible>> = chunks
            .into_iter()
            .map(|chunk| Ok(Frame::data(Bytes::from(chunk))))
            .collect();
        if trailers {
            let mut map = http::HeaderMap::new();
            map.insert("x-sum", http::HeaderValue::from_static("1"));
            frames.push(Ok(Frame::trailers(map)));
        }
        let request = http::Request::builder()
            .method("POST")
            .header("host", "x")
            .header("trailer", "x-sum")
            .body(StreamBody::new(tokio_stream::iter(frames)))
            .unwrap();
        let _ = send.send_request(request).await;
    });
    let (give, take) = tokio::sync::oneshot::channel();
    let give = Rc::new(std::cell::RefCell::new(Some(give)));
    tokio::task::spawn_local(async move {
        let service =
            hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let give = give.borrow_mut().take();
                async move {
                    if let Some(give) = give {
                        let _ = give.send(request.into_body());
                    }
                    std::future::pending::<Result<http::Response<String>, Infallible>>().await
                }
            });
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(hyper_util::rt::TokioIo::new(server), service)
            .await;
    });
    Source::http1(take.await.unwrap())
}

fn kept(source: Source, cap: usize, length: Option<u64>) -> Replay {
    let replay = Replay::new(source);
    replay.keep(cap, length);
    replay
}

async fn text(body: RequestBody) -> Result<(String, bool), BodyError> {
    let collected = body.collect().await?;
    let trailers = collected.trailers().is_some();
    Ok((
        String::from_utf8(collected.to_bytes().to_vec()).unwrap(),
        trailers,
    ))
}

#[tokio::test]
async fn is_the_same_each_time() {
    LocalSet::new()
        .run_until(async {
            let replay = kept(source(vec!["one ", "two"], true).await, 100, None);
            assert_eq!(text(replay.body()).await.unwrap(), ("one two".into(), true));
            assert!(replay.can_repeat());
            assert!(replay.is_sent());
            let again = replay.body();
            assert!(!again.is_end_stream());
            assert_eq!(text(again).await.unwrap(), ("one two".into(), true));
            assert_eq!(replay.bytes(), 7);
        })
        .await;
}

#[tokio::test]
async fn goes_on_where_the_first_try_stopped() {
    LocalSet::new()
        .run_until(async {
            let replay = kept(source(vec!["one ", "two"], false).await, 100, None);
            let mut first = replay.body();
            let frame = first.frame().await.unwrap().unwrap();
            assert!(frame.is_data());
            let second = replay.body();
            // The first try's connection may still ask: it must not see an end.
            assert!(!first.is_end_stream());
            assert!(matches!(
                first.frame().await,
                Some(Err(BodyError::Superseded))
            ));
            assert_eq!(text(second).await.unwrap(), ("one two".into(), false));
            assert!(!first.is_end_stream());
        })
        .await;
}

#[tokio::test]
async fn too_long_is_sent_once() {
    LocalSet::new()
        .run_until(async {
            let replay = kept(source(vec!["one ", "two"], false).await, 5, None);
            assert!(replay.can_repeat(), "nothing was sent yet");
            assert_eq!(text(replay.body()).await.unwrap().0, "one two");
            assert!(!replay.can_repeat());

            let replay = kept(source(vec!["one ", "two"], false).await, 100, Some(101));
            assert!(replay.can_repeat());
            let mut body = replay.body();
            body.frame().await.unwrap().unwrap();
            assert!(!replay.can_repeat());
        })
        .await;
}

#[tokio::test]
async fn sealed_keeps_nothing_and_loses_nothing() {
    LocalSet::new()
        .run_until(async {
            let replay = kept(source(vec!["one ", "two ", "three"], true).await, 100, None);
            let mut first = replay.body();
            first.frame().await.unwrap().unwrap();
            drop(first);
            let second = replay.body();
            replay.seal();
            assert_eq!(text(second).await.unwrap(), ("one two three".into(), true));
            assert!(!replay.can_repeat());
        })
        .await;
}

#[test]
fn no_body_can_always_be_repeated() {
    let replay = kept(Source::Empty, 0, None);
    assert!(replay.body().is_end_stream());
    assert!(replay.can_repeat());
    assert!(replay.is_sent());
}
