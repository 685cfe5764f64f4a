//! What is known of a service's models, and what is done with requests for them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::matching::ModelMatch;
use crate::inference::Engine;

/// Of a service that has inference on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inference {
    /// Bytes of a request's body that are read to understand it; of a longer one path and headers are known.
    pub max_body_bytes: usize,
    /// In their order; the first that fits applies. Empty: whatever is asked for.
    pub models: Vec<Model>,
    /// Requests for models that are not listed are answered with 404. Else they are passed on as they are.
    pub refuse_unknown: bool,
    /// The caller's sidecar answers `GET /v1/models`.
    pub answer_model_list: bool,
    /// `gen_ai.provider.name`. Empty: left out.
    pub provider: Box<str>,
    pub streams: TokenStreams,
    /// `None`: callers share what the model server caches.
    pub isolation: Option<Isolation>,
    /// The model server's metrics are read. `None`: they are not.
    pub engine: Option<EngineSource>,
    /// Load reports stay in the responses that callers get.
    pub expose_load: bool,
    /// Endpoints are asked for their load when nothing was heard of it for so long. `None`: never.
    pub ask_load_after: Option<Duration>,
}

/// How callers are kept apart in what the model server caches of their prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isolation {
    pub by: IsolatedBy,
    /// Requests that cannot be given a salt are passed on without one. Else they are refused.
    pub pass_unsalted: bool,
}

/// Who shares a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IsolatedBy {
    /// Those with the same SPIFFE id.
    Identity,
    /// Those of the same namespace and trust domain.
    Namespace,
}

impl IsolatedBy {
    /// The word users see.
    pub const fn as_str(self) -> &'static str {
        match self {
            IsolatedBy::Identity => "identity",
            IsolatedBy::Namespace => "namespace",
        }
    }
}

/// Where the metrics of a model server are, and how often they are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineSource {
    /// `None`: found out.
    pub engine: Option<Engine>,
    /// `None`: where the server has them.
    pub path: Option<Box<str>>,
    /// On the application's address. `None`: where the server has them.
    pub port: Option<u16>,
    pub interval: Duration,
}

/// A model, and where it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// As requests name it.
    pub name: Box<str>,
    pub aliases: Vec<ModelMatch>,
    /// What the model server calls it. `None`: `name`.
    pub served_as: Option<Box<str>>,
    /// Only endpoints that carry all of these labels. Empty: all.
    pub subset: BTreeMap<String, String>,
}

/// What is done with streamed tokens, besides observing them. `None`: not done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenStreams {
    /// From when a try is sent to its first token.
    pub first_token: Option<Duration>,
    /// Between two tokens.
    pub token_idle: Option<Duration>,
    /// A comment is sent to the client where nothing came for so long.
    pub keep_alive: Option<Duration>,
    /// Streams are asked for their usage.
    pub request_usage: bool,
}

impl Model {
    /// What the model server calls it.
    pub fn server_name(&self) -> &str {
        self.served_as.as_deref().unwrap_or(&self.name)
    }
}

impl Inference {
    /// The place of the model that is meant among those listed: by its name first, then by the aliases in their order.
    pub fn find(&self, name: &str) -> Option<usize> {
        let named = self.models.iter().position(|model| *model.name == *name);
        named.or_else(|| {
            let fits = |alias: &ModelMatch| alias.matches(name);
            let exact = |alias: &ModelMatch| matches!(alias, ModelMatch::Exact(_)) && fits(alias);
            let by = |fits: &dyn Fn(&ModelMatch) -> bool| {
                let mut models = self.models.iter();
                models.position(|model| model.aliases.iter().any(fits))
            };
            by(&exact).or_else(|| by(&fits))
        })
    }
}

#[cfg(test)]
mod tests;
