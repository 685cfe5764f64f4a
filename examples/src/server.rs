//! Accepts connections and serves the API on them: HTTP/1.1, and HTTP/2 without TLS.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::App;

/// A request's head has so long to arrive. hyper counts from the end of the last request, so this also closes idle
/// connections; clients that reuse one expect about as much as nginx gives.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// Buffer of an HTTP/1.1 connection, and so the largest head.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// After a failed accept (mostly: out of file descriptors), wait for some to come free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop` is cancelled, then lets requests under way end for at most `drain`.
pub async fn serve(listener: TcpListener, app: Arc<App>, stop: CancellationToken, drain: Duration) {
    let connections = TaskTracker::new();
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    eprintln!("model-server: cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        connections.spawn(connection(stream, Arc::clone(&app), stop.clone()));
    }
    drop(listener);
    connections.close();
    // What is not over by then ends with the process.
    let _ = tokio::time::timeout(drain, connections.wait()).await;
}

async fn connection(stream: TcpStream, app: Arc<App>, stop: CancellationToken) {
    // Tokens are small writes that must not wait for each other. A socket that refuses is about to fail anyway.
    let _ = stream.set_nodelay(true);
    let kill = CancellationToken::new();
    let service = service_fn(|request| {
        let (app, kill) = (Arc::clone(&app), kill.clone());
        async move { Ok::<_, Infallible>(app.handle(request, &kill).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(1024);
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let mut draining = false;
    loop {
        tokio::select! {
            // How a connection ends is the client's affair; what was running on it has been cancelled.
            _ = serving.as_mut() => return,
            // Dropping the connection closes it in the middle of whatever it does.
            () = kill.cancelled() => return,
            () = stop.cancelled(), if !draining => {
                draining = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}
