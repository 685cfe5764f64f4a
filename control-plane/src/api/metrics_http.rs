//! Plain HTTP for Prometheus and probes: `/metrics`, `/live`, `/ready`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// A scraper and a few probes; more wait.
const MAX_CONNECTIONS: usize = 64;
/// Slow clients are let go.
const HEAD: Duration = Duration::from_secs(5);
/// No connection lasts longer; scrapers open another.
const LIFETIME: Duration = Duration::from_secs(300);

/// What there is to say.
pub trait Source: Send + Sync + 'static {
    /// Prometheus' text format.
    fn metrics(&self) -> String;
    /// Why the control plane is not ready; none where it is.
    fn not_ready(&self) -> Option<String>;
}

/// Serves for as long as the program runs.
pub async fn serve(listener: TcpListener, source: Arc<dyn Source>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let source = source.clone();
                tokio::spawn(async move {
                    let _slot = slot;
                    let _ = tokio::time::timeout(LIFETIME, connection(stream, source)).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection for metrics");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, source: Arc<dyn Source>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answer(&request, &*source);
        std::future::ready(Ok::<_, Infallible>(response))
    });
    // What goes wrong with one client's connection is that client's business.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn answer(request: &Request<Incoming>, source: &dyn Source) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET is allowed\n".to_owned(),
        );
    }
    match request.uri().path() {
        "/metrics" => {
            let mut response = text(StatusCode::OK, source.metrics());
            let kind = header::HeaderValue::from_static(prometheus::TEXT_FORMAT);
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        "/live" => text(StatusCode::OK, "live\n".to_owned()),
        "/ready" => match source.not_ready() {
            None => text(StatusCode::OK, "ready\n".to_owned()),
            Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        },
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /metrics, /live and /ready\n".to_owned(),
        ),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
