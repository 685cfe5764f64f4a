//! Outrigger's data plane: the sidecar that stands beside a model container or a caller.
//!
//! The path of a request, top to bottom:
//!
//! ```text
//! application ─► listener ─► detect ─► outbound ─► policy (which rule) ─► balance (which endpoint)
//!                                                     └─► pool ─► tls ─► network ─┐
//! application ◄─ pool ◄─ inbound ◄─ tls ◄─ listener ◄────────────────────────────┘
//! ```
//!
//! Workers (`runtime`) run that path, each with its own listeners and pools. One more thread talks to the control plane
//! (`control`), renews the identity (`identity`), and serves metrics and the admin port (`telemetry`, `admin`). They meet in
//! [`shared::Shared`].

pub mod address;
pub mod admin;
pub mod admission;
pub mod app;
pub mod balance;
pub mod config;
pub mod control;
pub mod detect;
pub mod dns;
pub mod drain;
pub mod error;
pub mod explain;
pub mod files;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod http;
pub mod identity;
pub mod inbound;
pub mod inference;
pub mod listener;
pub mod memory;
pub mod outbound;
pub mod policy;
pub mod pool;
pub mod resilience;
pub mod runtime;
pub mod shared;
pub mod tcp;
pub mod telemetry;
pub mod tls;
