use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::sync::Semaphore;

use super::http::Broken;
use crate::client::{Body, Error, full};

/// What one application counts and remembers.
#[derive(Debug)]
pub(super) struct State {
    name: String,
    pub(super) requests: AtomicU64,
    pub(super) in_flight: AtomicU64,
    pub(super) bytes_sent: AtomicU64,
    pub(super) bytes_received: AtomicU64,
    failures: Mutex<HashMap<String, u32>>,
    workers: Arc<Semaphore>,
}

impl State {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_string(),
            requests: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
            bytes_received: AtomicU64::new(0),
            failures: Mutex::default(),
            workers: Arc::new(Semaphore::new(4)),
        }
    }

    /// Whether the request is one of the first `fail` with its key.
    fn fails(&self, query: &Query) -> bool {
        let key = query.text("key").unwrap_or_default().to_string();
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(key).or_insert(0);
        *count += 1;
        *count <= query.number("fail", 1)
    }
}

/// Counts a request as in flight until its response's body is dropped.
struct InFlight(Arc<State>);

impl InFlight {
    fn new(state: &Arc<State>) -> Self {
        state.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(state))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Query(HashMap<String, String>);

impl Query {
    fn of(uri: &http::Uri) -> Self {
        let pairs = uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='));
        Self(
            pairs
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect(),
        )
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    fn number<T: std::str::FromStr>(&self, key: &str, default: T) -> T {
        self.text(key)
            .and_then(|value| value.parse().ok())
            .unwrap_or(default)
    }

    fn pause(&self, key: &str) -> Duration {
        Duration::from_millis(self.number(key, 0))
    }
}

pub(super) async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Broken> {
    state.requests.fetch_add(1, Ordering::Relaxed);
    let guard = InFlight::new(&state);
    let query = Query::of(request.uri());
    let path = request.uri().path().to_string();
    let (first, second) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
    let mut response = match first {
        "status" => {
            let status = second.parse().unwrap_or(400);
            Response::builder()
                .status(status)
                .body(full(format!("status {status}\n")))
                .map_err(|_| Broken)?
        }
        "flaky" if state.fails(&query) => {
            let status = query.number("status", 503);
            // Read whole: what is not read would make the server close the connection.
            let _ = request.into_body().collect().await;
            Response::builder()
                .status(status)
                .body(full("flaky\n"))
                .map_err(|_| Broken)?
        }
        "reset" if state.fails(&query) => {
            // Read whole: a request that was not sent whole may be sent again whatever its method.
            let _ = request.into_body().collect().await;
            return Err(Broken);
        }
        "slow" => {
            tokio::time::sleep(query.pause("ms")).await;
            echo(&state, request).await?
        }
        "work" => {
            let (workers, pause) = (Arc::clone(&state.workers), query.pause("ms"));
            let work = tokio::spawn(async move {
                let _worker = workers.acquire().await;
                tokio::time::sleep(pause).await;
            });
            let _ = work.await;
            echo(&state, request).await?
        }
        "bytes" => Response::new(bytes(guard, second.parse().unwrap_or(0))),
        "sink" | "slow-sink" => sink(&state, request.into_body(), query.pause("ms")).await?,
        "duplex" => Response::new(duplex(guard, request.into_body())),
        "sse" | "stall" => {
            let mut response = Response::new(events(guard, &query, first == "stall"));
            response.headers_mut().insert(
                "content-type",
                HeaderValue::from_static("text/event-stream"),
            );
            response
        }
        "truncate" => {
            let mut response = Response::new(truncated());
            response
                .headers_mut()
                .insert("content-length", HeaderValue::from_static("1000"));
            response
        }
        "trailers" => {
            let mut response = Response::new(with_trailers());
            // HTTP/1.1 libraries send only trailers that were announced.
            response
                .headers_mut()
                .insert("trailer", HeaderValue::from_static("x-checksum"));
            response
        }
        _ => echo(&state, request).await?,
    };
    let name = HeaderValue::from_str(&state.name).map_err(|_| Broken)?;
    response.headers_mut().insert("x-instance", name);
    Ok(response)
}

/// What was received, as JSON.
async fn echo(state: &State, request: Request<Incoming>) -> Result<Response<Body>, Broken> {
    let (head, body) = request.into_parts();
    let collected = body.collect().await.map_err(|_| Broken)?;
    let trailers = collected.trailers().map(map_to_json);
    let body = collected.to_bytes();
    state
        .bytes_received
        .fetch_add(body.len() as u64, Ordering::Relaxed);
    let json = serde_json::json!({
        "instance": state.name,
        "method": head.method.as_str(),
        "version": format!("{:?}", head.version),
        "uri": head.uri.to_string(),
        "path": head.uri.path(),
        "query": head.uri.query(),
        "headers": map_to_json(&head.headers),
        "body": String::from_utf8_lossy(&body),
        "trailers": trailers,
    });
    let mut response = Response::new(full(json.to_string()));
    response
        .headers_mut()
        .insert("content-type", HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Values of the same name joined with `, `.
fn map_to_json(headers: &HeaderMap) -> serde_json::Value {
    let mut map = serde_json::Map::new();
    for name in headers.keys() {
        let values: Vec<_> = headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        map.insert(name.to_string(), values.join(", ").into());
    }
    map.into()
}

async fn sink(
    state: &State,
    mut body: Incoming,
    pause: Duration,
) -> Result<Response<Body>, Broken> {
    let (mut length, mut sum) = (0_u64, 0_u64);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Broken)?.into_data() else {
            continue;
        };
        length += data.len() as u64;
        sum = data
            .iter()
            .fold(sum, |sum, byte| sum.wrapping_add(u64::from(*byte)));
        state
            .bytes_received
            .fetch_add(data.len() as u64, Ordering::Relaxed);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
    Ok(Response::new(full(format!("{length} {sum}"))))
}

/// Zeros, in pieces of 64 KiB, made as they are asked for.
fn bytes(guard: InFlight, length: u64) -> Body {
    static PIECE: [u8; 65536] = [0; 65536];
    let stream = futures_util::stream::unfold((guard, length), |(guard, left)| async move {
        if left == 0 {
            return None;
        }
        let length = left.min(PIECE.len() as u64);
        guard.0.bytes_sent.fetch_add(length, Ordering::Relaxed);
        let piece = Bytes::from_static(&PIECE[..usize::try_from(length).expect("at most a piece")]);
        Some((Ok::<_, Error>(Frame::data(piece)), (guard, left - length)))
    });
    StreamBody::new(stream).boxed_unsync()
}

fn duplex(guard: InFlight, body: Incoming) -> Body {
    body.map_frame(move |frame| {
        if let Some(data) = frame.data_ref() {
            guard
                .0
                .bytes_received
                .fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        frame
    })
    .map_err(Error::from)
    .boxed_unsync()
}

/// Server-sent events as a model server sends them.
fn events(guard: InFlight, query: &Query, stall: bool) -> Body {
    let count: u64 = query.number("n", 3);
    let (pause, first) = (query.pause("ms"), query.pause("first"));
    let stream = futures_util::stream::unfold((guard, 0), move |(guard, sent)| async move {
        if sent > count {
            return None;
        }
        tokio::time::sleep(if sent == 0 { first } else { pause }).await;
        if sent == count && stall {
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        let event = match sent == count {
            true => "data: [DONE]\n\n".to_string(),
            false => format!(
                "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"token{sent} \"}}}}]}}\n\n"
            ),
        };
        Some((
            Ok::<_, Error>(Frame::data(Bytes::from(event))),
            (guard, sent + 1),
        ))
    });
    StreamBody::new(stream).boxed_unsync()
}

/// The first piece must be on the wire before the connection breaks.
fn truncated() -> Body {
    let stream = futures_util::stream::unfold(0, |sent| async move {
        if sent == 0 {
            return Some((Ok(Frame::data(Bytes::from_static(&[b'x'; 100]))), 1));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        Some((Err(Error::from(Broken)), sent))
    });
    StreamBody::new(stream).boxed_unsync()
}

fn with_trailers() -> Body {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", HeaderValue::from_static("abc"));
    let frames = [
        Ok::<_, Error>(Frame::data(Bytes::from_static(b"with trailers\n"))),
        Ok(Frame::trailers(trailers)),
    ];
    StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
}
