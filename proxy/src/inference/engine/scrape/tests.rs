#![allow(clippy::unwrap_used)]
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::{MAX_PAGE, Reader, Scrape, connect, path, place, places};
use crate::address::Address;
use crate::inference::engine::Engine;
use crate::policy::EngineSource;

fn source(engine: Option<Engine>) -> EngineSource {
    EngineSource {
        engine,
        path: None,
        port: None,
        interval: Duration::from_millis(150),
    }
}

/// A server that answers with what is in the cell, to requests for one path. Counts connections.
async fn server(wanted: &'static str) -> (Address, Arc<Mutex<String>>, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().into();
    let page = Arc::new(Mutex::new(String::new()));
    let connections = Arc::new(AtomicUsize::new(0));
    let (answer, count) = (page.clone(), connections.clone());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Relaxed);
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = Vec::new();
                while stream.read_buf(&mut request).await.unwrap() > 0 {
                    if !request.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    let found = request.starts_with(format!("GET {wanted} ").as_bytes());
                    let body = answer.lock().unwrap().clone();
                    let (status, body) = match found {
                        true => ("200 OK", body),
                        false => ("404 Not Found", String::new()),
                    };
                    let length = body.len();
                    let text =
                        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
                    if stream.write_all(text.as_bytes()).await.is_err() {
                        return;
                    }
                    request.clear();
                }
            });
        }
    });
    (address, page, connections)
}

#[tokio::test]
async fn the_server_is_found_out_over_one_connection() {
    let (at, page, connections) = server("/metrics").await;
    *page.lock().unwrap() = "vllm:num_requests_waiting 3\n".into();
    let mut reader = Reader::default();
    for waiting in [3, 4, 5] {
        *page.lock().unwrap() = format!("vllm:num_requests_waiting {waiting}\n");
        let figures = reader.read(&at, &source(None)).await.unwrap();
        assert_eq!(
            (figures.engine, figures.waiting),
            (Engine::Vllm, Some(waiting))
        );
    }
    assert_eq!(connections.load(Relaxed), 1);
    let other = source(Some(Engine::Tgi));
    let result = reader.read(&at, &other).await;
    assert_eq!(result.unwrap_err(), Scrape::Unrecognised);
}

#[tokio::test]
async fn an_unknown_server_is_asked_at_both_places() {
    let (at, page, _) = server("/prometheus/metrics").await;
    *page.lock().unwrap() = "trtllm_num_requests_running 2\n".into();
    let mut reader = Reader::default();
    let first = reader.read(&at, &source(None)).await.unwrap_err();
    assert_eq!(first, Scrape::Status);
    reader.failed(first);
    let figures = reader.read(&at, &source(None)).await.unwrap();
    assert_eq!(
        (figures.engine, figures.running),
        (Engine::TensorRtLlm, Some(2))
    );
}

#[tokio::test]
async fn pages_have_a_bound_and_nobody_there_is_no_idle_server() {
    let (at, page, _) = server("/metrics").await;
    *page.lock().unwrap() = format!(
        "{}vllm:num_requests_waiting 3\n",
        "# a\n".repeat(MAX_PAGE / 4)
    );
    let mut reader = Reader::default();
    let result = reader.read(&at, &source(None)).await;
    assert_eq!(result.unwrap_err(), Scrape::TooLarge);
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody: Address = gone.local_addr().unwrap().into();
    drop(gone);
    let result = Reader::default().read(&nobody, &source(None)).await;
    assert_eq!(result.unwrap_err(), Scrape::Unreachable);
}

#[test]
fn where_metrics_are() {
    let application: Address = "127.0.0.1:8000".parse().unwrap();
    let socket: Address = "unix:/run/app.sock".parse().unwrap();
    let at = |source: &EngineSource| place(&application, source).to_string();
    assert_eq!(at(&source(None)), "127.0.0.1:8000");
    assert_eq!(at(&source(Some(Engine::Triton))), "127.0.0.1:8002");
    let other = EngineSource {
        port: Some(9000),
        path: Some("/m".into()),
        ..source(Some(Engine::Triton))
    };
    assert_eq!(at(&other), "127.0.0.1:9000");
    assert_eq!(path(&other, 1), "/m");
    assert_eq!(place(&socket, &other).to_string(), "127.0.0.1:9000");
    assert_eq!(place(&socket, &source(None)), socket);
    assert_eq!(path(&source(None), 2), "/metrics");
    assert_eq!(
        path(&source(Some(Engine::TensorRtLlm)), 0),
        "/prometheus/metrics"
    );
}

#[tokio::test]
async fn the_places_of_llama_cpp_are_asked_for_once() {
    let (at, page, connections) = server("/props").await;
    *page.lock().unwrap() = r#"{"default_generation_settings":{"n_ctx":9},"total_slots":4}"#.into();
    let mut reader = Reader {
        open: Some(connect(at.clone()).await.unwrap()),
        ..Reader::default()
    };
    assert_eq!(reader.places().await, Some(4));
    assert_eq!(reader.places().await, None);
    // Anew after a failure, when there is a connection.
    reader.failed(Scrape::Unreachable);
    assert_eq!(reader.places().await, None);
    assert_eq!(connections.load(Relaxed), 1);
}

#[test]
fn places_that_cannot_be_read_are_unknown() {
    for page in [
        "",
        "{}",
        "[]",
        r#"{"total_slots":0}"#,
        r#"{"total_slots":-1}"#,
        r#"{"total_slots":"4"}"#,
    ] {
        assert_eq!(places(page.as_bytes()), None, "{page}");
    }
    assert_eq!(places(br#"{"total_slots":4294967295}"#), Some(u32::MAX));
}
