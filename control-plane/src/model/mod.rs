//! What users write: the resources `Mesh`, `Service`, `Route` and `RateLimit`, and `Workload`, which the control plane writes itself.
//!
//! The types are pure data and keep what was written: a field that was left out stays `None`, and a method of the same
//! name gives the value in effect.

mod balancing;
mod connection_pool;
mod continuation;
mod decode;
mod duration;
mod duration_parse;
mod egress;
mod fallback;
mod field_path;
mod filters;
mod health;
mod hedge;
mod inference;
mod key;
mod limits;
mod mesh;
mod meta;
pub mod parse;
mod problem;
mod rate_limit;
pub mod relate;
mod resource;
mod retry;
mod route;
mod schema;
mod service;
mod session;
#[cfg(test)]
pub(crate) mod testing;
mod timeouts;
mod workload;

pub use balancing::{
    HashCookie, HashInput, LoadBalancing, LoadBalancingPolicy, Maglev, RingHash, SlowStart,
    ZoneMode, ZonePreference,
};
pub use connection_pool::{ConnectionPool, Http1Pool, Http2Pool, KeepAlive};
pub use continuation::{Continuation, ContinuationMode};
pub use decode::{decode, validate};
pub use duration::Duration;
pub use duration_parse::DurationError;
pub use egress::{DnsEndpoint, MeshOutbound, ServiceTls, TlsMode, UnknownHosts};
pub use fallback::{Fallback, FallbackCause, FallbackRef, FallbackResponse};
pub use filters::{
    Cors, DirectResponse, FaultAbort, FaultDelay, FaultInjection, FaultTruncate, FilterType,
    Fraction, Header, HeaderModifier, MirrorBackend, PathModifier, PathModifierType, RequestMirror,
    RequestRedirect, RouteFilter, UrlRewrite,
};
pub use health::{
    GrpcCheck, HealthCheck, HttpCheck, OutlierDetection, SuccessRate, TcpCheck, Thousandths,
};
pub use hedge::Hedge;
pub use inference::{
    CacheSalt, Engine, EngineKind, Inference, Isolation, Model, OutOfBandLoad, TokenStreams,
    UnknownModels, Unsalted,
};
pub use key::{Kind, ResourceKey, UnknownKind};
pub use limits::{
    AdaptiveAlgorithm, AdaptiveLimit, BatchLimit, CallerPriority, EndpointLimits, LearnBatch,
    Limits, Priorities, Priority, Queue, Throttling,
};
pub use mesh::{AccessLog, MeshSpec, Mtls, MtlsMode, Telemetry, Tracing};
pub use meta::{Labels, ObjectMeta};
pub use parse::{Document, Location, Parsed, SourceProblem, parse};
pub use problem::{IndexedProblem, Problem};
pub use rate_limit::{
    CountedTokens, KeyPart, RateLimit, RateLimitReport, RateLimitSpec, TargetRef, TokenScope,
};
pub use relate::validate_against;
pub use resource::{Resource, Spec};
pub use retry::{GrpcCode, Retry, RetryBudget};
pub use route::{
    BackendRef, GrpcMatch, HeaderMatch, ModelMatch, ModelMatchType, ParentRef, PathMatch,
    PathMatchType, QueryParamMatch, RouteMatch, RouteRule, RouteSpec, ValueMatchType,
};
pub use service::{Protocol, ServiceEndpoints, ServicePort, ServiceSpec, StaticEndpoint};
pub use session::{CookieConfig, LifetimeType, SessionPersistence, SessionType};
pub use timeouts::{MeshTimeouts, RequestTimeouts, ServiceTimeouts};
pub use workload::{EndpointState, WorkloadEndpoint, WorkloadSpec};

/// The only `apiVersion` there is.
pub const API_VERSION: &str = "outrigger.dev/v1alpha1";
/// Namespace of a resource that names none.
pub const DEFAULT_NAMESPACE: &str = "default";
/// Trust domain of a mesh that names none.
pub const DEFAULT_TRUST_DOMAIN: &str = "outrigger.local";
/// The one name that a `Mesh` may have.
pub const MESH_NAME: &str = "default";
