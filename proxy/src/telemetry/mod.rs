//! What the sidecar tells about itself. The data path adds to atomics and hands entries to a bounded queue; it never waits.

pub mod access_log;
pub mod logging;
pub mod metrics;
pub mod report;
#[cfg(test)]
pub(crate) mod testing;
pub mod trace;

use std::time::Duration;

use http::StatusCode;

use crate::error::Reason;

/// Which way a request went through the sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// From a peer to the application.
    Inbound,
    /// From the application to a peer.
    Outbound,
}

impl Direction {
    pub const ALL: [Direction; 2] = [Direction::Inbound, Direction::Outbound];

    pub const fn as_str(self) -> &'static str {
        match self {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        }
    }
}

/// How a request (or a TCP connection) ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What the client got. `None`: nothing, or there is no such thing (TCP).
    pub status: Option<StatusCode>,
    /// Set where the proxy answered itself or ended the response early.
    pub reason: Option<Reason>,
    /// From the request's head to the response's last byte.
    pub duration: Duration,
    /// From the request's head to the response's first byte.
    pub first_byte: Option<Duration>,
    /// Bytes of the request's body; for TCP, from the client.
    pub request_bytes: u64,
    /// Bytes of the response's body; for TCP, to the client.
    pub response_bytes: u64,
}

impl Outcome {
    /// A 5xx status, or an error made by the proxy. That the client went away is not the callee's failure.
    pub fn is_failure(&self) -> bool {
        self.status.is_some_and(|status| status.is_server_error())
            || self
                .reason
                .is_some_and(|reason| reason != Reason::ClientGone)
    }
}
