//! Two small HTTP servers on the control thread: metrics and health for the outside, and the admin port for people on the
//! machine.
//!
//! | path | methods | on | |
//! |---|---|---|---|
//! | `/live` | GET | both | 200 while the process answers |
//! | `/ready` | GET | both | 200, or 503 with a line for each thing that is missing |
//! | `/metrics` | GET | both | Prometheus' text format |
//! | `/config` | GET | admin | the configuration in effect, JSON |
//! | `/endpoints` | GET | admin | endpoints with their load, JSON |
//! | `/log-level` | GET, PUT | admin | the program log's level, text |
//! | `/drain` | POST | admin | begins to drain |
//!
//! Both are bounded: connections, sizes, times.

pub(crate) mod config;
mod endpoints;
mod guard;
mod reply;
mod routes;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::shared::Shared;
use crate::telemetry::logging::LogLevel;

/// Connections at a time on each of the two ports. Further ones wait in the listen queue.
const MAX_CONNECTIONS: usize = 64;
/// A request's head has to be there within this time; also how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest life of a connection. Prometheus opens a new one where this ends.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(600);
/// Largest head, bytes.
const MAX_HEAD: usize = 16 << 10;
/// After accept() failed (usually: no file descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Which of the two ports a request came in on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    Admin,
    Metrics,
}

/// What handlers need.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) shared: Arc<Shared>,
    pub(crate) log_level: LogLevel,
}

/// Opens a listener. The error names the address.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    })
}

/// Serves both ports until the task is dropped.
pub async fn serve(
    shared: Arc<Shared>,
    log_level: LogLevel,
    admin: TcpListener,
    metrics: TcpListener,
) {
    let state = State { shared, log_level };
    tokio::join!(
        accept(state.clone(), Port::Admin, admin),
        accept(state, Port::Metrics, metrics)
    );
}

async fn accept(state: State, port: Port, listener: TcpListener) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return; // Never closed.
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(state.clone(), port, stream, slot));
            }
            Err(error) => {
                tracing::warn!(%error, "the admin or metrics port cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(state: State, port: Port, stream: TcpStream, slot: OwnedSemaphorePermit) {
    let service = service_fn(move |request| {
        let state = state.clone();
        async move { Ok::<_, std::convert::Infallible>(routes::answer(&state, port, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    // How a scraper's connection ends is of no interest.
    let _ = tokio::time::timeout(CONNECTION_LIFETIME, connection).await;
    drop(slot);
}

#[cfg(test)]
mod tests;
