//! Answers that the proxy makes itself. The one place where a [`Reason`] becomes something that a client reads.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

use super::headers;
use crate::error::Reason;
use crate::policy::Protocol;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// How a client wants to hear of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// One line of text.
    Plain,
    /// A trailers-only response with a `grpc-status`.
    Grpc,
    /// The JSON object of the OpenAI API.
    OpenAi,
    /// That of Anthropic's.
    Anthropic,
}

impl Style {
    /// By what the request looks like; `protocol` of the port that it is for, where that is known.
    pub(crate) fn of(headers: &HeaderMap, path: &str, protocol: Option<Protocol>) -> Style {
        if headers::is_grpc(headers) || protocol == Some(Protocol::Grpc) {
            Style::Grpc
        } else if path.starts_with("/v1/") {
            Style::OpenAi
        } else {
            Style::Plain
        }
    }
}

/// The answer to a request that failed: its head, and its body.
pub(crate) fn reply(reason: Reason, style: Style, detail: &str) -> Response<Bytes> {
    reply_with(reason, reason.status(), grpc_code(reason), style, detail)
}

/// As [`reply`], with other statuses than the reason's.
pub(crate) fn reply_with(
    reason: Reason,
    status: StatusCode,
    grpc_code: u16,
    style: Style,
    detail: &str,
) -> Response<Bytes> {
    let mut response = match style {
        Style::Plain => plain(reason, status, detail),
        Style::Grpc => grpc(reason, grpc_code, detail),
        Style::OpenAi => json(status, &openai(reason, status, detail)),
        Style::Anthropic => json(status, &anthropic(status, detail)),
    };
    let word = HeaderValue::from_static(reason.as_str());
    response.headers_mut().insert(headers::REASON, word);
    response
}

/// The answer to a request that would have had to wait for so long: when to come again, for programs.
pub(crate) fn busy(style: Style, detail: &str, wait: Duration) -> Response<Bytes> {
    let reason = Reason::Overloaded;
    let status = reason.status();
    let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    let with_wait = |mut body: serde_json::Value| {
        body["error"]["expected_wait_ms"] = millis.into();
        json(status, &body)
    };
    let mut response = match style {
        Style::Plain | Style::Grpc => reply(reason, style, detail),
        Style::OpenAi => with_wait(openai(reason, status, detail)),
        Style::Anthropic => with_wait(anthropic(status, detail)),
    };
    let head = response.headers_mut();
    head.insert(headers::REASON, HeaderValue::from_static(reason.as_str()));
    head.insert(headers::EXPECTED_WAIT, HeaderValue::from(millis));
    // Whole seconds are all there is (RFC 9110, section 10.2.3), and 0 would be at once.
    head.insert(RETRY_AFTER, HeaderValue::from(millis.div_ceil(1000).max(1)));
    response
}

fn plain(reason: Reason, status: StatusCode, detail: &str) -> Response<Bytes> {
    let body = format!("{}: {detail}\n", reason.as_str());
    with_body(status, "text/plain; charset=utf-8", body)
}

/// <https://platform.openai.com/docs/guides/error-codes>
fn openai(reason: Reason, status: StatusCode, detail: &str) -> serde_json::Value {
    let (kind, code) = match reason {
        // As OpenAI names a limit of tokens.
        Reason::TokenBudget => ("tokens", "token_budget_exceeded"),
        _ if status.is_client_error() => ("invalid_request_error", reason.as_str()),
        _ => ("server_error", reason.as_str()),
    };
    serde_json::json!({
        "error": {
            "message": detail,
            "type": kind,
            "param": null,
            "code": code,
        }
    })
}

/// <https://docs.anthropic.com/en/api/errors>
fn anthropic(status: StatusCode, detail: &str) -> serde_json::Value {
    let kind = match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        400..500 => "invalid_request_error",
        503 => "overloaded_error",
        504 => "timeout_error",
        _ => "api_error",
    };
    serde_json::json!({
        "type": "error",
        "error": { "type": kind, "message": detail },
    })
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response<Bytes> {
    with_body(status, "application/json", body.to_string())
}

fn with_body(status: StatusCode, content_type: &'static str, body: String) -> Response<Bytes> {
    let length = body.len();
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

/// Status 200, and all that is to be said in the head
/// (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>, "Trailers-Only").
fn grpc(reason: Reason, code: u16, detail: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, HeaderValue::from(code));
    let message = format!("{}: {detail}", reason.as_str());
    if let Ok(message) = HeaderValue::from_str(&percent_encode(&message)) {
        headers.insert(GRPC_MESSAGE, message);
    }
    response
}

/// As gRPC's clients map HTTP statuses (<https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>), except
/// that a deadline is one.
fn grpc_code(reason: Reason) -> u16 {
    const INTERNAL: u16 = 13;
    const DEADLINE_EXCEEDED: u16 = 4;
    const RESOURCE_EXHAUSTED: u16 = 8;
    const UNIMPLEMENTED: u16 = 12;
    const UNAVAILABLE: u16 = 14;
    const CANCELLED: u16 = 1;
    match reason {
        Reason::NoRoute
        | Reason::UnknownService
        | Reason::MethodNotSupported
        | Reason::UnknownModel => UNIMPLEMENTED,
        Reason::NoEndpoints
        | Reason::DnsFailed
        | Reason::ConnectFailed
        | Reason::UpstreamUntrusted
        | Reason::UpstreamReset
        | Reason::UpstreamTruncated
        | Reason::UpgradeFailed
        | Reason::NotReady
        | Reason::Draining
        | Reason::CircuitOpen
        | Reason::Overloaded
        | Reason::Throttled
        | Reason::FaultAbort
        | Reason::FaultTruncate
        | Reason::ModelError => UNAVAILABLE,
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
        | Reason::TokenIdleTimeout => DEADLINE_EXCEEDED,
        Reason::ClientGone => CANCELLED,
        Reason::HeadTooLarge | Reason::RateLimited | Reason::TokenBudget => RESOURCE_EXHAUSTED,
        Reason::BadRequest
        | Reason::HeadTimeout
        | Reason::BodyTimeout
        | Reason::LoopDetected
        | Reason::ProtocolMismatch
        | Reason::NotIsolated => INTERNAL,
    }
}

/// `grpc-message` is percent-encoded: everything but visible ASCII without `%`.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Style, reply};
    use crate::error::Reason;
    use crate::policy::Protocol;
    use http::{HeaderMap, HeaderValue};

    #[test]
    fn plain_is_one_line() {
        let response = reply(Reason::NoRoute, Style::Plain, "no service answers to \"x\"");
        assert_eq!(response.status(), 404);
        assert_eq!(response.headers()["x-outrigger-reason"], "no-route");
        assert_eq!(response.body(), "no-route: no service answers to \"x\"\n");
        assert_eq!(
            response.headers()["content-length"],
            response.body().len().to_string().as_str()
        );
    }

    #[test]
    fn grpc_is_trailers_only() {
        let response = reply(Reason::RequestTimeout, Style::Grpc, "späť 100%");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "4");
        assert_eq!(
            response.headers()["grpc-message"],
            "request-timeout: sp%C3%A4%C5%A5 100%25"
        );
        assert!(response.body().is_empty());
        for reason in Reason::ALL {
            let response = reply(reason, Style::Grpc, "x");
            assert_ne!(response.headers()["grpc-status"], "0");
            let by_status = match reason.status().as_u16() {
                502 | 503 => "14",
                504 => "4",
                _ => continue,
            };
            assert_eq!(response.headers()["grpc-status"], by_status, "{reason:?}");
        }
    }

    #[test]
    fn openai_is_an_error_object() {
        let response = reply(Reason::NoEndpoints, Style::OpenAi, "none \"left\"");
        assert_eq!(response.status(), 503);
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(body["error"]["code"], "no-endpoints");
        assert_eq!(body["error"]["type"], "server_error");
        assert_eq!(body["error"]["message"], "none \"left\"");

        let response = reply(Reason::TokenBudget, Style::OpenAi, "spent");
        assert_eq!(response.status(), 429);
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(body["error"]["type"], "tokens");
        assert_eq!(body["error"]["code"], "token_budget_exceeded");
    }

    #[test]
    fn anthropic_is_an_error_object() {
        let response = reply(Reason::NoEndpoints, Style::Anthropic, "none");
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        let expected = serde_json::json!({
            "type": "error", "error": { "type": "overloaded_error", "message": "none" }
        });
        assert_eq!((response.status().as_u16(), body), (503, expected));
    }

    #[test]
    fn style_follows_the_request() {
        let none = HeaderMap::new();
        let mut grpc = HeaderMap::new();
        grpc.insert("content-type", HeaderValue::from_static("application/grpc"));
        assert_eq!(Style::of(&none, "/", None), Style::Plain);
        assert_eq!(Style::of(&none, "/v1/models", None), Style::OpenAi);
        assert_eq!(Style::of(&grpc, "/v1/models", None), Style::Grpc);
        assert_eq!(Style::of(&none, "/", Some(Protocol::Grpc)), Style::Grpc);
        assert_eq!(Style::of(&none, "/", Some(Protocol::Http2)), Style::Plain);
    }
}
