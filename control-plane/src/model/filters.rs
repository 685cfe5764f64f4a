//! Filters of a route's rules: what is done to requests and responses besides sending them on.
//!
//! Names and meaning are the Gateway API's (`HTTPRouteFilter`); `DirectResponse` and `FaultInjection` are ours.

use serde::{Deserialize, Serialize};

use super::{BackendRef, Duration, GrpcCode, HeaderMatch, Labels};

/// One step. The field that `type` names is set, and no other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteFilter {
    /// `type`.
    #[serde(rename = "type")]
    pub filter_type: FilterType,
    /// Of `RequestHeaderModifier`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_header_modifier: Option<HeaderModifier>,
    /// Of `ResponseHeaderModifier`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_header_modifier: Option<HeaderModifier>,
    /// Of `URLRewrite`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_rewrite: Option<UrlRewrite>,
    /// Of `RequestRedirect`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_redirect: Option<RequestRedirect>,
    /// Of `RequestMirror`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_mirror: Option<RequestMirror>,
    /// Of `CORS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
    /// Of `DirectResponse`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct_response: Option<DirectResponse>,
    /// Of `FaultInjection`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault_injection: Option<FaultInjection>,
}

impl RouteFilter {
    /// A step with nothing set yet.
    pub fn new(filter_type: FilterType) -> Self {
        Self {
            filter_type,
            request_header_modifier: None,
            response_header_modifier: None,
            url_rewrite: None,
            request_redirect: None,
            request_mirror: None,
            cors: None,
            direct_response: None,
            fault_injection: None,
        }
    }
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FilterType {
    /// Sets, adds and removes headers of requests.
    RequestHeaderModifier,
    /// Sets, adds and removes headers of responses.
    ResponseHeaderModifier,
    /// Changes host and path on the way to the backend.
    #[serde(rename = "URLRewrite")]
    UrlRewrite,
    /// Sends the client elsewhere.
    RequestRedirect,
    /// Sends copies to another backend.
    RequestMirror,
    /// Lets pages of other origins call.
    #[serde(rename = "CORS")]
    Cors,
    /// Answers instead of a backend.
    DirectResponse,
    /// Delays, aborts and truncates on purpose.
    FaultInjection,
}

/// Changes of headers: removed, then set, then added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderModifier {
    /// In place of all values there are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<Header>,
    /// In addition to what there is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<Header>,
    /// Names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

/// A header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Header {
    /// In any case.
    pub name: String,
    /// One line.
    pub value: String,
}

/// A new host and path for the backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UrlRewrite {
    /// Unset: unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Unset: unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathModifier>,
}

/// A new path. The query stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathModifier {
    /// `type`: which of the two.
    #[serde(rename = "type")]
    pub modifier_type: PathModifierType,
    /// The whole path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace_full_path: Option<String>,
    /// In place of the prefix that the rule matches; may be empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace_prefix_match: Option<String>,
}

/// How a path is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are those of the fields")]
pub enum PathModifierType {
    ReplaceFullPath,
    ReplacePrefixMatch,
}

/// Where clients are sent. What is unset stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestRedirect {
    /// `http` or `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// Without a port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Unset: the scheme's where that is set, else the one that the request is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathModifier>,
    /// Default 302.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
}

impl RequestRedirect {
    /// The value in effect.
    pub fn status_code(&self) -> u16 {
        self.status_code.unwrap_or(302)
    }
}

/// Where copies of requests are sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestMirror {
    /// The backend.
    pub backend_ref: MirrorBackend,
    /// Of the requests. Unset, and no fraction either: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u32>,
    /// As `percent`, finer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction: Option<Fraction>,
}

impl RequestMirror {
    /// The value in effect.
    pub fn share(&self) -> Fraction {
        match (self.fraction, self.percent) {
            (Some(fraction), _) => fraction,
            (None, percent) => percent_of(percent),
        }
    }
}

/// A service that gets copies. As a rule's backend, without weight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MirrorBackend {
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

impl MirrorBackend {
    /// As a backend that gets none of the requests themselves.
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

/// A share of the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fraction {
    /// At most the denominator.
    pub numerator: u32,
    /// Default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denominator: Option<u32>,
}

impl Fraction {
    /// The value in effect.
    pub fn denominator(self) -> u32 {
        self.denominator.unwrap_or(100)
    }
}

/// Unset: all.
fn percent_of(percent: Option<u32>) -> Fraction {
    Fraction {
        numerator: percent.unwrap_or(100),
        denominator: None,
    }
}

/// Which pages may call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cors {
    /// `*`, `https://chat.example`, or with a `*.` before the host.
    pub allow_origins: Vec<String>,
    /// Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_credentials: Option<bool>,
    /// `*`: any. Empty: GET, HEAD and POST, which browsers always allow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_methods: Vec<String>,
    /// `*`: any. Empty: those that browsers always allow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_headers: Vec<String>,
    /// Headers of responses that pages may read, besides those that they always may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expose_headers: Vec<String>,
    /// Seconds for which a browser may keep the answer to a preflight. Default 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<u32>,
}

/// An answer without a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DirectResponse {
    /// 200 to 599.
    pub status_code: u16,
    /// Default `text/plain; charset=utf-8` where there is a body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Text. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

/// Faults, each by chance: a delay, then an error or the end of the response.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultInjection {
    /// Only requests where all of these match. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderMatch>,
    /// Waits first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<FaultDelay>,
    /// Answers instead of a backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<FaultAbort>,
    /// Breaks the response off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncate: Option<FaultTruncate>,
}

/// A pause before the request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultDelay {
    /// How long.
    pub duration: Duration,
    /// Of the requests. Default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u32>,
}

/// An error: one of the two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultAbort {
    /// 200 to 599.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
    /// A gRPC status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<GrpcCode>,
    /// Of the requests. Default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u32>,
}

/// The end of a response before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultTruncate {
    /// Bytes of the body that are still sent.
    pub after_bytes: u64,
    /// Of the requests. Default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u32>,
}

impl FaultDelay {
    /// The value in effect.
    pub fn share(self) -> Fraction {
        percent_of(self.percent)
    }
}

impl FaultAbort {
    /// The value in effect.
    pub fn share(self) -> Fraction {
        percent_of(self.percent)
    }
}

impl FaultTruncate {
    /// The value in effect.
    pub fn share(self) -> Fraction {
        percent_of(self.percent)
    }
}
