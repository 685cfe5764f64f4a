//! How a service's connections are kept.

use serde::{Deserialize, Serialize};

use super::Duration;
use super::meta::is_default;

/// Upstream connections of one worker thread of a sidecar to one endpoint, or to the application.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConnectionPool {
    /// HTTP/1.1 connections.
    #[serde(default, skip_serializing_if = "is_default")]
    pub http1: Http1Pool,
    /// HTTP/2 connections; those between sidecars are.
    #[serde(default, skip_serializing_if = "is_default")]
    pub http2: Http2Pool,
    /// A connection takes no new request after this time, shortened at random by up to a tenth. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connection_age: Option<Duration>,
    /// Requests on a connection, after which it takes no more. Default: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_requests_per_connection: Option<u64>,
    /// Connections to each endpoint that are open before they are needed. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_warm: Option<u32>,
}

/// HTTP/1.1 connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Http1Pool {
    /// An idle connection is closed after this time. Must be below the server's own. Default [`Http1Pool::IDLE_TIMEOUT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Duration>,
    /// Idle connections that are kept. Default [`Http1Pool::MAX_IDLE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_idle: Option<u32>,
}

impl Http1Pool {
    /// Default `idle_timeout`: below the 5 s after which uvicorn (vLLM, SGLang) and Node close theirs.
    pub const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
    /// Default `max_idle`.
    pub const MAX_IDLE: u32 = 512;

    /// The value in effect.
    pub fn idle_timeout(self) -> Duration {
        self.idle_timeout.unwrap_or(Self::IDLE_TIMEOUT)
    }

    /// The value in effect.
    pub fn max_idle(self) -> u32 {
        self.max_idle.unwrap_or(Self::MAX_IDLE)
    }
}

/// HTTP/2 connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Http2Pool {
    /// Streams at a time on a connection. Default: what the peer allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent_streams: Option<u32>,
    /// Default [`Http2Pool::MAX_CONNECTIONS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// Finds out that a peer is gone without a word.
    #[serde(default, skip_serializing_if = "is_default")]
    pub keep_alive: KeepAlive,
}

impl Http2Pool {
    /// Default `max_connections`.
    pub const MAX_CONNECTIONS: u32 = 16;

    /// The value in effect.
    pub fn max_connections(self) -> u32 {
        self.max_connections.unwrap_or(Self::MAX_CONNECTIONS)
    }
}

/// Pings on connections with open streams on which nothing was heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeepAlive {
    /// Silence after which the peer is asked. Default [`KeepAlive::INTERVAL`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// For its answer. Default [`KeepAlive::TIMEOUT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
}

impl KeepAlive {
    /// Default `interval`.
    pub const INTERVAL: Duration = Duration::from_secs(20);
    /// Default `timeout`.
    pub const TIMEOUT: Duration = Duration::from_secs(10);

    /// The value in effect.
    pub fn interval(self) -> Duration {
        self.interval.unwrap_or(Self::INTERVAL)
    }

    /// The value in effect.
    pub fn timeout(self) -> Duration {
        self.timeout.unwrap_or(Self::TIMEOUT)
    }
}
