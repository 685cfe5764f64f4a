//! A request's head as the next hop gets it.

use http::header::{self, HeaderValue};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Uri, Version};

use crate::http::replay::RequestBody;

/// Over HTTP/2: the authority stands in the URI. Between sidecars the scheme is what the application said it is: plain HTTP.
pub(crate) fn http2(
    head: &Parts,
    authority: &Authority,
    body: RequestBody,
) -> Request<RequestBody> {
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(authority.clone());
    uri.path_and_query = Some(path_and_query(head));
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = head.headers.clone();
    request.headers_mut().remove(header::HOST);
    // The three parts belong together: it cannot fail.
    if let Ok(uri) = Uri::from_parts(uri) {
        *request.uri_mut() = uri;
    }
    request
}

/// Over HTTP/1.1: origin form, and a `Host` header.
pub(crate) fn http1(
    head: &Parts,
    authority: &Authority,
    body: RequestBody,
) -> Request<RequestBody> {
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = head.headers.clone();
    if head.uri.authority().is_none() && head.headers.contains_key(header::HOST) {
        // It is where the authority was taken from.
    } else if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
        request.headers_mut().insert(header::HOST, host);
    }
    *request.uri_mut() = Uri::from(path_and_query(head));
    request
}

fn path_and_query(head: &Parts) -> PathAndQuery {
    match head.uri.path_and_query() {
        Some(path) if !path.as_str().is_empty() => path.clone(),
        _ => PathAndQuery::from_static("/"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{http1, http2};
    use crate::http::body::Source;
    use crate::http::replay::Replay;
    use http::Request;

    #[test]
    fn heads() {
        let body = Replay::new(Source::Empty);
        let (head, ()) = Request::get("http://Chat:80/v1/models?x=1")
            .header("host", "other")
            .body(())
            .unwrap()
            .into_parts();
        let authority = head.uri.authority().unwrap();
        let request = http1(&head, authority, body.body());
        assert_eq!(request.uri(), "/v1/models?x=1");
        assert_eq!(request.headers()["host"], "Chat:80");
        let request = http2(&head, authority, body.body());
        assert_eq!(request.uri(), "http://Chat:80/v1/models?x=1");
        assert!(!request.headers().contains_key("host"));

        let (head, ()) = Request::options("*")
            .header("host", "chat")
            .body(())
            .unwrap()
            .into_parts();
        let request = http1(&head, &"chat".parse().unwrap(), body.body());
        assert_eq!(request.uri(), "*");
        assert_eq!(request.headers()["host"], "chat");
    }
}
