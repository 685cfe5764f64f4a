//! Timeouts at the three levels where they can be set. A rule's wins over its service's, that over the mesh's, field by
//! field; below stand the built-in ones, where there are any.

use serde::{Deserialize, Serialize};

use super::Duration;

/// Timeouts of requests: what a route can set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestTimeouts {
    /// From the request's head to the response's last byte, all tries. Built in: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Duration>,
    /// From the request's head to the response's head, each try. Built in: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_request: Option<Duration>,
    /// From the request's head to the response's head, over all tries. Built in: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_headers: Option<Duration>,
    /// From the request's head to the first byte of the response's body, over all tries; the response's head is held back
    /// until then. Built in: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte: Option<Duration>,
    /// Between two chunks of a body. Built in: [`RequestTimeouts::STREAM_IDLE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_idle: Option<Duration>,
    /// From the response's head to its last byte. Built in: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_lifetime: Option<Duration>,
}

impl RequestTimeouts {
    /// Built-in `stream_idle`.
    pub const STREAM_IDLE: Duration = Duration::from_secs(300);

    /// What is not set here is taken from `other`.
    pub fn or(self, other: Self) -> Self {
        Self {
            request: self.request.or(other.request),
            backend_request: self.backend_request.or(other.backend_request),
            response_headers: self.response_headers.or(other.response_headers),
            first_byte: self.first_byte.or(other.first_byte),
            stream_idle: self.stream_idle.or(other.stream_idle),
            stream_lifetime: self.stream_lifetime.or(other.stream_lifetime),
        }
    }
}

/// What a service can set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceTimeouts {
    /// Opening a connection to an endpoint. Built in: [`ServiceTimeouts::CONNECT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<Duration>,
    /// As [`RequestTimeouts::request`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Duration>,
    /// As [`RequestTimeouts::backend_request`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_request: Option<Duration>,
    /// As [`RequestTimeouts::response_headers`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_headers: Option<Duration>,
    /// As [`RequestTimeouts::first_byte`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte: Option<Duration>,
    /// As [`RequestTimeouts::stream_idle`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_idle: Option<Duration>,
    /// As [`RequestTimeouts::stream_lifetime`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_lifetime: Option<Duration>,
    /// For TCP ports: a connection on which no byte moved for this long is closed. Built in: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_idle: Option<Duration>,
    /// For TCP ports: a connection is cut after this time, whatever goes on on it. Built in: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_lifetime: Option<Duration>,
}

impl ServiceTimeouts {
    /// Built-in `connect`.
    pub const CONNECT: Duration = Duration::from_secs(1);

    /// The part that routes can set too.
    pub fn for_requests(self) -> RequestTimeouts {
        RequestTimeouts {
            request: self.request,
            backend_request: self.backend_request,
            response_headers: self.response_headers,
            first_byte: self.first_byte,
            stream_idle: self.stream_idle,
            stream_lifetime: self.stream_lifetime,
        }
    }
}

/// What the mesh can set for all services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MeshTimeouts {
    /// As [`ServiceTimeouts::connect`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<Duration>,
    /// As [`RequestTimeouts::request`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Duration>,
    /// As [`RequestTimeouts::backend_request`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_request: Option<Duration>,
    /// As [`RequestTimeouts::response_headers`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_headers: Option<Duration>,
    /// As [`RequestTimeouts::first_byte`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte: Option<Duration>,
    /// As [`RequestTimeouts::stream_idle`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_idle: Option<Duration>,
    /// As [`RequestTimeouts::stream_lifetime`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_lifetime: Option<Duration>,
}

impl MeshTimeouts {
    /// The part that routes can set too.
    pub fn for_requests(self) -> RequestTimeouts {
        RequestTimeouts {
            request: self.request,
            backend_request: self.backend_request,
            response_headers: self.response_headers,
            first_byte: self.first_byte,
            stream_idle: self.stream_idle,
            stream_lifetime: self.stream_lifetime,
        }
    }
}
