//! What the control plane serves: management for administrators, identities and telemetry for sidecars. The stream to
//! sidecars is in [`crate::push`].

pub mod auth;
pub mod convert;
pub(crate) mod endpoint_health;
mod explain;
pub mod identity;
pub mod mesh;
pub mod metrics_http;
pub mod problems;
mod refs;
pub mod resources;
pub mod server;
pub mod telemetry;
pub mod tokens;
mod watch;
