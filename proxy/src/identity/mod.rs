//! Who this sidecar is: its SPIFFE id, its key, its certificate and how they are renewed.

pub mod spiffe;

pub use spiffe::{InvalidSpiffeId, SpiffeId, SpiffePattern};
