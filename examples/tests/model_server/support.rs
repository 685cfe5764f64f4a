//! A server on a port of its own, and a client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use outrigger_examples::api::App;
use outrigger_examples::engine::{Engine, EngineConfig};
use outrigger_examples::faults::{FaultBoard, Faults};
use outrigger_examples::metrics::Metrics;
use outrigger_examples::server::serve;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const CHAT: &str = "/v1/chat/completions";

pub struct Server {
    pub address: SocketAddr,
    pub app: Arc<App>,
    pub stop: CancellationToken,
    pub task: JoinHandle<()>,
}

impl Server {
    pub async fn start(config: EngineConfig) -> Self {
        let metrics = Arc::new(Metrics::new("tiny", &config));
        let app = Arc::new(App {
            name: HeaderValue::from_static("replica-1"),
            models: vec!["tiny".into(), "alias".into()],
            max_model_len: config.max_model_len,
            max_body_bytes: 64 << 10,
            allow_header_faults: true,
            engine: Engine::start(config, Arc::clone(&metrics)),
            metrics,
            faults: FaultBoard::new(Faults::default()),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(
            listener,
            Arc::clone(&app),
            stop.clone(),
            Duration::from_secs(5),
        ));
        Self {
            address,
            app,
            stop,
            task,
        }
    }

    pub async fn fast() -> Self {
        Self::start(EngineConfig {
            decode_base: Duration::from_millis(1),
            decode_per_sequence: Duration::ZERO,
            max_model_len: 1_024,
            ..EngineConfig::default()
        })
        .await
    }

    /// One request on a connection of its own, with headers `name: value`.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response<Incoming> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        sender
            .send_request(request(method, path, headers, body))
            .await
            .unwrap()
    }

    pub async fn post(&self, path: &str, body: Value) -> Response<Incoming> {
        self.send(Method::POST, path, &[], &body.to_string()).await
    }

    pub async fn metric(&self, series: &str) -> f64 {
        let reply = self.send(Method::GET, "/metrics", &[], "").await;
        let text = String::from_utf8(reply.into_body().collect().await.unwrap().to_bytes().into())
            .unwrap();
        let line = text.lines().find(|line| line.starts_with(series));
        line.unwrap_or_else(|| panic!("no {series} in\n{text}"))
            .rsplit(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap()
    }
}

pub fn request(
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Request<Full<Bytes>> {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("http://model{path}"))
        .header("host", "model");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request
        .body(Full::new(Bytes::from(body.to_owned())))
        .unwrap()
}

pub fn chat(extra: Value) -> Value {
    let mut body =
        json!({"model": "tiny", "messages": [{"role": "user", "content": "Tell me of the sea"}]});
    body.as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    body
}

pub async fn json_of(reply: Response<Incoming>) -> Value {
    serde_json::from_slice(&reply.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

/// The `data:` of every event, checked to be framed as they must be.
pub async fn events(reply: Response<Incoming>) -> Vec<String> {
    assert_eq!(reply.status(), StatusCode::OK);
    assert_eq!(
        reply.headers()["content-type"],
        "text/event-stream; charset=utf-8"
    );
    let text =
        String::from_utf8(reply.into_body().collect().await.unwrap().to_bytes().into()).unwrap();
    assert!(text.ends_with("\n\n"), "{text:?}");
    text.trim_end()
        .split("\n\n")
        .map(|event| event.strip_prefix("data: ").unwrap().to_owned())
        .collect()
}

pub fn parsed(events: &[String]) -> Vec<Value> {
    events
        .iter()
        .filter(|event| *event != "[DONE]")
        .map(|event| serde_json::from_str(event).unwrap())
        .collect()
}
