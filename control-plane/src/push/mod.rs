//! Streams to sidecars: what each wants, what it holds, what it is sent, and what it answers.
//!
//! [`service`] takes a stream in, [`stream`] is its task, [`holdings`] decides what is sent, [`codec`] writes it from the
//! bytes that all streams share, [`sidecars`] remembers for people how each sidecar is doing.

pub mod codec;
mod first;
mod hello;
mod holdings;
pub mod service;
pub mod sidecars;
mod status;
mod stream;

pub use first::first_delta;
pub use service::DataplaneServer;
pub use sidecars::Sidecars;
pub use status::Statuses;

use std::sync::Arc;

use tokio::sync::watch;

use crate::compile::Compiled;
use crate::discovery::Registry;
use crate::metrics::Metrics;

/// What all streams share.
#[derive(Clone, Debug)]
pub struct Context {
    pub state: watch::Receiver<Arc<Compiled>>,
    pub registry: Arc<Registry>,
    pub sidecars: Arc<Sidecars>,
    pub metrics: Arc<Metrics>,
    /// Turns true when the program ends.
    pub shutdown: watch::Receiver<bool>,
}
