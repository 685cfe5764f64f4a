//! Requests for servers outside the mesh, which are told nothing of it: they get the host that everybody knows them by, and
//! no header that sidecars have for each other.

use http::header::{self, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{Request, Uri};
use tokio::time::Instant;

use super::request;
use crate::balance::Endpoint;
use crate::http::arrival::Arrived;
use crate::http::headers;
use crate::http::replay::RequestBody;
use crate::policy::Outside;

/// A server outside the mesh, and what it is called within.
#[derive(Clone, Copy)]
pub(super) struct To<'a> {
    pub(super) outside: &'a Outside,
    /// `<namespace>/<name>` of the service that it belongs to.
    pub(super) service: &'a str,
}

/// Over HTTP/2, to whichever server. `end` as for [`request::http2`].
pub(super) fn http2(
    arrived: &Arrived,
    body: RequestBody,
    end: Option<Instant>,
    to: Option<To<'_>>,
) -> Request<RequestBody> {
    let mut request = request::http2(arrived, body, end);
    let Some(to) = to else { return request };
    headers::remove_all_ours(request.headers_mut());
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    if to.outside.tls.is_some() {
        uri.scheme = Some(Scheme::HTTPS);
    }
    uri.authority = uri.authority.map(|asked| to.authority(&asked));
    // The three parts belong together: it cannot fail.
    if let Ok(uri) = Uri::from_parts(uri) {
        *request.uri_mut() = uri;
    }
    request
}

/// Over HTTP/1.1, to whichever server.
pub(super) fn http1(
    arrived: &Arrived,
    body: RequestBody,
    end: Option<Instant>,
    to: Option<To<'_>>,
) -> Request<RequestBody> {
    let mut request = request::http1(arrived, body, end);
    let Some(to) = to else { return request };
    headers::remove_all_ours(request.headers_mut());
    let asked = request.headers().get(header::HOST);
    let asked = asked.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let authority = asked.map(|asked| to.authority(&asked));
    // An authority has only characters that a header may have.
    if let Some(Ok(host)) = authority.map(|host| HeaderValue::from_str(host.as_str())) {
        request.headers_mut().insert(header::HOST, host);
    }
    request
}

impl<'a> To<'a> {
    /// `None`: the endpoint is in the mesh.
    pub(super) fn of(endpoint: &'a Endpoint, service: &'a str) -> Option<To<'a>> {
        let outside = endpoint.outside.as_deref()?;
        Some(To { outside, service })
    }

    fn authority(&self, asked: &Authority) -> Authority {
        self.outside.authority(asked, self.service)
    }
}
