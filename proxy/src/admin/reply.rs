//! Answers.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;

pub(super) type Reply = Response<Full<Bytes>>;

/// Plain text; a line's end is added where it is missing.
pub(super) fn text(status: StatusCode, body: impl Into<String>) -> Reply {
    let mut body = body.into();
    if !body.ends_with('\n') {
        body.push('\n');
    }
    with_type(status, "text/plain; charset=utf-8", body)
}

/// Indented, because people read it.
pub(super) fn json(status: StatusCode, body: &serde_json::Value) -> Reply {
    with_type(status, "application/json", format!("{body:#}\n"))
}

pub(super) fn with_type(status: StatusCode, media_type: &'static str, body: String) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(body)));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}
