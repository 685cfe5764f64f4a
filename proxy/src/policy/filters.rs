//! What a rule does to requests and responses besides sending them on, and the pure part of doing it.
//!
//! Names and meaning are the Gateway API's (`HTTPRouteFilter`) where it has the notion; direct responses and faults are ours.

mod cors;
mod headers;
mod path;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use rand::Rng;

use super::{Backend, HeaderMatch};
use crate::balance::below;
use crate::telemetry::metrics::{FilterMetrics, MirrorMetrics};

pub use cors::{AllowList, Cors, InvalidOrigin, Origin};
pub use headers::{HeaderModifier, is_modifiable};
pub use path::{InvalidPath, PathModifier};

/// The filters of a rule. A rule without any has none of this.
#[derive(Debug)]
pub struct Filters {
    /// In the order in which they are written. Never empty.
    pub steps: Vec<Filter>,
    /// What they did, by service and route.
    pub metrics: Arc<FilterMetrics>,
}

impl Filters {
    /// Where copies of requests go.
    pub fn mirrors(&self) -> impl Iterator<Item = &Backend> {
        self.steps.iter().filter_map(|step| match step {
            Filter::Mirror(mirror) => Some(&mirror.backend),
            _ => None,
        })
    }
}

/// One step.
#[derive(Clone, Debug)]
pub enum Filter {
    RequestHeaders(HeaderModifier),
    ResponseHeaders(HeaderModifier),
    Rewrite(UrlRewrite),
    Redirect(Redirect),
    Mirror(Arc<Mirror>),
    Cors(Cors),
    DirectResponse(DirectResponse),
    Fault(FaultInjection),
}

impl Filter {
    /// The Gateway API's word.
    pub const fn kind(&self) -> &'static str {
        match self {
            Filter::RequestHeaders(_) => "RequestHeaderModifier",
            Filter::ResponseHeaders(_) => "ResponseHeaderModifier",
            Filter::Rewrite(_) => "URLRewrite",
            Filter::Redirect(_) => "RequestRedirect",
            Filter::Mirror(_) => "RequestMirror",
            Filter::Cors(_) => "CORS",
            Filter::DirectResponse(_) => "DirectResponse",
            Filter::Fault(_) => "FaultInjection",
        }
    }
}

/// `None`: stays as it is.
#[derive(Clone, Debug, Default)]
pub struct UrlRewrite {
    /// Without a port.
    pub hostname: Option<http::uri::Authority>,
    pub path: Option<PathModifier>,
}

/// `None`: the request's own.
#[derive(Clone, Debug)]
pub struct Redirect {
    pub scheme: Option<Scheme>,
    /// A DNS name, or an address as it stands in a URI.
    pub hostname: Option<Box<str>>,
    pub port: Option<u16>,
    pub path: Option<PathModifier>,
    pub status: StatusCode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub const fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// RFC 9110, section 4.2.
    pub const fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

impl Redirect {
    /// The `Location` for a request: `host` without port, `port` of the service that it is for.
    ///
    /// Ports as the Gateway API has it (`HTTPRequestRedirectFilter.port`): the one that is set; else the scheme's, where the
    /// scheme is set; else the one that the request came for. A scheme's own port is not written.
    pub fn location(&self, host: &str, port: u16, path: &str, query: Option<&str>) -> String {
        // What applications send to their sidecar is plaintext.
        let scheme = self.scheme.unwrap_or(Scheme::Http);
        let port = self
            .port
            .unwrap_or_else(|| self.scheme.map_or(port, Scheme::default_port));
        let host = self.hostname.as_deref().unwrap_or(host);
        let mut location = format!("{}://{host}", scheme.as_str());
        if port != scheme.default_port() {
            location.push_str(&format!(":{port}"));
        }
        match self.path.as_ref().and_then(|modifier| modifier.apply(path)) {
            Some(path) => location.push_str(&path),
            // `*`, as in OPTIONS, is no part of a URI.
            None if !path.starts_with('/') => location.push('/'),
            None => location.push_str(path),
        }
        if let Some(query) = query {
            location.push('?');
            location.push_str(query);
        }
        location
    }
}

/// Where copies go, and how many.
#[derive(Debug)]
pub struct Mirror {
    pub backend: Backend,
    pub share: Share,
    /// How long a copy may take, from its start to the response's last byte.
    pub limit: Duration,
    /// Survives changes of configuration.
    pub metrics: Arc<MirrorMetrics>,
}

/// An answer without a backend: a filter's, or a fallback's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectResponse {
    pub status: StatusCode,
    /// `None`: it says nothing of its type.
    pub content_type: Option<HeaderValue>,
    /// Not sent where the status allows none.
    pub body: Bytes,
}

impl DirectResponse {
    pub(crate) fn response(&self) -> Response<Bytes> {
        // RFC 9110, sections 15.3.5, 15.3.6 and 15.4.5; the first and the last say no length either (section 8.6).
        let body = match self.status.as_u16() {
            204 | 205 | 304 => Bytes::new(),
            _ => self.body.clone(),
        };
        let length = body.len();
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(content_type) = &self.content_type {
            headers.insert(CONTENT_TYPE, content_type.clone());
        }
        if !matches!(self.status.as_u16(), 204 | 304) {
            headers.insert(CONTENT_LENGTH, length.into());
        }
        response
    }
}

/// Faults: each by chance, and only for requests that `headers` fit.
#[derive(Clone, Debug, Default)]
pub struct FaultInjection {
    /// All of them. Empty: any request.
    pub headers: Vec<HeaderMatch>,
    pub delay: Option<(Duration, Share)>,
    pub abort: Option<(Abort, Share)>,
    /// After so many bytes of the response's body.
    pub truncate: Option<(u64, Share)>,
}

impl FaultInjection {
    pub fn is_for(&self, headers: &HeaderMap) -> bool {
        self.headers.iter().all(|header| header.matches(headers))
    }
}

/// What an aborted request is answered with. The other protocol's status follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    Http(StatusCode),
    /// A code of gRPC other than OK.
    Grpc(u16),
}

impl Abort {
    /// For HTTP: google.rpc.Code says which status a code is
    /// (<https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto>).
    pub fn http_status(self) -> StatusCode {
        let number = match self {
            Abort::Http(status) => return status,
            Abort::Grpc(code) => match code {
                1 => 499,
                3 | 9 | 11 => 400,
                4 => 504,
                5 => 404,
                6 | 10 => 409,
                7 => 403,
                8 => 429,
                12 => 501,
                14 => 503,
                16 => 401,
                _ => 500,
            },
        };
        StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// For gRPC: what its clients make of an HTTP status
    /// (<https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>).
    pub fn grpc_code(self) -> u16 {
        match self {
            Abort::Grpc(code) => code,
            Abort::Http(status) => match status.as_u16() {
                400 => 13,
                401 => 16,
                403 => 7,
                404 => 12,
                429 | 502 | 503 | 504 => 14,
                _ => 2,
            },
        }
    }
}

/// A share of the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub numerator: u32,
    /// At least 1.
    pub denominator: u32,
}

impl Share {
    pub const ALL: Share = Share {
        numerator: 1,
        denominator: 1,
    };

    /// Whether a request belongs to it. By chance, unless it is all or none.
    pub fn takes(self, rng: &mut impl Rng) -> bool {
        self.numerator > 0
            && (self.numerator >= self.denominator
                || below(rng, u64::from(self.denominator)) < u64::from(self.numerator))
    }
}

#[cfg(test)]
mod tests;
