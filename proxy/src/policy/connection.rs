//! How connections are kept, how long they live, and how it is found out what they carry.

use std::time::Duration;

/// Upstream connections of one worker to one place. The defaults are the contract's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionPool {
    /// An HTTP/1.1 connection that was idle for so long is not used again. By default below the 5 s after which uvicorn (vLLM,
    /// SGLang) and Node close theirs: a connection that the server closes while a request is on its way is an error that
    /// nobody can repair if the request is not idempotent.
    pub http1_idle: Duration,
    /// Idle HTTP/1.1 connections that are kept to one place. More were needed once, at a peak.
    pub http1_max_idle: usize,
    /// Streams at a time on an HTTP/2 connection. `None`: as many as the peer allows.
    pub http2_streams: Option<usize>,
    /// HTTP/2 connections to one place, at least 1. When all are full, requests wait for a stream.
    pub http2_connections: usize,
    pub keep_alive: KeepAlive,
    /// A connection takes no new request after this time, less up to a tenth at random. `None`: never.
    pub max_age: Option<Duration>,
    /// Requests on a connection, after which it takes no more. `None`: any number.
    pub max_requests: Option<u64>,
    /// Connections that are open before they are needed, and stay open.
    pub pre_warm: usize,
}

/// Most connections of a worker to one place, where nothing else is said.
const HTTP2_CONNECTIONS: usize = 16;

impl Default for ConnectionPool {
    fn default() -> ConnectionPool {
        ConnectionPool {
            http1_idle: Duration::from_secs(4),
            http1_max_idle: 512,
            http2_streams: None,
            http2_connections: HTTP2_CONNECTIONS,
            keep_alive: KeepAlive::default(),
            max_age: None,
            max_requests: None,
            pre_warm: 0,
        }
    }
}

/// When a peer with open streams is asked for a sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// After so long without a byte from it. The default is below the 60 s after which load balancers on the way forget a
    /// connection, and with the answer's time below the 30 s after which most people give up.
    pub interval: Duration,
    /// For the answer. The peer's HTTP/2 answers, not its application.
    pub timeout: Duration,
}

impl Default for KeepAlive {
    fn default() -> KeepAlive {
        KeepAlive {
            interval: Duration::from_secs(20),
            timeout: Duration::from_secs(10),
        }
    }
}

/// How long connections of bytes live. `None`: for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpLimits {
    /// Without a byte in either direction.
    pub idle: Option<Duration>,
    /// Altogether.
    pub lifetime: Option<Duration>,
}

/// How the protocol of a port with `auto` is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detection {
    /// How long a connection's first bytes are waited for.
    pub timeout: Duration,
    /// The server speaks first: nothing is waited for.
    pub server_first: bool,
}

impl Default for Detection {
    fn default() -> Detection {
        Detection {
            timeout: Duration::from_secs(1),
            server_first: false,
        }
    }
}
