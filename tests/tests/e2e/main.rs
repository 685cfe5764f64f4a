//! The product from outside: real processes, real sockets, one mesh for each test.
#![allow(clippy::unwrap_used)] // A test that cannot go on is to end.

mod bad_config;
mod balancing;
mod connections;
mod control_plane;
mod drain;
mod egress;
mod errors;
mod explain;
mod fallback_models;
mod filters;
mod grpc;
mod grpcio;
mod health;
mod hostile;
mod http;
mod identity;
mod isolation;
mod join;
mod limits;
mod mesh;
mod metastable;
mod models;
mod observability;
mod protocols;
mod reconfigure;
mod recovery;
mod retries;
mod rotation;
mod routing;
mod store;
mod streams;
mod tcp;
mod timeouts;
mod tracing;
mod websocket;
