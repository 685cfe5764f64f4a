//! HTTP/1.1 towards upstreams: one request at a time on a connection, kept for the next one.

use std::rc::Rc;
use std::sync::Arc;

use http::{Request, Response};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::{Alpn, Failure, HTTP1_IDLE, Path, Place, connect};
use crate::error::Reason;
use crate::http::body::Source;
use crate::http::replay::RequestBody;
use crate::telemetry::metrics::{Side, Wire};

/// Most bytes of a response's head, and of what is buffered for writing.
const MAX_BUFFER: usize = 128 * 1024;

/// Most idle connections that are kept to one place. More were needed once, at a peak.
const MAX_IDLE: usize = 512;

/// Idle connections, the one used last at the end.
#[derive(Debug, Default)]
pub(super) struct Idle {
    connections: Vec<IdleConnection>,
}

#[derive(Debug)]
struct IdleConnection {
    send: SendRequest<RequestBody>,
    since: Instant,
}

impl Idle {
    fn take(&mut self) -> Option<SendRequest<RequestBody>> {
        let now = Instant::now();
        // The last one is the one least likely to be closed by the other side in this very moment.
        while let Some(idle) = self.connections.pop() {
            if now.duration_since(idle.since) >= HTTP1_IDLE {
                // All that are left are older.
                self.connections.clear();
                return None;
            }
            if idle.send.is_ready() {
                return Some(idle.send);
            }
        }
        None
    }

    fn put(&mut self, send: SendRequest<RequestBody>) {
        if self.connections.len() < MAX_IDLE {
            self.connections.push(IdleConnection {
                send,
                since: Instant::now(),
            });
        }
    }

    pub(super) fn sweep(&mut self, now: Instant) {
        self.connections
            .retain(|idle| !idle.send.is_closed() && now.duration_since(idle.since) < HTTP1_IDLE);
        if self.connections.is_empty() {
            self.connections = Vec::new();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }
}

/// A connection in use by one request.
pub(crate) struct Http1Lease {
    send: SendRequest<RequestBody>,
    place: Rc<Place>,
}

impl std::fmt::Debug for Http1Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http1Lease").finish_non_exhaustive()
    }
}

impl Http1Lease {
    /// The response was read to its end.
    pub(crate) fn give_back(self) {
        let Http1Lease { mut send, place } = self;
        if send.is_ready() {
            place.keep(send);
        } else if !send.is_closed() {
            // The request's last bytes are still on their way.
            tokio::task::spawn_local(async move {
                let ready = tokio::time::timeout(HTTP1_IDLE, send.ready()).await;
                if let Ok(Ok(())) = ready {
                    place.keep(send);
                }
            });
        }
    }
}

impl Place {
    fn keep(&self, send: SendRequest<RequestBody>) {
        if !self.closed.get() {
            self.http1.borrow_mut().put(send);
        }
    }
}

/// Sends a request on a pooled connection, or on a new one. `request` makes it, once for each connection that is tried.
pub(crate) async fn send(
    path: Path<'_>,
    request: impl Fn() -> Request<RequestBody>,
) -> Result<Response<Source>, Failure> {
    let place = path.worker.pool.place(path.target);
    place.used_at.set(Instant::now());
    loop {
        let pooled = place.http1.borrow_mut().take();
        let reused = pooled.is_some();
        let mut send = match pooled {
            Some(send) => send,
            None => Box::pin(open(path, false)).await?,
        };
        let sent = send.try_send_request(path.with_interim(request()));
        let mut error = match sent.await {
            Ok(response) => {
                let lease = Http1Lease { send, place };
                return Ok(response.map(|incoming| Source::http1(incoming, Some(lease))));
            }
            Err(error) => error,
        };
        // The message comes back where nothing of it was written.
        let unsent = error.take_message().is_some();
        if reused {
            // The others have been idle for longer: what closed this one may have closed them.
            place.http1.take();
            if unsent {
                continue;
            }
        }
        return Err(Failure {
            reason: Reason::UpstreamReset,
            unprocessed: unsent,
            stale: reused,
        });
    }
}

/// Sends a request that may turn its connection into something else, on a connection of its own.
pub(crate) async fn send_for_upgrade(
    path: Path<'_>,
    request: impl Fn() -> Request<RequestBody>,
) -> Result<Response<Source>, Failure> {
    let mut send = open(path, true).await?;
    match send.send_request(request()).await {
        Ok(response) => Ok(response.map(|incoming| Source::http1(incoming, None))),
        Err(_) => Err(Failure {
            reason: Reason::UpstreamReset,
            unprocessed: false,
            stale: false,
        }),
    }
}

impl Path<'_> {
    /// Has interim responses passed on.
    fn with_interim(&self, mut request: Request<RequestBody>) -> Request<RequestBody> {
        if let Some(interim) = self.interim {
            let interim = Arc::clone(interim);
            hyper::ext::on_informational(&mut request, move |response| {
                interim.push(response.status(), response.headers());
            });
        }
        request
    }
}

/// A new connection, its task running.
async fn open(path: Path<'_>, upgrade: bool) -> Result<SendRequest<RequestBody>, Failure> {
    let stream = connect(path.worker, *path.target, Alpn::Http1)
        .await?
        .stream;
    let metrics = &path.worker.shared.metrics;
    let open = metrics.connection(path.direction, Side::Upstream, Wire::Http1);
    let (send, connection) = Builder::new()
        .max_buf_size(MAX_BUFFER)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| Failure::before(Reason::ConnectFailed))?;
    // Its error is told to whoever waits for a response.
    if upgrade {
        tokio::task::spawn_local(async move {
            let _ = connection.with_upgrades().await;
            drop(open);
        });
    } else {
        tokio::task::spawn_local(async move {
            let _ = connection.await;
            drop(open);
        });
    }
    Ok(send)
}
