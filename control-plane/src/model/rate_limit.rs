//! `RateLimit`: how many requests a service takes, and from whom.

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
    /// Requests are counted apart where any of these differs: `identity`, `namespace`, `path`, `method`, `header:<name>`.
    /// Empty: all together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<String>,
    /// At each endpoint.
    pub requests: u32,
    /// The time for `requests`.
    pub per: Duration,
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
        self.burst.unwrap_or(self.requests)
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
}

impl<'a> KeyPart<'a> {
    /// From the text in a resource.
    pub fn parse(text: &'a str) -> Option<Self> {
        match text {
            "identity" => Some(Self::Identity),
            "namespace" => Some(Self::Namespace),
            "path" => Some(Self::Path),
            "method" => Some(Self::Method),
            _ => text.strip_prefix("header:").map(Self::Header),
        }
    }
}
