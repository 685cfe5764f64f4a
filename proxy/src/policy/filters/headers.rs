//! Changes of headers.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::http::headers;

/// Removes, then sets, then adds: as Envoy does, so that what is added is not removed again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderModifier {
    /// In place of all values there are.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// In addition to what there is.
    pub add: Vec<(HeaderName, HeaderValue)>,
    pub remove: Vec<HeaderName>,
}

impl HeaderModifier {
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        // The number of headers that a request may have is far below what a map can hold.
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
    }
}

/// Whether a policy may change this header. Not those of which the framing or the connection consists (RFC 9110, section 7.6.1;
/// RFC 9112, section 6): to change them is to smuggle. Not `host`, which [`UrlRewrite`](super::UrlRewrite) changes. And not
/// those by which sidecars say who a caller is and what they did.
pub fn is_modifiable(name: &HeaderName) -> bool {
    const NEVER: [HeaderName; 11] = [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::EXPECT,
        header::HOST,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        headers::REQUEST_ID,
    ];
    let text = name.as_str();
    !NEVER.contains(name)
        && !matches!(text, "keep-alive" | "proxy-connection" | "http2-settings")
        && *name != headers::CLIENT_CERT
        && !text.starts_with(headers::OURS)
}
