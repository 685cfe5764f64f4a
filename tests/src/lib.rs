//! The harness of the end-to-end tests: real processes on loopback, one mesh for each test.
//!
//! [`ControlPlane`] and [`Sidecar`] run the product's binaries, each on a loopback address of its own so that tests do not
//! collide, on the standard ports plus 10,000: a mesh that listens on all addresses of the machine does not disturb them. [`upstream`] has the applications that stand behind sidecars, [`client`] and
//! [`load`] what calls through them.
//!
//! As a harness of tests it panics with what went wrong instead of returning errors. All that waits is bounded in time,
//! all processes end with the values that own them, and a failing test prints the end of their logs.

mod address;
mod binaries;
pub mod client;
mod control_plane;
pub mod dns;
pub mod echo;
pub mod load;
mod metrics;
mod model_server;
pub mod otlp;
mod process;
pub mod python;
mod requirement;
mod sidecar;
pub mod tls;
pub mod upstream;
mod wait;

pub use address::loopback;
pub use binaries::binary;
pub use control_plane::ControlPlane;
pub use metrics::Metrics;
pub use model_server::ModelServer;
pub use process::Process;
pub use requirement::{find_program, skip};
pub use sidecar::{Sidecar, SidecarBuilder};
pub use wait::{eventually, within};
