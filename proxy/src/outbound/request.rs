//! A request's head as the next hop gets it.

use http::header::{self, HeaderValue};
use http::request::Parts;
use http::uri::{PathAndQuery, Scheme};
use http::{Request, Uri, Version};

use tokio::time::Instant;

use crate::http::arrival::Arrived;
use crate::http::deadline;
use crate::http::replay::RequestBody;

/// Over HTTP/2: the authority stands in the URI. Between sidecars the scheme is what the application said it is: plain HTTP.
///
/// `end`: when the caller stops waiting, if the next hop is to be told.
pub(crate) fn http2(
    arrived: &Arrived,
    body: RequestBody,
    end: Option<Instant>,
) -> Request<RequestBody> {
    let head = &arrived.head;
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(arrived.authority.clone());
    uri.path_and_query = Some(path_and_query(head));
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = head.headers.clone();
    request.headers_mut().remove(header::HOST);
    if let Some(end) = end {
        deadline::tell(request.headers_mut(), arrived.grpc, end);
    }
    // The three parts belong together: it cannot fail.
    if let Ok(uri) = Uri::from_parts(uri) {
        *request.uri_mut() = uri;
    }
    request
}

/// Over HTTP/1.1: origin form, and a `Host` header.
/// `end` as for [`http2`].
pub(crate) fn http1(
    arrived: &Arrived,
    body: RequestBody,
    end: Option<Instant>,
) -> Request<RequestBody> {
    let head = &arrived.head;
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = head.headers.clone();
    if head.uri.authority().is_some() || !head.headers.contains_key(header::HOST) {
        // An authority has only characters that a header may have.
        if let Ok(host) = HeaderValue::from_str(arrived.authority.as_str()) {
            request.headers_mut().insert(header::HOST, host);
        }
    }
    if let Some(end) = end {
        deadline::tell(request.headers_mut(), arrived.grpc, end);
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
