//! How much is let through.

use std::time::Duration;

use crate::admission::{BatchLimit, Priorities, QueueSettings};

/// What this sidecar may have under way to a service. `None`: no limit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallerLimits {
    pub connections: Option<u32>,
    /// Requests that wait for a connection.
    pub pending: Option<u32>,
    pub requests: Option<u32>,
    pub retries: Option<u32>,
    /// For each endpoint.
    pub endpoint_connections: Option<u32>,
    /// For each endpoint.
    pub endpoint_requests: Option<u32>,
    /// Client-side throttling: requests for each one accepted, and how long both are remembered.
    pub throttling: Option<(f64, Duration)>,
}

/// What the application of a port has at a time, and who waits.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerLimits {
    pub concurrency: Concurrency,
    /// `None`: nobody waits.
    pub queue: Option<QueueSettings>,
    /// `None`: all requests matter the same.
    pub priorities: Option<Priorities>,
}

/// Requests at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Concurrency {
    Fixed(u32),
    /// Between two bounds, by the latency ([`Gradient2`](crate::admission::Gradient2)).
    Adaptive {
        min: u32,
        max: u32,
        /// Latency over its average above which the limit falls.
        tolerance: f64,
    },
    /// By the batch of a model server.
    Batch(BatchLimit),
}
