//! New hosts and paths.

use http::header::HOST;
use http::{HeaderValue, Uri};

use crate::http::arrival::Arrived;
use crate::policy::filters::UrlRewrite;

pub(super) fn apply(rewrite: &UrlRewrite, request: &mut Arrived) {
    if let Some(hostname) = &rewrite.hostname {
        request.authority = hostname.clone();
        // An authority has only characters that a header may have.
        if let Ok(host) = HeaderValue::from_str(hostname.as_str()) {
            request.head.headers.insert(HOST, host);
        }
    }
    let Some(modifier) = &rewrite.path else {
        return;
    };
    let head = &mut request.head;
    let Some(new) = head
        .uri
        .path_and_query()
        .and_then(|old| modifier.rewrite(old))
    else {
        return;
    };
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    parts.path_and_query = Some(new.clone());
    // The other parts belonged to a path before: it does not fail.
    head.uri = Uri::from_parts(parts).unwrap_or_else(|_| Uri::from(new));
}
