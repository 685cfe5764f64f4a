//! Choosing among replicas of a model, where a request is minutes of work or next to none, by the length of its prompt and by what
//! of it is in a replica's KV cache.
//!
//! * [`work`]: how much an endpoint has to do, from this sidecar's exact counts and from what the endpoint reports.
//! * [`popularity`]: which prefixes come again, and how often: the one memory of prompts, of fixed size.
//! * [`affinity`]: which endpoint a prompt belongs to, and whether it is too busy for it.

pub(super) mod affinity;
pub(super) mod popularity;
pub(super) mod prompt;
pub(super) mod work;

use std::sync::Arc;

use super::endpoint::Endpoint;
use prompt::Prompt;

/// What a choice may know of its request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// The hash of what the request is to be told by: for policies that hash, and for prefix affinity in place of the prompt's own
    /// prefixes (a session).
    pub key: Option<u64>,
    /// `None`: not a request to a model, or one that was not understood.
    pub prompt: Option<&'a Prompt>,
}

/// A choice.
#[derive(Clone, Debug)]
pub struct Picked {
    pub endpoint: Arc<Endpoint>,
    /// Estimated tokens of the prompt that the endpoint will have to read.
    pub uncached: u32,
}
