//! What answers where a backend fails.

use serde::{Deserialize, Serialize};

use super::meta::is_default;
use super::{BackendRef, Labels};

/// One way out. Tried only while nothing of a response has reached the caller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fallback {
    /// For which failures. Default: those in which the backend has not processed the request
    /// ([`FallbackCause::UNPROCESSED`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<Vec<FallbackCause>>,
    /// Another service, or another subset of the same one. Its own routes do not apply. Either this, `model` or both, or
    /// `direct_response`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_ref: Option<FallbackRef>,
    /// The model that is asked for there, as requests would name it. Without `backend_ref`: of the backend that the rule sends
    /// its requests to. Unset: the one that the request names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// A response that the sidecar gives itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct_response: Option<FallbackResponse>,
}

impl Fallback {
    /// The value in effect.
    pub fn on(&self) -> Vec<FallbackCause> {
        self.on
            .clone()
            .unwrap_or_else(|| FallbackCause::UNPROCESSED.to_vec())
    }
}

/// Where a fallback leads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FallbackRef {
    /// Name of the service.
    pub name: String,
    /// Unset: the route's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Unset: the service's [default port](super::ServiceSpec::default_port).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Only endpoints that carry all of these labels. Empty: all.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub subset: Labels,
}

impl FallbackRef {
    /// As a backend that takes all requests.
    pub fn as_backend(&self) -> BackendRef {
        BackendRef {
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            port: self.port,
            weight: None,
            subset: self.subset.clone(),
        }
    }
}

/// A response of the sidecar's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FallbackResponse {
    /// 200 to 599.
    pub status_code: u16,
    /// Default `text/plain; charset=utf-8`, where there is a body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Default none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub body: String,
}

/// What can go wrong before a response begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FallbackCause {
    /// No endpoint takes requests.
    NoEndpoints,
    /// A circuit breaker is open, or a limit of connections or requests is reached.
    CircuitOpen,
    /// Requests are shed: by the caller's sidecar, or by the backend with 429 or 503.
    Overload,
    /// The backend's sidecar refuses because the caller has used up its rate of requests, or its tokens.
    Budget,
    /// No connection, or no trusted one, to any endpoint that was tried.
    ConnectFailed,
    /// A connection broke before the response began.
    Reset,
    /// `backendRequest`, `responseHeaders`, `firstByte` or `firstTokenTimeout` ran out.
    FirstByteTimeout,
    /// A model's stream had an error in the place of its first token, or ended before it.
    ModelError,
    /// A response with a status 5xx.
    ServerError,
}

impl FallbackCause {
    /// Those in which the backend has not processed the request, or says that it will not.
    pub const UNPROCESSED: [FallbackCause; 5] = [
        FallbackCause::NoEndpoints,
        FallbackCause::CircuitOpen,
        FallbackCause::Overload,
        FallbackCause::Budget,
        FallbackCause::ConnectFailed,
    ];
}
