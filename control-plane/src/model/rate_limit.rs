//! `RateLimit`: how many requests or tokens a service takes, and from whom.

use serde::{Deserialize, Serialize};

use super::{Duration, RouteMatch};

/// Spec of a `RateLimit`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimitSpec {
    /// The services of the same namespace that it is for. At least one.
    pub target_refs: Vec<TargetRef>,
    /// All that match a request apply to it. At least one.
    pub limits: Vec<RateLimit>,
    /// When responses say how much is left. Default: when a request was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<RateLimitReport>,
}

/// A service that a policy is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetRef {
    /// `Service`, if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its name. It is in the policy's namespace.
    pub name: String,
}

/// When responses carry `RateLimit-*` headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RateLimitReport {
    /// On a 429.
    #[default]
    Refused,
    /// On every response.
    Always,
}

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimit {
    /// Unique in the policy; stands in metrics.
    pub name: String,
    /// Which requests: any of these. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<RouteMatch>,
    /// Requests are counted apart where any of these differs: `identity`, `namespace`, `path`, `method`, `header:<name>`, `model`,
    /// `tenant`. Empty: all together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<String>,
    /// At each endpoint. This or `tokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u32>,
    /// A budget of tokens for each window of `per`, for requests to models. This or `requests`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// The time for `requests`, or the length of a window of `tokens`. Windows begin at whole multiples of it, in UTC.
    pub per: Duration,
    /// Which tokens are counted. Default: both together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<CountedTokens>,
    /// Who shares the tokens. Default: all sidecars of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<TokenScope>,
    /// A stream is ended where the tokens are. Default: it goes on, and what it takes too much is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hard_limit: Option<bool>,
    /// Tokens of an answer that are reserved for a request that sets no maximum. Default 1024, at most a tenth of `tokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_max_tokens: Option<u32>,
    /// Tokens of a window that a sidecar may give away of a key before the control plane has answered for it. Default: a
    /// twentieth of `tokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advance: Option<u64>,
    /// Requests that may come at once. Default: `requests`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// Keys that are counted apart; further ones share what one has. Default 10000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_keys: Option<u32>,
}

impl RateLimit {
    /// The value in effect.
    pub fn burst(&self) -> u32 {
        self.burst.or(self.requests).unwrap_or_default()
    }

    /// The value in effect, for `tokens`.
    pub fn default_max_tokens(&self) -> u32 {
        let tenth = self.tokens.unwrap_or_default() / 10;
        let tenth = u32::try_from(tenth.max(1)).unwrap_or(u32::MAX);
        self.default_max_tokens.unwrap_or(tenth.min(1024))
    }

    /// The value in effect, for `tokens`. Nothing where each sidecar counts for itself: there is nobody to wait for.
    pub fn advance(&self) -> u64 {
        match self.scope.unwrap_or_default() {
            TokenScope::Sidecar => 0,
            TokenScope::Mesh => {
                let default = self.tokens.unwrap_or_default() / 20;
                self.advance.unwrap_or(default)
            }
        }
    }

    /// The value in effect.
    pub fn max_keys(&self) -> u32 {
        self.max_keys.unwrap_or(10_000)
    }

    /// What tells keys apart. What is no part of a key is left out; the schema lets nothing such through.
    pub fn key_parts(&self) -> impl Iterator<Item = KeyPart<'_>> {
        self.key.iter().filter_map(|text| KeyPart::parse(text))
    }
}

/// Which tokens a budget is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CountedTokens {
    /// Of the prompt.
    Input,
    /// Of the answer.
    Output,
    /// Of both.
    #[default]
    Total,
}

/// Who shares a budget of tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenScope {
    /// All sidecars of the service, by leases from the control plane.
    #[default]
    Mesh,
    /// Each sidecar has it for itself.
    Sidecar,
}

/// Part of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPart<'a> {
    /// The caller's SPIFFE id.
    Identity,
    /// The caller's namespace.
    Namespace,
    /// Without the query.
    Path,
    /// For example GET.
    Method,
    /// The value of a header.
    Header(&'a str),
    /// The model, as the service names it.
    Model,
    /// Who the request's body says it is for.
    Tenant,
}

impl<'a> KeyPart<'a> {
    /// From the text in a resource.
    pub fn parse(text: &'a str) -> Option<Self> {
        match text {
            "identity" => Some(Self::Identity),
            "namespace" => Some(Self::Namespace),
            "path" => Some(Self::Path),
            "method" => Some(Self::Method),
            "model" => Some(Self::Model),
            "tenant" => Some(Self::Tenant),
            _ => text.strip_prefix("header:").map(Self::Header),
        }
    }
}
