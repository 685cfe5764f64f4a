//! Cross-origin requests of browsers (<https://fetch.spec.whatwg.org/#http-cors-protocol>), as the Gateway API's `HTTPCORSFilter`
//! says who may make them.

use http::HeaderValue;

/// Who may call from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// Any of them.
    pub origins: Vec<Origin>,
    pub credentials: bool,
    pub methods: AllowList,
    pub headers: AllowList,
    /// Names, as the header has them.
    pub expose: Option<HeaderValue>,
    /// Seconds, as the header has them.
    pub max_age: HeaderValue,
}

/// What a preflight may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowList {
    /// Only what the protocol always allows.
    Simple,
    Any,
    /// As the header has them.
    These(HeaderValue),
}

/// Origins that may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Any,
    Exact(Box<str>),
    /// `https://*.example:8443` as `https://` and `.example:8443`: one or more labels in between.
    Below {
        scheme: Box<str>,
        suffix: Box<str>,
    },
}

/// A text that is no origin.
#[derive(Debug, thiserror::Error)]
#[error(
    "{found:?} is not an origin: *, <scheme>://<host>[:<port>] or <scheme>://*.<host>[:<port>]"
)]
pub struct InvalidOrigin {
    found: String,
}

impl Origin {
    pub fn new(text: &str) -> Result<Origin, InvalidOrigin> {
        if text == "*" {
            return Ok(Origin::Any);
        }
        let invalid = || InvalidOrigin {
            found: text.to_owned(),
        };
        let (scheme, host) = text.split_once("://").ok_or_else(invalid)?;
        let below = host.strip_prefix("*.");
        let (name, port) = match below.unwrap_or(host).rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
            _ => (below.unwrap_or(host), None),
        };
        let scheme_is_valid = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        let port_is_valid = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
        if !scheme_is_valid || !port_is_valid || name.is_empty() || !is_host(name) {
            return Err(invalid());
        }
        Ok(match below {
            Some(suffix) => Origin::Below {
                scheme: format!("{scheme}://").into(),
                suffix: format!(".{suffix}").into(),
            },
            None => Origin::Exact(text.into()),
        })
    }

    /// Whether it is the `Origin` of a request. Browsers send schemes and hosts in lower case; others may not.
    pub fn matches(&self, origin: &str) -> bool {
        match self {
            Origin::Any => true,
            Origin::Exact(exact) => exact.eq_ignore_ascii_case(origin),
            Origin::Below { scheme, suffix } => {
                let (bytes, scheme, suffix) =
                    (origin.as_bytes(), scheme.as_bytes(), suffix.as_bytes());
                let Some(labels) = bytes.len().checked_sub(scheme.len() + suffix.len()) else {
                    return false;
                };
                let middle = &bytes[scheme.len()..scheme.len() + labels];
                bytes[..scheme.len()].eq_ignore_ascii_case(scheme)
                    && bytes[scheme.len() + labels..].eq_ignore_ascii_case(suffix)
                    && std::str::from_utf8(middle)
                        .is_ok_and(|text| !text.is_empty() && is_host(text))
            }
        }
    }
}

/// Labels of letters, digits, `-` and `_`, or an address in brackets.
fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    match text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
    {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => text.split('.').all(label),
    }
}

impl Cors {
    /// What `Access-Control-Allow-Origin` is for a request from this origin. `None`: it may not call.
    pub fn allowed(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        // With credentials browsers do not accept the asterisk.
        if !self.varies() {
            return Some(HeaderValue::from_static("*"));
        }
        let text = origin.to_str().ok()?;
        let may = self.origins.iter().any(|each| each.matches(text));
        may.then(|| origin.clone())
    }

    /// Whether the answer depends on who asks: caches have to know.
    pub fn varies(&self) -> bool {
        self.credentials || !self.origins.contains(&Origin::Any)
    }
}
