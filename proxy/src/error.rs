//! Why a request failed, in one word, and what the client is told.
//!
//! One table: the same word stands in the `x-outrigger-reason` header, the access log and the `reason` label.

use http::StatusCode;

/// Why the proxy answered a request itself, or ended it early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// The host is unknown, or no rule matches.
    NoRoute,
    /// The service has no endpoint that takes requests.
    NoEndpoints,
    /// Every endpoint that was tried refused the connection.
    ConnectFailed,
    /// The connection was not established within `connect`.
    ConnectTimeout,
    /// The TLS handshake failed, or the peer's identity may not serve the service.
    UpstreamUntrusted,
    /// The connection broke before the response's head.
    UpstreamReset,
    /// The response's body ended early, after its head was passed on.
    UpstreamTruncated,
    /// The request clock ran out.
    RequestTimeout,
    /// The clock of the last allowed try ran out.
    PerTryTimeout,
    /// The response-headers clock ran out.
    ResponseHeadersTimeout,
    /// No byte moved for the stream-idle time, after the response's head.
    StreamIdleTimeout,
    /// The client went away first.
    ClientGone,
    /// The request is not valid HTTP, or ambiguous.
    BadRequest,
    /// The request's head is larger than allowed.
    HeadTooLarge,
    /// The request's head did not arrive in time.
    HeadTimeout,
    /// Inbound: the peer asks for a service that is not served here.
    UnknownService,
    /// The sidecar has no identity or no configuration yet.
    NotReady,
    /// The sidecar is shutting down.
    Draining,
    /// The request went through this sidecar before.
    LoopDetected,
    /// The upstream did not accept the upgrade as it should.
    UpgradeFailed,
    /// The method cannot be proxied.
    MethodNotSupported,
    /// Outbound: as many requests, connections or waiting requests of the service, or of each endpoint, as there may be.
    CircuitOpen,
    /// Inbound: the application has as much to do as it can, and the request could not wait.
    Overloaded,
    /// Outbound: the service refuses so much that this request was not sent.
    Throttled,
    /// Inbound: the caller has sent more than it may.
    RateLimited,
    /// A connection of bytes was open for as long as its service allows.
    ConnectionLifetime,
    /// What came first on a connection is not what it must be: no ClientHello with a name where TLS is passed on, opaque bytes
    /// where requests are limited, `https` where the next hop has no TLS.
    ProtocolMismatch,
    /// The response's body did not begin in time.
    FirstByteTimeout,
    /// The response went on for longer than it may, after its head.
    StreamLifetimeTimeout,
    /// Inbound: the caller does not wait any longer.
    DeadlineExceeded,
    /// A fault that a route injects: it answers instead of the service.
    FaultAbort,
    /// A fault that a route injects: the response was broken off.
    FaultTruncate,
    /// The DNS name of a server outside the mesh has no address that is known.
    DnsFailed,
    /// The part of a request's body that must be read before it is sent did not arrive in time.
    BodyTimeout,
    /// The service does not serve the model that the request names.
    UnknownModel,
    /// A stream's first token did not come in time.
    FirstTokenTimeout,
    /// A stream's next token did not come in time.
    TokenIdleTimeout,
    /// The model's server reported an error within a stream, or ended it without an answer.
    ModelError,
    /// The request cannot be kept apart from those of other callers in what the model's server caches.
    NotIsolated,
    /// Inbound: the caller's budget of tokens is spent.
    TokenBudget,
}

impl Reason {
    /// All reasons, in the order of their discriminants: `ALL[reason as usize] == reason`.
    pub const ALL: [Reason; 40] = [
        Reason::NoRoute,
        Reason::NoEndpoints,
        Reason::ConnectFailed,
        Reason::ConnectTimeout,
        Reason::UpstreamUntrusted,
        Reason::UpstreamReset,
        Reason::UpstreamTruncated,
        Reason::RequestTimeout,
        Reason::PerTryTimeout,
        Reason::ResponseHeadersTimeout,
        Reason::StreamIdleTimeout,
        Reason::ClientGone,
        Reason::BadRequest,
        Reason::HeadTooLarge,
        Reason::HeadTimeout,
        Reason::UnknownService,
        Reason::NotReady,
        Reason::Draining,
        Reason::LoopDetected,
        Reason::UpgradeFailed,
        Reason::MethodNotSupported,
        Reason::CircuitOpen,
        Reason::Overloaded,
        Reason::Throttled,
        Reason::RateLimited,
        Reason::ConnectionLifetime,
        Reason::ProtocolMismatch,
        Reason::FirstByteTimeout,
        Reason::StreamLifetimeTimeout,
        Reason::DeadlineExceeded,
        Reason::FaultAbort,
        Reason::FaultTruncate,
        Reason::DnsFailed,
        Reason::BodyTimeout,
        Reason::UnknownModel,
        Reason::FirstTokenTimeout,
        Reason::TokenIdleTimeout,
        Reason::ModelError,
        Reason::NotIsolated,
        Reason::TokenBudget,
    ];

    /// The word users see, kebab-case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::NoRoute => "no-route",
            Reason::NoEndpoints => "no-endpoints",
            Reason::ConnectFailed => "connect-failed",
            Reason::ConnectTimeout => "connect-timeout",
            Reason::UpstreamUntrusted => "upstream-untrusted",
            Reason::UpstreamReset => "upstream-reset",
            Reason::UpstreamTruncated => "upstream-truncated",
            Reason::RequestTimeout => "request-timeout",
            Reason::PerTryTimeout => "per-try-timeout",
            Reason::ResponseHeadersTimeout => "response-headers-timeout",
            Reason::StreamIdleTimeout => "stream-idle-timeout",
            Reason::ClientGone => "client-gone",
            Reason::BadRequest => "bad-request",
            Reason::HeadTooLarge => "head-too-large",
            Reason::HeadTimeout => "head-timeout",
            Reason::UnknownService => "unknown-service",
            Reason::NotReady => "not-ready",
            Reason::Draining => "draining",
            Reason::LoopDetected => "loop-detected",
            Reason::UpgradeFailed => "upgrade-failed",
            Reason::MethodNotSupported => "method-not-supported",
            Reason::CircuitOpen => "circuit-open",
            Reason::Overloaded => "overloaded",
            Reason::Throttled => "throttled",
            Reason::RateLimited => "rate-limited",
            Reason::ConnectionLifetime => "connection-lifetime",
            Reason::ProtocolMismatch => "protocol-mismatch",
            Reason::FirstByteTimeout => "first-byte-timeout",
            Reason::StreamLifetimeTimeout => "stream-lifetime-timeout",
            Reason::DeadlineExceeded => "deadline-exceeded",
            Reason::FaultAbort => "fault-abort",
            Reason::FaultTruncate => "fault-truncate",
            Reason::DnsFailed => "dns-failed",
            Reason::BodyTimeout => "body-timeout",
            Reason::UnknownModel => "unknown-model",
            Reason::FirstTokenTimeout => "first-token-timeout",
            Reason::TokenIdleTimeout => "token-idle-timeout",
            Reason::ModelError => "model-error",
            Reason::NotIsolated => "not-isolated",
            Reason::TokenBudget => "token-budget",
        }
    }

    /// The status a client gets where the response's head was not sent yet.
    pub const fn status(self) -> StatusCode {
        match self {
            Reason::NoRoute | Reason::UnknownService | Reason::UnknownModel => {
                StatusCode::NOT_FOUND
            }
            Reason::NoEndpoints
            | Reason::DnsFailed
            | Reason::ConnectFailed
            | Reason::UpstreamUntrusted
            | Reason::NotReady
            | Reason::Draining
            | Reason::CircuitOpen
            | Reason::Overloaded
            | Reason::Throttled
            | Reason::FaultAbort => StatusCode::SERVICE_UNAVAILABLE,
            Reason::RateLimited | Reason::TokenBudget => StatusCode::TOO_MANY_REQUESTS,
            Reason::ConnectTimeout
            | Reason::RequestTimeout
            | Reason::PerTryTimeout
            | Reason::ResponseHeadersTimeout
            | Reason::StreamIdleTimeout
            | Reason::ConnectionLifetime
            | Reason::FirstByteTimeout
            | Reason::StreamLifetimeTimeout
            | Reason::DeadlineExceeded
            | Reason::FirstTokenTimeout
            | Reason::TokenIdleTimeout => StatusCode::GATEWAY_TIMEOUT,
            Reason::UpstreamReset
            | Reason::UpstreamTruncated
            | Reason::UpgradeFailed
            | Reason::FaultTruncate
            | Reason::ModelError => StatusCode::BAD_GATEWAY,
            Reason::BadRequest | Reason::ProtocolMismatch | Reason::NotIsolated => {
                StatusCode::BAD_REQUEST
            }
            Reason::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Reason::HeadTimeout | Reason::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Reason::LoopDetected => StatusCode::LOOP_DETECTED,
            Reason::MethodNotSupported => StatusCode::NOT_IMPLEMENTED,
            // 499, as nginx logs it; nobody is left to read it.
            Reason::ClientGone => match StatusCode::from_u16(499) {
                Ok(status) => status,
                Err(_) => StatusCode::BAD_REQUEST,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Reason;

    #[test]
    fn table_is_in_the_order_of_the_discriminants() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{}", reason.as_str());
        }
    }
}
