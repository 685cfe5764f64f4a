//! Which endpoint a request goes to.
//!
//! Two candidates are drawn by weight and the better one taken (P2C; Mitzenmacher, "The Power of Two Choices in Randomized
//! Load Balancing", 2001), or the policy is round robin, random, or consistent hashing by a key of the request. All state is
//! atomics: threads share it without a lock.

pub(crate) mod clock;
mod draw;
mod endpoint;
mod group;
pub(crate) mod hash;
mod load;
mod model;
mod report;
mod schedule;
mod set;
mod settings;
#[doc(hidden)]
pub mod simulation;
mod stats;
mod table;
mod view;

pub use endpoint::{Endpoint, EndpointKey, InFlight};
pub(crate) use load::Connecting;
pub use load::{DEFAULT_DECAY, FAILURE_PENALTY, INITIAL_LATENCY, Load, MAX_PENALTY};
pub use model::prompt::{Mark, Prompt, PromptReader};
pub use model::work::{LoadReport, REPORT_LIFETIME, WorkStats};
pub use model::{Asked, Picked};
pub use set::EndpointSet;
pub use settings::{
    DEFAULT_MAGLEV_SIZE, DEFAULT_PANIC_PERCENT, DEFAULT_RING_SIZE, MAX_RING_SIZE, Policy, Settings,
    SlowStart, ZonePreference,
};
pub use stats::{EndpointState, EndpointStats};

pub(crate) use draw::below;

#[cfg(test)]
mod tests;
