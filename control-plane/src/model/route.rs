//! `Route`: rules for requests to services.

use serde::{Deserialize, Serialize};

use super::meta::is_default;
use super::{
    Continuation, Fallback, FallbackRef, Hedge, Labels, MirrorBackend, RequestTimeouts, Retry,
    RouteFilter, SessionPersistence,
};

/// Spec of a `Route`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteSpec {
    /// The services whose requests it is for. At least one.
    pub parent_refs: Vec<ParentRef>,
    /// Only requests to these hosts: exact, or `*.suffix`. Lower case. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    /// At least one.
    pub rules: Vec<RouteRule>,
}

/// A service that a route is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ParentRef {
    /// `Service`, if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Name of the service.
    pub name: String,
    /// Unset: the route's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Only requests to this port. Unset: all HTTP ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// What happens to some requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteRule {
    /// For people; unique in the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Which requests: any of these. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<RouteMatch>,
    /// What is done to them and to their responses, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<RouteFilter>,
    /// Where they go. Empty: to the parent service itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backend_refs: Vec<BackendRef>,
    /// Override the service's.
    #[serde(default, skip_serializing_if = "is_default")]
    pub timeouts: RequestTimeouts,
    /// Unset: the service's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Unset: each request is balanced for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<SessionPersistence>,
    /// Unset: a request waits for the endpoint that it was sent to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hedge: Option<Hedge>,
    /// What is tried where the backend fails, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallbacks: Vec<Fallback>,
    /// Unset: a token stream that breaks is broken for the caller too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continuation: Option<Continuation>,
    /// Responses say in `x-outrigger-attempts` how often the request was sent. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expose_attempts: Option<bool>,
}

impl RouteRule {
    /// The value in effect.
    pub fn expose_attempts(&self) -> bool {
        self.expose_attempts.unwrap_or(false)
    }

    /// Everywhere that its requests, or copies of them, may go: backends, and those of fallbacks and mirrors.
    pub fn destinations(&self) -> impl Iterator<Item = BackendRef> {
        let fallbacks = self.fallbacks.iter();
        let fallbacks = fallbacks.filter_map(|fallback| fallback.backend_ref.as_ref());
        self.backend_refs
            .iter()
            .cloned()
            .chain(fallbacks.map(FallbackRef::as_backend))
            .chain(self.mirrors().map(MirrorBackend::as_backend))
    }
}

impl RouteRule {
    /// Where copies go.
    fn mirrors(&self) -> impl Iterator<Item = &MirrorBackend> {
        let mirrors = self.filters.iter();
        mirrors.filter_map(|filter| Some(&filter.request_mirror.as_ref()?.backend_ref))
    }
}

/// All of the given conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteMatch {
    /// Unset: any path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    /// Upper case. Unset: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// All of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderMatch>,
    /// All of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub query_params: Vec<QueryParamMatch>,
    /// Only gRPC calls. Stands alone or with headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcMatch>,
    /// Only requests for this model. The service must have `inference`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelMatch>,
}

/// A condition on the model that a request names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModelMatch {
    /// `type`. Default Exact.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub match_type: Option<ModelMatchType>,
    /// As requests name it. Case matters.
    pub value: String,
}

impl ModelMatch {
    /// The value in effect.
    pub fn match_type(&self) -> ModelMatchType {
        self.match_type.unwrap_or_default()
    }
}

/// How the name of a model is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ModelMatchType {
    /// Byte for byte.
    #[default]
    Exact,
    /// A `*` stands for any characters, also none.
    Glob,
}

/// A condition on the path, without the query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathMatch {
    /// `type`. Default PathPrefix.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub match_type: Option<PathMatchType>,
    /// Default `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

impl PathMatch {
    /// The value in effect.
    pub fn match_type(&self) -> PathMatchType {
        self.match_type.unwrap_or_default()
    }

    /// The value in effect.
    pub fn value(&self) -> &str {
        self.value.as_deref().unwrap_or("/")
    }
}

/// How a path is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathMatchType {
    /// Byte for byte.
    Exact,
    /// By whole segments: `/v1` matches `/v1` and `/v1/models`, not `/v10`.
    #[default]
    PathPrefix,
    /// The whole path matches a regular expression.
    RegularExpression,
}

/// A condition on a query parameter. Of one that occurs several times the first value counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QueryParamMatch {
    /// `type`. Default Exact.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub match_type: Option<ValueMatchType>,
    /// Decoded. Case matters.
    pub name: String,
    /// Decoded: a text or a regular expression.
    pub value: String,
}

impl QueryParamMatch {
    /// The value in effect.
    pub fn match_type(&self) -> ValueMatchType {
        self.match_type.unwrap_or_default()
    }
}

/// A condition on a gRPC call. At least one of service and method.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcMatch {
    /// `type`, of both. Default Exact.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub match_type: Option<ValueMatchType>,
    /// With its package. Unset: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Unset: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
}

impl GrpcMatch {
    /// The value in effect.
    pub fn match_type(&self) -> ValueMatchType {
        self.match_type.unwrap_or_default()
    }
}

/// A condition on a header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderMatch {
    /// `type`. Default Exact.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub match_type: Option<ValueMatchType>,
    /// In any case.
    pub name: String,
    /// A text or a regular expression.
    pub value: String,
}

impl HeaderMatch {
    /// The value in effect.
    pub fn match_type(&self) -> ValueMatchType {
        self.match_type.unwrap_or_default()
    }
}

/// How the value of a header, a query parameter, or part of a gRPC call is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ValueMatchType {
    /// Byte for byte.
    #[default]
    Exact,
    /// The whole value matches a regular expression.
    RegularExpression,
}

/// A service that requests go to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendRef {
    /// Name of the service.
    pub name: String,
    /// Unset: the route's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Unset: the service's [default port](super::ServiceSpec::default_port).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Share of the requests relative to the rule's other backends. Default 1; 0: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Only endpoints that carry all of these labels. Empty: all.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub subset: Labels,
}

impl BackendRef {
    /// The value in effect.
    pub fn weight(&self) -> u32 {
        self.weight.unwrap_or(1)
    }
}
