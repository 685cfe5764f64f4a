//! Which host a request is for.

use http::header::{self, HeaderValue};
use http::request::Parts;
use http::uri::Authority;

/// A request that does not say, without ambiguity, which host it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidAuthority {
    #[error("the request names no host: neither its URI nor a Host header does")]
    Missing,
    #[error("the request has more than one Host header")]
    Repeated,
    #[error("the request's host is not of the form name or name:port")]
    Malformed,
}

/// The authority that a request names: the URI's (absolute form, `:authority`), else the `Host` header's. The two must not
/// be ambiguous (RFC 9112, section 3.2).
pub(crate) fn of(parts: &Parts) -> Result<Authority, InvalidAuthority> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(InvalidAuthority::Repeated);
    }
    if let Some(authority) = parts.uri.authority() {
        // The absolute form goes before Host (RFC 9112, section 3.2.2), but Host must be well-formed all the same.
        if let Some(host) = host
            && !host.is_empty()
        {
            parse(host)?;
        }
        return check(authority.clone());
    }
    match host {
        None => Err(InvalidAuthority::Missing),
        Some(host) if host.is_empty() => Err(InvalidAuthority::Missing),
        Some(host) => parse(host),
    }
}

fn parse(host: &HeaderValue) -> Result<Authority, InvalidAuthority> {
    let authority =
        Authority::try_from(host.as_bytes()).map_err(|_| InvalidAuthority::Malformed)?;
    check(authority)
}

fn check(authority: Authority) -> Result<Authority, InvalidAuthority> {
    let text = authority.as_str();
    let port_is_valid = match text.rsplit_once(':') {
        // The colons of an IPv6 address.
        Some((_, rest)) if rest.contains(']') => true,
        Some((_, port)) => !port.is_empty() && port.parse::<u16>().is_ok(),
        None => true,
    };
    // `user@host` is for clients only (RFC 9110, section 4.2.4).
    if text.contains('@') || authority.host().is_empty() || !port_is_valid {
        return Err(InvalidAuthority::Malformed);
    }
    Ok(authority)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{InvalidAuthority, of};
    use http::Request;

    fn authority(uri: &str, hosts: &[&str]) -> Result<String, InvalidAuthority> {
        let mut request = Request::builder().uri(uri);
        for host in hosts {
            request = request.header("host", *host);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        of(&parts).map(|authority| authority.as_str().to_owned())
    }

    #[test]
    fn uri_goes_before_host() {
        assert_eq!(authority("/", &["chat"]).unwrap(), "chat");
        assert_eq!(authority("/", &["chat:80"]).unwrap(), "chat:80");
        assert_eq!(authority("/", &["[::1]:80"]).unwrap(), "[::1]:80");
        assert_eq!(authority("/", &["[::1]"]).unwrap(), "[::1]");
        assert_eq!(authority("http://chat:80/", &["other"]).unwrap(), "chat:80");
        assert_eq!(authority("http://chat/x", &[]).unwrap(), "chat");
    }

    #[test]
    fn ambiguity_is_refused() {
        assert_eq!(authority("/", &[]), Err(InvalidAuthority::Missing));
        assert_eq!(authority("/", &[""]), Err(InvalidAuthority::Missing));
        assert_eq!(authority("/", &["a", "a"]), Err(InvalidAuthority::Repeated));
        for host in [
            "a b", "a/b", "user@a", "a:", "a:b", "a:99999", ":80", "a,b c",
        ] {
            assert_eq!(
                authority("/", &[host]),
                Err(InvalidAuthority::Malformed),
                "{host}"
            );
        }
        assert_eq!(
            authority("http://chat/", &["a", "b"]),
            Err(InvalidAuthority::Repeated)
        );
    }
}
