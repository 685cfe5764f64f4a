//! Conditions on gRPC calls.

use http::HeaderMap;

use super::string::StringMatch;
use crate::http::headers;

/// A gRPC call by service and method, as its path says them: `/<service>/<method>`
/// (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>). Requests that are no gRPC never match, whatever their
/// path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrpcMatch {
    /// With its package. `None`: any.
    pub service: Option<StringMatch>,
    /// `None`: any.
    pub method: Option<StringMatch>,
}

impl GrpcMatch {
    pub fn matches(&self, path: &str, headers: &HeaderMap) -> bool {
        let call = path
            .strip_prefix('/')
            .and_then(|call| call.split_once('/'))
            .filter(|(service, method)| {
                !service.is_empty() && !method.is_empty() && !method.contains('/')
            });
        let Some((service, method)) = call else {
            return false;
        };
        let fits = |pattern: &Option<StringMatch>, value: &str| {
            pattern
                .as_ref()
                .is_none_or(|pattern| pattern.matches(value.as_bytes()))
        };
        fits(&self.service, service) && fits(&self.method, method) && headers::is_grpc(headers)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use http::HeaderValue;

    use super::*;

    fn call(service: Option<&str>, method: Option<&str>, path: &str, content: &str) -> bool {
        let pattern = |text: &str| match text.strip_prefix('~') {
            Some(regex) => StringMatch::regex(regex).unwrap(),
            None => StringMatch::exact(text),
        };
        let wanted = GrpcMatch {
            service: service.map(pattern),
            method: method.map(pattern),
        };
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_str(content).unwrap());
        wanted.matches(path, &headers)
    }

    #[test]
    fn service_and_method() {
        const GRPC: &str = "application/grpc+proto";
        assert!(call(Some("a.B"), Some("C"), "/a.B/C", GRPC));
        assert!(!call(Some("a.B"), Some("C"), "/a.B/CD", GRPC));
        assert!(!call(Some("a.B"), Some("C"), "/a.B2/C", GRPC));
        assert!(call(Some("a.B"), None, "/a.B/D", GRPC));
        assert!(call(None, Some("C"), "/x/C", GRPC));
        assert!(call(Some("~a\\..*"), Some("~[CD]"), "/a.B/D", GRPC));
        assert!(!call(Some("~a\\..*"), Some("~[CD]"), "/a.B/Dx", GRPC));
        assert!(call(None, None, "/a.B/C", GRPC));
        for path in ["/a.B/", "/a.B", "//C", "/", "*", "/a.B/C/D", "a.B/C"] {
            assert!(!call(None, None, path, GRPC), "{path}");
        }
    }

    #[test]
    fn other_requests_do_not_match() {
        assert!(call(Some("a.B"), None, "/a.B/C", "application/grpc"));
        assert!(!call(Some("a.B"), None, "/a.B/C", "application/json"));
        assert!(!call(Some("a.B"), None, "/a.B/C", "application/grpc-web"));
    }
}
