//! What sidecars know of models: which one a request is for and what it asks, and the tokens of the answer.
//!
//! [`understand`] reads a request once, where its service has inference on (`Service.spec.inference`), and leaves a
//! [`ModelRequest`] with it (`Arrived::model`): routing, balancing, limits and metrics go by that. The body is forwarded byte
//! for byte; only where a policy asks for another name of the model, for usage or for isolation, are a few bytes of it replaced
//! ([`edit`]).

pub mod account;
mod api;
pub(crate) mod continuation;
pub mod edit;
pub mod engine;
mod form;
mod grpc;
mod isolation;
mod json;
mod prefix;
mod probe;
mod prompt;
mod request;
mod rewrite;
pub mod stream;
mod understand;

pub use account::{Account, ModelOutcome, Served};
pub use api::Api;
pub use edit::NotReplaced;
pub use engine::Engine;
pub(crate) use isolation::isolate;
pub use prefix::Prefixes;
pub use request::{ModelRequest, Unread};
pub(crate) use rewrite::Edited;
pub(crate) use stream::ModelStream;
pub(crate) use understand::{Refusal, understand};

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use {
    continuation::fuzz as fuzz_continuation, probe::fuzz, stream::fuzz as fuzz_stream,
};
