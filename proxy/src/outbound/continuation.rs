//! Sends the request for the rest of a token stream that broke, and goes on with its answer. Nothing of it exists for streams whose
//! rule does not ask for it.

mod body;

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::uri::PathAndQuery;
use http::{Response, StatusCode, Uri};
use tokio::time::Instant;

use super::affinity::Affinity;
use super::call::{self, Call};
use super::first_token::first_token;
use super::route::known_as;
use super::{admit, attempt, send, verdict};
use crate::admission::Counted;
use crate::balance::{Endpoint, InFlight};
use crate::error::Reason;
use crate::http::arrival::Arrived;
use crate::http::body::Source;
use crate::http::clock::Deadline;
use crate::http::exchange::Exchange;
use crate::http::headers;
use crate::inference::continuation::{self, Breaks, Transcript};
use crate::inference::{Api, ModelStream, stream};
use crate::policy::{Backend, FallbackModel, HostEntry, Rule};
use crate::resilience::outlier::Fault;
use crate::runtime::Worker;
use crate::telemetry::metrics::ContinuationResult;

pub(crate) use body::ContinuedStream;

/// Endpoints that are asked for one continuation, where those before did not take the request at all.
const MOST_ENDPOINTS: usize = 4;

/// Has an answer go on elsewhere if it breaks, where the rule says so. `served`: who gives it. `None` for what is in flight: it is
/// the stream's from now on.
pub(super) fn watch(
    call: &Call<'_>,
    exchange: &mut Exchange,
    response: Response<Source>,
    in_flight: InFlight,
    served: Option<Arc<Endpoint>>,
) -> (Response<Source>, Option<InFlight>) {
    let Some((policy, allowed)) = call.continuation() else {
        return (response, Some(in_flight));
    };
    let is_stream = |model: &ModelStream| model.report().is_stream;
    let (Some(model), Some(inference), Some(served), true) = (
        &call.request.model,
        &call.backend.upstream.inference,
        served,
        response.body().model().is_some_and(is_stream),
    ) else {
        return (response, Some(in_flight));
    };
    let breaks = Rc::new(Breaks::new(policy, allowed.err()));
    exchange.set_breaks(&breaks);
    let Ok(allowed) = allowed else {
        return (response, Some(in_flight));
    };
    let mut destinations = call.rule.destinations();
    let Some(place) = destinations.position(|backend| std::ptr::eq(backend, call.backend)) else {
        return (response, Some(in_flight));
    };
    let mut request = call.request.copy(Source::Empty);
    request.timeout = call.request.timeout;
    let context = Context {
        worker: Rc::clone(call.worker),
        rule: Arc::clone(call.rule),
        place,
        request,
        api: model.api,
        body: model.body.clone(),
        started: exchange.started(),
        model: call.model.cloned(),
        last: served,
    };
    let wants_usage = model.wants_usage || model.adds_usage(inference);
    let kept = (policy.mode, policy.max_bytes);
    let transcript = Transcript::new(model.api, allowed, kept, model.max_tokens, wants_usage);
    let most = policy.max_attempts;
    let mut response = response.map(|leg| {
        let context = Box::new(context);
        let stream = ContinuedStream::new(leg, in_flight, transcript, context, most, breaks);
        Source::Continued(Box::new(stream))
    });
    // It gets longer or shorter.
    response.headers_mut().remove(CONTENT_LENGTH);
    (stream::watch_whole(inference, model, response), None)
}

/// All that is needed to send another request after the first one is gone.
struct Context {
    worker: Rc<Worker>,
    rule: Arc<Rule>,
    /// Of the backend, among all that the rule leads to.
    place: usize,
    /// The client's, without its body.
    request: Box<Arrived>,
    api: Api,
    /// What the client sent.
    body: Bytes,
    started: Instant,
    /// The model that a fallback asks for.
    model: Option<FallbackModel>,
    /// Who served it last.
    last: Arc<Endpoint>,
}

impl Context {
    /// Sends the request for the rest. `number`: of the request, the first one for the rest is 1.
    async fn resume(
        &mut self,
        (api, body): (Api, Bytes),
        number: u32,
    ) -> Result<(Source, InFlight), ContinuationResult> {
        let request = self.request(api, body, number).await?;
        // What is configured now: a stream may be older than all endpoints there are.
        let rule = self.current_rule();
        let Some(backend) = backend(&rule, self.place) else {
            return Err(ContinuationResult::NoEndpoint);
        };
        let affinity = Affinity::of(&rule, &request.head.headers);
        let asked = Instant::now();
        let call = Call {
            worker: &self.worker,
            rule: &rule,
            backend,
            request: &request,
            affinity: &affinity,
            since: Some(asked),
            model: self.model.as_ref(),
        };
        let mut tried = vec![Arc::clone(&self.last)];
        if !call.has_others(&tried) {
            return Err(ContinuationResult::NoEndpoint);
        }
        let limits = backend.upstream.limits.as_deref();
        let permit = limits.map(|limits| limits.enter(Counted::Retries).ok_or(()));
        let _permit = permit.transpose().map_err(|()| ContinuationResult::Limit)?;
        if !rule.budget.try_withdraw() {
            return Err(ContinuationResult::NoBudget);
        }
        let deadline = call::head_deadline(&rule, &request, self.started, asked);
        let sent = {
            let trying = pin!(try_endpoints(&call, self.started, deadline, &mut tried));
            Deadline::limit(deadline, trying).await
        };
        let (endpoint, source, in_flight) = sent.map_err(|_| ContinuationResult::Failed)??;
        self.last = endpoint;
        Ok((source, in_flight))
    }

    async fn request(
        &self,
        api: Api,
        body: Bytes,
        number: u32,
    ) -> Result<Box<Arrived>, ContinuationResult> {
        let model = continuation::read(api, &body).ok_or(ContinuationResult::Unread)?;
        let length = body.len();
        let mut request = self.request.copy(Source::whole(body));
        request.timeout = self.request.timeout;
        if api != self.api {
            let uri = of_completions(&request.head.uri).ok_or(ContinuationResult::Rejected)?;
            request.head.uri = uri;
        }
        let headers = &mut request.head.headers;
        headers.insert(CONTENT_LENGTH, length.into());
        headers.insert(headers::CONTINUATION, HeaderValue::from(number));
        request.model = Some(Box::new(model));
        // It is here: this only says so.
        std::future::poll_fn(|cx| request.body.poll_fill(length, cx)).await;
        Ok(request)
    }

    /// The rule as it is now, where it is still the same one.
    fn current_rule(&self) -> Arc<Rule> {
        let same = || {
            let snapshot = self.worker.shared.snapshot.load();
            let entry = snapshot.hosts.get(&*known_as(&self.request.authority))?;
            let HostEntry::Service { service, .. } = entry else {
                return None;
            };
            let is_same = |rule: &&Arc<Rule>| {
                Arc::ptr_eq(&rule.turns, &self.rule.turns) && rule.route == self.rule.route
            };
            let rule = service.rules.iter().find(is_same)?;
            let (new, old) = (backend(rule, self.place)?, backend(&self.rule, self.place)?);
            let same = new.upstream.service == old.upstream.service && new.port == old.port;
            same.then(|| Arc::clone(rule))
        };
        same().unwrap_or_else(|| Arc::clone(&self.rule))
    }
}

fn backend(rule: &Rule, place: usize) -> Option<&Backend> {
    rule.destinations().nth(place)
}

/// The path of completions beside that of chats.
fn of_completions(uri: &Uri) -> Option<Uri> {
    let path = uri.path().trim_end_matches('/');
    let base = path.strip_suffix("/chat/completions")?;
    let query = uri.query().map(|query| format!("?{query}"));
    let path = format!("{base}/completions{}", query.unwrap_or_default());
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    Uri::from_parts(parts).ok()
}

/// Asks one endpoint, and others where it did not take the request.
async fn try_endpoints(
    call: &Call<'_>,
    started: Instant,
    deadline: Option<Deadline>,
    tried: &mut Vec<Arc<Endpoint>>,
) -> Result<(Arc<Endpoint>, Source, InFlight), ContinuationResult> {
    let end = call::request_deadline(call.rule, call.request, started);
    for _ in 0..MOST_ENDPOINTS {
        if !call.has_others(tried) {
            break;
        }
        let picked = call.pick(tried).filter(|endpoint| {
            !call.worker.is_own_outbound(endpoint.address) && !call.request.would_lose_tls(endpoint)
        });
        let Some(endpoint) = picked else { break };
        tried.push(Arc::clone(&endpoint));
        let in_flight = call.begin_since(&endpoint, started);
        // A probation is for a request that can still fail.
        let Some(mut in_flight) = in_flight.filter(|in_flight| !in_flight.is_late()) else {
            continue;
        };
        let begun = Instant::now();
        let told = end.filter(|_| endpoint.mtls).map(|end| end.at);
        let sent = attempt::try_one(call, &endpoint, None, told).await;
        let result = match (&call.request.model, sent) {
            (Some(model), Ok(response)) => {
                let until = deadline.map(|deadline| deadline.at);
                first_token(call, model, response, begun, until).await
            }
            (_, sent) => sent,
        };
        let response = match result {
            Ok(response) => response,
            Err(failure) => {
                if failure.reason != Reason::CircuitOpen {
                    in_flight.failed();
                    verdict::failure(&failure, &mut in_flight);
                }
                let is_unheard = failure.unprocessed
                    || matches!(
                        failure.reason,
                        Reason::ConnectFailed | Reason::ConnectTimeout
                    );
                if is_unheard {
                    continue;
                }
                return Err(ContinuationResult::Failed);
            }
        };
        verdict::response(&response, endpoint.mtls, &mut in_flight);
        if !(endpoint.mtls && admit::is_rate_limited(response.headers())) {
            send::judge(&response, &mut in_flight);
        }
        let status = response.status();
        if endpoint.mtls && send::is_unprocessed(&response) {
            continue;
        }
        let model = response.body().model();
        if status == StatusCode::OK
            && let Some(stream) = model
            && stream.report().is_stream
        {
            if stream.is_lost() {
                in_flight.failed();
                in_flight.fault(Fault::Gateway);
                return Err(ContinuationResult::Failed);
            }
            return Ok((endpoint, response.into_body(), in_flight));
        }
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(ContinuationResult::Failed);
        }
        return Err(ContinuationResult::Rejected);
    }
    Err(ContinuationResult::NoEndpoint)
}
