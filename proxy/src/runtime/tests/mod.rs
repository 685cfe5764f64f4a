//! The data path on real sockets: a caller's sidecar and a server's, with configurations made by hand.
#![allow(clippy::unwrap_used)]

mod client;
mod deadlines;
mod drain;
mod explain;
mod failures;
mod fallback_models;
mod fallbacks;
mod filters;
mod first_token;
mod goaways;
mod grpc_models;
mod health;
mod hedges;
mod http1;
mod http2;
mod inbound;
mod isolation;
mod limits;
pub(crate) mod mesh;
mod models;
mod moves;
mod outside;
mod places;
mod pool;
mod protocols;
mod retries;
mod sessions;
mod signals;
mod streams;
mod tcp;
mod timeouts;
mod traces;
mod upgrades;

pub(crate) use mesh::{idle_worker, retry};
