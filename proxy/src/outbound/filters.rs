//! The filters of a rule, on the way out and on the way back. Nothing here runs for rules without any.

mod cors;
mod fault;
mod mirror;
mod rewrite;

use std::rc::Rc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, LOCATION};
use http::{HeaderValue, Response};

use crate::http::arrival::Arrived;
use crate::http::exchange::Exchange;
use crate::http::response::ResponseBody;
use crate::policy::Rule;
use crate::policy::filters::{Filter, Filters, Redirect};
use crate::runtime::Worker;
use crate::telemetry::metrics::FilterAction;

/// What is known of a request when its filters begin.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) rule: &'a Rule,
    /// Port of the service that it is for.
    pub(super) port: u16,
}

/// What is to be done to the response.
#[derive(Debug, Default)]
pub(super) struct Later {
    /// `Access-Control-Allow-Origin`, where the request has an origin that may call.
    allow_origin: Option<HeaderValue>,
    /// It is the answer to a preflight, and says all there is to say.
    preflight: bool,
    /// Break its body off after so many bytes.
    truncate: Option<u64>,
}

/// How it goes on.
pub(super) enum Next {
    Send(Box<Exchange>),
    Answer(Box<Response<ResponseBody>>),
}

/// Takes the steps that concern the request, in the order in which they are written.
pub(super) async fn request(
    filters: &Filters,
    context: Context<'_>,
    request: &mut Arrived,
    mut exchange: Box<Exchange>,
    later: &mut Later,
) -> Next {
    for step in &filters.steps {
        let (answer, action) = match step {
            Filter::ResponseHeaders(_) => continue,
            Filter::RequestHeaders(modifier) => {
                modifier.apply(&mut request.head.headers);
                continue;
            }
            Filter::Rewrite(rewrite) => {
                rewrite::apply(rewrite, request);
                continue;
            }
            Filter::Mirror(mirror) => {
                mirror::start(context.worker, mirror, request);
                continue;
            }
            Filter::Fault(faults) => {
                match fault::inject(faults, filters, context, request, exchange, later).await {
                    Next::Send(back) => exchange = back,
                    answer => return answer,
                }
                continue;
            }
            Filter::Cors(policy) => match cors::preflight(policy, &request.head) {
                Some(answer) => {
                    later.preflight = true;
                    (answer, FilterAction::CorsPreflight)
                }
                None => {
                    later.allow_origin = cors::allowed(policy, &request.head.headers);
                    continue;
                }
            },
            Filter::Redirect(policy) => (
                redirect(policy, context.port, request),
                FilterAction::Redirect,
            ),
            Filter::DirectResponse(policy) => (policy.response(), FilterAction::DirectResponse),
        };
        filters.metrics.count(action);
        exchange.log_filter(action.as_str());
        return Next::Answer(Box::new(exchange.reply(answer, None)));
    }
    Next::Send(exchange)
}

/// Takes the steps that concern the response, in the order in which they are written: an upstream's response, a filter's, or an
/// error of our own.
pub(super) fn response(filters: &Filters, later: Later, response: &mut Response<ResponseBody>) {
    for step in &filters.steps {
        match step {
            Filter::ResponseHeaders(modifier) => modifier.apply(response.headers_mut()),
            Filter::Cors(policy) if !later.preflight => {
                cors::answer(policy, later.allow_origin.as_ref(), response.headers_mut());
            }
            _ => {}
        }
    }
    if let Some(bytes) = later.truncate {
        response.body_mut().truncate_after(bytes);
    }
}

fn redirect(policy: &Redirect, port: u16, request: &Arrived) -> Response<Bytes> {
    let (uri, host) = (&request.head.uri, request.authority.host());
    let location = policy.location(host, port, uri.path(), uri.query());
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = policy.status;
    let headers = response.headers_mut();
    // Made of parts of URIs, which have no characters that a header may not have.
    if let Ok(location) = HeaderValue::try_from(location) {
        headers.insert(LOCATION, location);
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    response
}
