//! The answers that browsers look at before they let a page call another origin.

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderName, ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use crate::policy::filters::{AllowList, Cors};

const TRUE: HeaderValue = HeaderValue::from_static("true");

/// The answer to a preflight (<https://fetch.spec.whatwg.org/#cors-preflight-request>). `None`: the request is none.
///
/// An origin that may not call is answered as well, without the headers that would let it: the browser then refuses.
pub(super) fn preflight(policy: &Cors, request: &Parts) -> Option<Response<Bytes>> {
    if request.method != Method::OPTIONS {
        return None;
    }
    let origin = request.headers.get(ORIGIN)?;
    let method = request.headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(
        VARY,
        HeaderValue::from_static(
            "origin, access-control-request-method, access-control-request-headers",
        ),
    );
    let Some(allowed) = policy.allowed(origin) else {
        return Some(response);
    };
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    if policy.credentials {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
    }
    let asked = request.headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
    for (name, list, asked) in [
        (ACCESS_CONTROL_ALLOW_METHODS, &policy.methods, Some(method)),
        (ACCESS_CONTROL_ALLOW_HEADERS, &policy.headers, asked),
    ] {
        allow(headers, name, list, asked, policy.credentials);
    }
    headers.insert(ACCESS_CONTROL_MAX_AGE, policy.max_age.clone());
    Some(response)
}

fn allow(
    headers: &mut HeaderMap,
    name: HeaderName,
    list: &AllowList,
    asked: Option<&HeaderValue>,
    credentials: bool,
) {
    let value = match list {
        AllowList::Simple => None,
        AllowList::These(names) => Some(names.clone()),
        // With credentials browsers take the asterisk for a name.
        AllowList::Any if credentials => asked.cloned(),
        AllowList::Any => Some(HeaderValue::from_static("*")),
    };
    if let Some(value) = value {
        headers.insert(name, value);
    }
}

/// What the response to a request says of its origin. `None`: it has none, or it may not call.
pub(super) fn allowed(policy: &Cors, headers: &HeaderMap) -> Option<HeaderValue> {
    policy.allowed(headers.get(ORIGIN)?)
}

/// Puts the policy's word in the place of the application's: otherwise an application could let in whom the policy does not.
pub(super) fn answer(policy: &Cors, allowed: Option<&HeaderValue>, headers: &mut HeaderMap) {
    headers.remove(ACCESS_CONTROL_ALLOW_ORIGIN);
    headers.remove(ACCESS_CONTROL_ALLOW_CREDENTIALS);
    headers.remove(ACCESS_CONTROL_EXPOSE_HEADERS);
    if policy.varies() {
        headers.append(VARY, HeaderValue::from_static("origin"));
    }
    let Some(allowed) = allowed else {
        return;
    };
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed.clone());
    if policy.credentials {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
    }
    if let Some(names) = &policy.expose {
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, names.clone());
    }
}
