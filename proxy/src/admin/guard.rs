//! Who may not ask the admin port: web pages.
//!
//! It listens on the loopback address, and so does the browser of whoever develops on this machine. A page can make it send
//! requests here, under a name of its own that resolves to 127.0.0.1 (DNS rebinding), or to the address itself.

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderValue, Request};

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("Host must be an IP address or localhost on this port; found {0:?}")]
    Host(String),
    #[error("requests from web pages (with an Origin header) are not served on this port")]
    Page,
}

/// `Ok` for what a tool on this machine sends.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), Refused> {
    let headers = request.headers();
    if headers.contains_key(ORIGIN) || is_cross_site(headers) {
        return Err(Refused::Page);
    }
    let authority = request
        .uri()
        .authority()
        .map(|authority| authority.as_str());
    // Both, where both are there: which of them a client means is not ours to guess.
    let hosts = headers.get_all(HOST).iter().map(HeaderValue::to_str);
    let mut named = authority.into_iter().map(Ok).chain(hosts).peekable();
    if named.peek().is_none() {
        // HTTP/1.0 without Host: no browser sends that.
        return Ok(());
    }
    for host in named {
        let host = host.map_err(|_| Refused::Host("bytes that are no text".to_owned()))?;
        if !is_local(host) {
            return Err(Refused::Host(host.chars().take(100).collect()));
        }
    }
    Ok(())
}

fn is_cross_site(headers: &HeaderMap) -> bool {
    headers
        .get("sec-fetch-site")
        .is_some_and(|site| site != "none" && site != "same-origin")
}

/// An IP address cannot be rebound, and `localhost` is not looked up in DNS (RFC 6761).
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests;
