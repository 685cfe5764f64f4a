/// The management API.
pub mod api;
/// Puts it together, starts and stops it.
pub mod app;
/// Budgets of tokens that sidecars share.
pub mod budget;
/// The certificate authority and join tokens.
pub mod ca;
/// A client of the management API.
pub mod client;
/// From resources to what sidecars are sent.
pub mod compile;
/// Settings.
pub mod config;
/// Endpoints that sidecars announce.
pub mod discovery;
/// The control plane's metrics.
pub mod metrics;
/// Resources: what users write.
pub mod model;
/// Streams to sidecars.
pub mod push;
/// Where resources are kept.
pub mod store;
/// TLS of the gRPC ports.
pub mod tls;
