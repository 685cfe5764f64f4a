//! What fuzz targets call: everything that reads bytes from elsewhere, one function for each. They must not panic, whatever
//! they get. The seeds in `tests/fuzz/seeds` are ordinary tests too.

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use outrigger_proto::dataplane::v1 as wire;
use prost::Message;

use crate::control::convert;
use crate::detect::client_hello::{self, Hello};
use crate::detect::sniff;
use crate::http::http1::guard::Guard;
use crate::http::{authority, headers};
use crate::listener::proxy_protocol::{self, Parsed};
use crate::policy::filters::PathModifier;
use crate::policy::matching::{QueryParamMatch, RequestFacts, StringMatch};
use crate::policy::{HostMatch, Match};
use crate::pool::http1::fuzz::read_response;

/// Reads bytes, and panics where it finds a mistake of ours.
pub type Target = fn(&[u8]);

/// Every target, by the name of its directory of seeds.
pub const TARGETS: &[(&str, Target)] = &[
    ("http1_guard", http1_guard),
    ("http1_response", http1_response),
    ("authority", authority),
    ("config_conversion", config_conversion),
    ("route_matching", route_matching),
    ("path_rewrite", path_rewrite),
    ("header_rewrite", header_rewrite),
    ("detection", detection),
    ("client_hello", client_hello),
    ("proxy_protocol", proxy_protocol),
    ("model_request", model_request),
    ("token_stream", token_stream),
    ("continuation", continuation),
    ("engine_metrics", engine_metrics),
    ("load_report", load_report),
];

/// A stream of tokens: what is seen of it does not depend on how it is cut into pieces.
pub fn token_stream(bytes: &[u8]) {
    crate::inference::fuzz_stream(bytes);
}

/// A stream that breaks and goes on, and the request for its rest: what comes of it does not depend on how it is cut into pieces.
pub fn continuation(bytes: &[u8]) {
    crate::inference::fuzz_continuation(bytes);
}

/// The body of a request for a model: what is read of it, and that what is replaced in it is what was meant.
pub fn model_request(bytes: &[u8]) {
    crate::inference::fuzz(bytes);
}

/// A model server's page of metrics.
pub fn engine_metrics(bytes: &[u8]) {
    crate::inference::engine::page::fuzz(bytes);
}

/// A load report in a response's head.
pub fn load_report(bytes: &[u8]) {
    crate::inference::engine::orca::fuzz(bytes);
}

/// A connection's first bytes: what is clear stays so, and it becomes clear within bounds.
pub fn detection(bytes: &[u8]) {
    let all = sniff::classify(bytes);
    for end in 0..bytes.len().min(64) {
        let now = sniff::classify(&bytes[..end]);
        assert!(now.is_none() || now == all);
    }
    assert!(all.is_some() || bytes.len() < sniff::MAX_LINE);
}

/// The name in a ClientHello: what was found does not change with what follows, and it is found within bounds.
pub fn client_hello(bytes: &[u8]) {
    let all = client_hello::parse(bytes);
    assert!(all != Hello::Incomplete || bytes.len() < client_hello::MAX_HELLO);
    let half = client_hello::parse(&bytes[..bytes.len() / 2]);
    assert!(half == Hello::Incomplete || half == all);
}

/// A PROXY protocol header: never longer than what is there, and found within bounds.
pub fn proxy_protocol(bytes: &[u8]) {
    match proxy_protocol::parse(bytes) {
        Parsed::Header { source, length } => {
            assert!(length <= bytes.len() && length <= proxy_protocol::MAX_HEADER);
            assert_eq!(
                proxy_protocol::parse(&bytes[..length]),
                Parsed::Header { source, length }
            );
            assert_eq!(
                proxy_protocol::parse(&bytes[..length - 1]),
                Parsed::Incomplete
            );
        }
        Parsed::Incomplete => assert!(bytes.len() < proxy_protocol::MAX_HEADER),
        Parsed::Refused(_) => {}
    }
}

/// A client's HTTP/1.1 bytes: the verdict does not depend on how they are cut into pieces.
pub fn http1_guard(bytes: &[u8]) {
    let (cut, bytes) = bytes.split_first().unwrap_or((&0, &[]));
    let whole = Guard::default().read(bytes);
    let mut guard = Guard::default();
    let pieces = bytes
        .chunks(usize::from(*cut).max(1))
        .try_for_each(|piece| guard.read(piece));
    assert_eq!(pieces, whole);
}

/// An application's HTTP/1.1 bytes: what is read does not depend on how they are cut into pieces.
pub fn http1_response(bytes: &[u8]) {
    let (cut, bytes) = bytes.split_first().unwrap_or((&0, &[]));
    let whole = read_response(bytes, bytes.len());
    let pieces = read_response(bytes, usize::from(*cut));
    assert_eq!(pieces, whole);
}

/// The host that a request names: a request target, and on the next line a `Host` header.
pub fn authority(bytes: &[u8]) {
    let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
    let target = lines.next().unwrap_or_default();
    let Ok(uri) = Uri::try_from(target) else {
        return;
    };
    let (mut head, ()) = http::Request::new(()).into_parts();
    head.uri = uri;
    if let Some(Ok(host)) = lines.next().map(HeaderValue::from_bytes) {
        head.headers.insert(http::header::HOST, host);
    }
    if let Ok(found) = authority::of(&head) {
        assert!(!found.host().is_empty());
    }
}

/// A resource as the control plane sends it.
pub fn config_conversion(bytes: &[u8]) {
    if let Ok(resource) = wire::Resource::decode(bytes)
        && let Err(reason) = convert::check(&resource, "outrigger.local")
    {
        assert!(!reason.is_empty());
    }
}

/// A pattern on the first line, a query parameter's name on the second, a host on the third, a request target on the fourth.
pub fn route_matching(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    let (pattern, name, host, target) = (line(), line(), line(), line());
    let Ok(uri) = target.parse::<Uri>() else {
        return;
    };
    let kinds = [
        Some(StringMatch::exact(pattern)),
        Some(StringMatch::prefix(pattern)),
        StringMatch::regex(pattern).ok(),
    ];
    for kind in kinds.into_iter().flatten() {
        let conditions = Match {
            hosts: vec![HostMatch::new(host)],
            path: Some(kind.clone()),
            query_params: vec![QueryParamMatch {
                name: name.into(),
                value: kind,
            }],
            ..Match::default()
        };
        conditions.matches(&RequestFacts {
            host: uri.host().unwrap_or_default(),
            port: 80,
            path: uri.path(),
            query: uri.query().unwrap_or_default(),
            method: &Method::GET,
            headers: &HeaderMap::new(),
            model: None,
        });
    }
}

/// A prefix on the first line, what takes its place on the second, a request target on the third: the new target is one.
pub fn path_rewrite(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    let (prefix, replacement, target) = (line(), line(), line());
    let Ok(target) = PathAndQuery::try_from(target) else {
        return;
    };
    let modifiers = [
        PathModifier::prefix(prefix, replacement).ok(),
        PathModifier::full(replacement).ok(),
    ];
    for modifier in modifiers.into_iter().flatten() {
        if let Some(new) = modifier.rewrite(&target) {
            assert!(new.path().starts_with('/') || new == target, "{new}");
            assert_eq!(new.query(), target.query());
        }
    }
}

/// Lines of headers as they come from an application: what is passed on names no connection's own headers.
pub fn header_rewrite(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n').take(64) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = HeaderName::from_bytes(parts.next().unwrap_or_default());
        let value = HeaderValue::from_bytes(parts.next().unwrap_or_default());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers::clean_response(&mut headers, false);
    for name in [
        "connection",
        "keep-alive",
        "transfer-encoding",
        "x-outrigger-reason",
    ] {
        assert!(!headers.contains_key(name), "{name}");
    }
}

#[cfg(test)]
mod tests;
