//! What becomes of headers on their way through.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use rand::Rng;

use super::deadline::REQUEST_TIMEOUT;

/// Marks a request through all that it causes; made where it is missing.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Why the proxy answered itself.
pub(crate) const REASON: HeaderName = HeaderName::from_static("x-outrigger-reason");
/// The trace that the request belongs to; passed on as it is, unless the request is sampled.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// From the sidecar that refuses a request: how long it would have waited for its turn, milliseconds.
pub(crate) const EXPECTED_WAIT: HeaderName =
    HeaderName::from_static("x-outrigger-expected-wait-ms");
/// How often the request was sent; a request of the local application with this header asks for it.
pub(crate) const ATTEMPTS: HeaderName = HeaderName::from_static("x-outrigger-attempts");
/// Which fallback gave the answer.
pub(crate) const FALLBACK: HeaderName = HeaderName::from_static("x-outrigger-fallback");
/// The model that it asked for in place of the one that the request names.
pub(crate) const FALLBACK_MODEL: HeaderName = HeaderName::from_static("x-outrigger-fallback-model");
/// The request is for the rest of a stream that broke: how many there were of these. Set by the caller's sidecar only.
pub(crate) const CONTINUATION: HeaderName = HeaderName::from_static("x-outrigger-continuation");
/// Who the caller is; set by the inbound side only.
pub(crate) const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
/// From sidecar to sidecar, for ports whose protocol is found out: the client speaks HTTP/2 with prior knowledge, and so must the
/// application.
pub(crate) const PRIOR_HTTP2: HeaderName = HeaderName::from_static("x-outrigger-prior-http2");
/// How much a request matters. Applications may set it; what it is worth is the policy's to say.
pub(crate) const PRIORITY: HeaderName = HeaderName::from_static("x-outrigger-priority");
/// Headers of ours; nobody else's are believed.
pub(crate) const OURS: &str = "x-outrigger-";

/// What was found while a head was cleaned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    request_id: bool,
    pub(crate) traceparent: bool,
    /// [`PRIOR_HTTP2`].
    pub(crate) prior_http2: bool,
    /// The caller says how long it waits.
    pub(crate) timeout: bool,
    /// The caller wants to know how often its request was sent.
    pub(crate) attempts: bool,
    /// [`CONTINUATION`].
    pub(crate) continuation: Option<u8>,
}

/// Which headers a single pass over the names has met. Removing a header costs a hash and a probe; most requests have none
/// of these.
#[derive(Clone, Copy, Default)]
struct Met {
    connection: bool,
    keep_alive: bool,
    proxy_connection: bool,
    proxy_authorization: bool,
    proxy_authenticate: bool,
    transfer_encoding: bool,
    te: bool,
    upgrade: bool,
    http2_settings: bool,
    expect: bool,
    client_cert: bool,
    ours: bool,
    request_id: bool,
    traceparent: bool,
    timeout: bool,
}

impl Met {
    fn look(headers: &HeaderMap) -> Met {
        let mut met = Met::default();
        for name in headers.keys() {
            match *name {
                header::CONNECTION => met.connection = true,
                header::TRANSFER_ENCODING => met.transfer_encoding = true,
                header::TE => met.te = true,
                header::UPGRADE => met.upgrade = true,
                header::EXPECT => met.expect = true,
                header::PROXY_AUTHORIZATION => met.proxy_authorization = true,
                header::PROXY_AUTHENTICATE => met.proxy_authenticate = true,
                ref other => {
                    let text = other.as_str();
                    match text.as_bytes() {
                        [b'x', b'-', ..] => {
                            if text == REQUEST_ID.as_str() {
                                met.request_id = true;
                            } else if text == CLIENT_CERT.as_str() {
                                met.client_cert = true;
                            } else if is_ours(text) {
                                met.ours = true;
                            } else if text == REQUEST_TIMEOUT.as_str() {
                                met.timeout = true;
                            }
                        }
                        b"keep-alive" => met.keep_alive = true,
                        b"proxy-connection" => met.proxy_connection = true,
                        b"http2-settings" => met.http2_settings = true,
                        b"traceparent" => met.traceparent = true,
                        _ => {}
                    }
                }
            }
        }
        met
    }
}

/// Cleans a request's head: what concerns only the connection it came on (RFC 9110, section 7.6.1), and what claims an
/// identity. `upgrade`: the protocol asked for stays, with its `connection: upgrade`.
///
/// `expect: 100-continue` goes as well: the client gets its answer from us, when its body begins to be read.
pub(crate) fn clean_request(headers: &mut HeaderMap, upgrade: Option<&HeaderValue>) -> Found {
    let met = Met::look(headers);
    if met.connection {
        remove_named(headers);
    }
    if met.upgrade {
        headers.remove(header::UPGRADE);
    }
    if met.http2_settings {
        headers.remove(HTTP2_SETTINGS);
    }
    if met.te {
        keep_trailers_only(headers);
    }
    if met.expect {
        headers.remove(header::EXPECT);
    }
    if met.client_cert {
        headers.remove(CLIENT_CERT);
    }
    let prior_http2 = met.ours && headers.contains_key(PRIOR_HTTP2);
    let attempts = met.ours && headers.contains_key(ATTEMPTS);
    let continuation = || headers.get(CONTINUATION)?.to_str().ok()?.parse().ok();
    let continuation = if met.ours { continuation() } else { None };
    clean_common(headers, met);
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol.clone());
    }
    Found {
        // A `connection: x-request-id` has removed it.
        request_id: met.request_id && (!met.connection || headers.contains_key(REQUEST_ID)),
        traceparent: met.traceparent,
        prior_http2,
        timeout: met.timeout,
        attempts,
        continuation,
    }
}

/// Cleans a response's head. `trust_ours`: it comes from another sidecar, whose reasons are passed on.
pub(crate) fn clean_response(headers: &mut HeaderMap, trust_ours: bool) {
    let mut met = Met::look(headers);
    if met.connection {
        remove_named(headers);
    }
    if met.upgrade {
        headers.remove(header::UPGRADE);
    }
    if met.te {
        headers.remove(header::TE);
    }
    met.ours &= !trust_ours;
    clean_common(headers, met);
}

/// Cleans an interim response's head.
pub(crate) fn strip_interim(headers: &mut HeaderMap) {
    clean_response(headers, false);
    headers.remove(header::CONTENT_LENGTH);
}

fn clean_common(headers: &mut HeaderMap, met: Met) {
    if met.transfer_encoding {
        headers.remove(header::TRANSFER_ENCODING);
        // Both in one message is how requests are smuggled: the coding counts (RFC 9112, section 6.3).
        headers.remove(header::CONTENT_LENGTH);
    }
    if met.keep_alive {
        headers.remove(KEEP_ALIVE);
    }
    if met.proxy_connection {
        headers.remove(PROXY_CONNECTION);
    }
    if met.proxy_authorization {
        headers.remove(header::PROXY_AUTHORIZATION);
    }
    if met.proxy_authenticate {
        headers.remove(header::PROXY_AUTHENTICATE);
    }
    if met.ours {
        remove_ours(headers);
    }
}

/// Removes all that is meant for sidecars, what applications may set included.
pub(crate) fn remove_all_ours(headers: &mut HeaderMap) {
    remove_ours(headers);
    headers.remove(PRIORITY);
}

/// Removes what sidecars say to each other.
fn remove_ours(headers: &mut HeaderMap) {
    let names: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_ours(name.as_str()))
        .cloned()
        .collect();
    for name in names {
        headers.remove(name);
    }
}

/// Whether a header is one that only we may set.
fn is_ours(name: &str) -> bool {
    name.starts_with(OURS) && name != PRIORITY.as_str()
}

/// Removes `connection` and the headers that it names.
fn remove_named(headers: &mut HeaderMap) {
    // Framing and routing are not the client's to remove: naming them would change what the message is.
    const NEVER: [HeaderName; 2] = [header::HOST, header::CONTENT_LENGTH];
    let values: Vec<HeaderValue> = headers
        .get_all(header::CONNECTION)
        .iter()
        .cloned()
        .collect();
    for value in values {
        for token in value.as_bytes().split(|byte| *byte == b',') {
            let token = token.trim_ascii();
            // These two are no headers, and by far the most common.
            if token.eq_ignore_ascii_case(b"keep-alive") || token.eq_ignore_ascii_case(b"close") {
                continue;
            }
            if let Ok(name) = HeaderName::from_bytes(token) {
                // `te: trailers` must be named to be sent; what is left of it is decided by its value.
                if !NEVER.contains(&name) && name != header::TE && name != header::TRANSFER_ENCODING
                {
                    headers.remove(name);
                }
            }
        }
    }
    headers.remove(header::CONNECTION);
}

/// gRPC asks for trailers so; every other coding is between the client and us.
fn keep_trailers_only(headers: &mut HeaderMap) {
    let trailers = headers.get_all(header::TE).iter().any(|value| {
        value
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    });
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    } else {
        headers.remove(header::TE);
    }
}

/// Gives the request an id if it has none.
///
/// Ids are marked as sensitive: HTTP/2 then leaves them out of the table of repeated headers (RFC 7541, section 7.1.3), where
/// they would push out what does repeat.
pub(crate) fn ensure_request_id(headers: &mut HeaderMap, found: Found, rng: &mut impl Rng) {
    if found.traceparent
        && let Some(value) = headers.get_mut(TRACEPARENT)
    {
        value.set_sensitive(true);
    }
    if found.request_id {
        if let Some(value) = headers.get_mut(REQUEST_ID) {
            value.set_sensitive(true);
        }
        return;
    }
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0_u8; 32];
    for half in text.chunks_exact_mut(16) {
        let mut bits = rng.next_u64();
        for digit in half {
            *digit = HEX[(bits & 15) as usize];
            bits >>= 4;
        }
    }
    if let Ok(mut value) = HeaderValue::from_bytes(&text) {
        value.set_sensitive(true);
        headers.insert(REQUEST_ID, value);
    }
}

/// The protocol that a request wants to change to. `None`: it wants no change, or HTTP/2 (`h2c`), which a client gets by
/// prior knowledge only: that upgrade is optional, obsolete (RFC 9113, section 3.1) and a way to smuggle.
pub(crate) fn wanted_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let protocol = headers.get(header::UPGRADE)?;
    let named = headers.get_all(header::CONNECTION).iter().any(|value| {
        value
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    });
    let h2c = protocol
        .as_bytes()
        .split(|byte| *byte == b',')
        .any(|name| name.trim_ascii().eq_ignore_ascii_case(b"h2c"));
    (named && !h2c).then(|| protocol.clone())
}

/// Whether the content is gRPC's.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        value.starts_with(b"application/grpc")
            && matches!(value.get(16), None | Some(b'+' | b';' | b' '))
    })
}

/// The body's length as the head says it.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(header::CONTENT_LENGTH)?;
    value.to_str().ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests;
