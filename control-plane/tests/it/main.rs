//! The control plane in this process, spoken to over real sockets as sidecars and administrators do.

#![allow(clippy::unwrap_used)]

mod harness;
mod identity;
mod lease;
mod management;
mod scale;
mod sidecar;
mod stream;
mod tokens;
mod transport;
