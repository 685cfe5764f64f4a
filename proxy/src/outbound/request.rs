//! A request's head as the next hop gets it.

use http::header::{self, HeaderValue};
use http::request::Parts;
use http::uri::{PathAndQuery, Scheme};
use http::{Request, Uri, Version};

use crate::http::arrival::Arrived;
use crate::http::replay::RequestBody;

/// Over HTTP/2: the authority stands in the URI. Between sidecars the scheme is what the application said it is: plain HTTP.
pub(crate) fn http2(arrived: &Arrived) -> Request<RequestBody> {
    let head = &arrived.head;
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(arrived.authority.clone());
    uri.path_and_query = Some(path_and_query(head));
    let mut request = Request::new(arrived.body.body());
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
pub(crate) fn http1(arrived: &Arrived) -> Request<RequestBody> {
    let head = &arrived.head;
    let mut request = Request::new(arrived.body.body());
    *request.method_mut() = head.method.clone();
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = head.headers.clone();
    if head.uri.authority().is_some() || !head.headers.contains_key(header::HOST) {
        // An authority has only characters that a header may have.
        if let Ok(host) = HeaderValue::from_str(arrived.authority.as_str()) {
            request.headers_mut().insert(header::HOST, host);
        }
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
mod tests;
