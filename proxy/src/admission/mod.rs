//! Whether a request is let through: limits at the caller's side ([`Breaker`], [`Throttle`]), and beside the application
//! ([`RateLimits`], [`Gate`]).
//!
//! What is counted is shared by all workers and lives longer than a configuration: atomics, found again by name. A request for
//! a service without limits meets one `Option` that is `None`.

use crate::balance::Connecting;

mod batch;
mod breaker;
mod fair;
mod first_tokens;
mod gate;
mod gcra;
mod gradient2;
mod keys;
mod priority;
mod queue;
mod rate_limit;
mod refusals;
mod throttle;
pub mod tokens;

pub use batch::{Batch, BatchLimit, Source as BatchSource};
pub use breaker::{Breaker, Counted, Permit, Usage};
pub(crate) use gate::retry_after;
pub use gate::{Ask, Gate, Refused, Served, Settings};
pub use gcra::Rate;
pub use gradient2::Gradient2;
pub use keys::KeyTable;
pub use priority::{CallerPriority, Priorities, Priority};
pub use queue::QueueSettings;
pub use rate_limit::{
    Counts as RateLimitCounts, Decision, KeyPart, RateLimit, RateLimits, Report, Subject,
};
pub use refusals::{Limit, Refusals};
pub use throttle::{Asked, Throttle};
pub use tokens::TokenBudget;

/// What a connection holds until it is closed.
#[derive(Debug)]
pub(crate) struct ConnectionHeld {
    pub(crate) _service: Permit,
    pub(crate) _endpoint: Option<Connecting>,
}

/// What a request holds until the last byte of its response.
#[derive(Debug)]
pub enum Held {
    /// A place among the requests to a service.
    Request(Permit),
    /// A place at the application.
    Served(Served),
    /// It counts as being at the model server.
    AtModel(crate::inference::engine::AtModel),
}
