use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;

use super::Listener;
use super::behaviour::{self, State};
use crate::loopback;

/// An HTTP application, HTTP/1.1 and h2c, that does what the request's path says.
///
/// | path | it |
/// |---|---|
/// | `/status/503` | answers with that status |
/// | `/flaky?key=k&fail=2&status=503` | fails the first requests with this key, then answers as `/` |
/// | `/reset?key=k&fail=2` | closes the connection of the first requests with this key without an answer |
/// | `/slow?ms=500` | answers after that time |
/// | `/work?ms=50` | works for that time, at four requests at once and the rest in turn, also for callers that have gone |
/// | `/bytes/1000000` | sends so many bytes |
/// | `/sink` | reads the body and answers with its length and sum |
/// | `/slow-sink?ms=10` | as `/sink`, with a pause after each piece |
/// | `/duplex` | sends back the body's pieces as they arrive |
/// | `/sse?n=10&ms=5` | sends that many events and `[DONE]`, with pauses; `first=` is the pause before the first |
/// | `/stall?n=3` | sends that many events, then nothing for an hour |
/// | `/truncate` | promises 1,000 bytes, sends 100 and breaks the connection |
/// | `/trailers` | sends a body and the trailer `x-checksum` |
/// | anything else | answers with what it received, as JSON |
///
/// Every answer carries its name in `x-instance`.
#[derive(Debug)]
pub struct Http {
    state: Arc<State>,
    listener: Listener,
}

impl Http {
    pub async fn start(name: &str) -> Self {
        Self::start_at(name, SocketAddr::new(loopback().into(), 28000)).await
    }

    /// At a given address: for an application that comes back.
    pub async fn start_at(name: &str, address: SocketAddr) -> Self {
        let state = Arc::new(State::new(name));
        let for_connections = Arc::clone(&state);
        let listener = Listener::start_at(address, move |stream| {
            let state = Arc::clone(&for_connections);
            async move {
                let service = service_fn(move |request: http::Request<Incoming>| {
                    let state = Arc::clone(&state);
                    async move { behaviour::answer(state, request).await }
                });
                let mut builder = auto::Builder::new(TokioExecutor::new());
                builder.http2().max_concurrent_streams(1000);
                // Broken connections are what some tests are about.
                let _ = builder
                    .serve_connection_with_upgrades(TokioIo::new(stream), service)
                    .await;
            }
        })
        .await;
        Self { state, listener }
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Requests that it saw.
    pub fn requests(&self) -> u64 {
        load(&self.state.requests)
    }

    /// Requests whose response is not at its end.
    pub fn in_flight(&self) -> u64 {
        load(&self.state.in_flight)
    }

    /// Bytes of bodies that it handed to its HTTP library.
    pub fn bytes_sent(&self) -> u64 {
        load(&self.state.bytes_sent)
    }

    /// Bytes of bodies that it read.
    pub fn bytes_received(&self) -> u64 {
        load(&self.state.bytes_received)
    }

    /// How many connections it accepted.
    pub fn connections(&self) -> usize {
        self.listener.accepted()
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// What a handler returns where it breaks the connection.
#[derive(Debug)]
pub(super) struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("broken on purpose")
    }
}

impl std::error::Error for Broken {}
