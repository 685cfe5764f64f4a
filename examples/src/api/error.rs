//! Errors in the shape of the OpenAI API.

use http::{HeaderValue, Method, StatusCode, header};
use serde_json::json;

use super::{Reply, json_reply};
use crate::engine::Rejected;

/// An error that the client is told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<&'static str>,
    message: String,
    retry_after: Option<u64>,
    allow: Option<&'static str>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: String) -> Self {
        Self {
            status,
            kind,
            code: None,
            param: None,
            message,
            retry_after: None,
            allow: None,
        }
    }

    /// 400: `param` is not what it may be.
    pub fn invalid(param: &'static str, message: impl Into<String>) -> Self {
        let error = Self::new(
            StatusCode::BAD_REQUEST,
            "invalid_request_error",
            message.into(),
        );
        Self {
            param: Some(param),
            ..error
        }
    }

    /// 400: the body is no JSON, or not of the right shape.
    pub fn malformed(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "invalid_request_error",
            message.into(),
        )
    }

    /// 404: no such model.
    pub fn unknown_model(asked: &str, served: &[String]) -> Self {
        let message = format!(
            "The model `{asked}` does not exist; this server has `{}`.",
            served.join("`, `")
        );
        let error = Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message);
        Self {
            code: Some("model_not_found"),
            param: Some("model"),
            ..error
        }
    }

    /// 404: no such path.
    pub fn unknown_path(path: &str) -> Self {
        let message = format!("There is nothing at {path}.");
        Self {
            code: Some("unknown_url"),
            ..Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message)
        }
    }

    /// 405: another method is wanted.
    pub fn wrong_method(method: &Method, allow: &'static str) -> Self {
        let message = format!("The method is {method}; allowed: {allow}.");
        let error = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "invalid_request_error",
            message,
        );
        Self {
            allow: Some(allow),
            ..error
        }
    }

    /// 413: the body is larger than `limit` bytes.
    pub fn body_too_large(limit: usize) -> Self {
        let message = format!("The body is larger than {limit} bytes.");
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "invalid_request_error",
            message,
        )
    }

    /// 429: try again after so many seconds.
    pub fn too_many(message: String, retry_after: u64) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
        Self {
            code: Some("rate_limit_exceeded"),
            retry_after: Some(retry_after),
            ..error
        }
    }

    /// 503: try again after so many seconds.
    pub fn unavailable(message: impl Into<String>, retry_after: u64) -> Self {
        let error = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "server_error",
            message.into(),
        );
        Self {
            retry_after: Some(retry_after),
            ..error
        }
    }

    /// 500: a bug, or an error on demand in an answer that had not begun.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "server_error",
            message.into(),
        )
    }

    /// The error object alone, as streams send it.
    pub fn body(&self) -> serde_json::Value {
        json!({"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}})
    }

    /// The response.
    pub fn reply(&self) -> Reply {
        let mut reply = json_reply(self.status, &self.body());
        if let Some(seconds) = self.retry_after {
            reply
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = self.allow {
            reply
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        reply
    }
}

impl From<Rejected> for ApiError {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            // A second is about what a place in the queue takes to come free.
            Rejected::QueueFull { .. } => {
                Self::too_many(format!("The server is full: {rejected}."), 1)
            }
            Rejected::TooLong { .. } => {
                let error = Self::malformed(format!("This is too long: {rejected}."));
                Self {
                    code: Some("context_length_exceeded"),
                    ..error
                }
            }
        }
    }
}
