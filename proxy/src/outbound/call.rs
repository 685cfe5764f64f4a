//! A request and where it goes: what its rule says of it, and what is told where it fails.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;

use super::affinity::Affinity;
use super::outside;
use crate::admission::Limit;
use crate::balance::{Asked, Endpoint, EndpointSet, InFlight};
use crate::error::Reason;
use crate::http::arrival::Arrived;
use crate::http::clock::Deadline;
use crate::http::exchange::Exchange;
use crate::http::headers;
use crate::inference::continuation::Allowed;
use crate::inference::{Api, Edited, NotReplaced};
use crate::policy::{Backend, Continuation, FallbackModel, Rule, Upstream};
use crate::runtime::Worker;
use crate::telemetry::metrics::ContinuationResult;

/// A request on its way to a backend.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) rule: &'a Arc<Rule>,
    pub(super) backend: &'a Backend,
    pub(super) request: &'a Arrived,
    pub(super) affinity: &'a Affinity,
    /// Since when this backend is asked. `None`: since the request came.
    pub(super) since: Option<Instant>,
    /// The model that a fallback asks for. `None`: the one that the request names.
    pub(super) model: Option<&'a FallbackModel>,
}

impl Call<'_> {
    /// The request clock: the policy's, or the caller's if that is shorter.
    pub(super) fn request_deadline(&self, exchange: &Exchange) -> Option<Deadline> {
        request_deadline(self.rule, self.request, exchange.started())
    }

    /// Until the first byte of the response's body must be there, over all tries.
    pub(super) fn first_byte_deadline(&self, exchange: &Exchange) -> Option<Deadline> {
        let started = exchange.started();
        let asked = self.since.unwrap_or(started);
        first_byte_deadline(self.rule, self.request, started, asked)
    }

    /// Until the response's head must be there, over all tries.
    pub(super) fn head_deadline(&self, exchange: &Exchange) -> Option<Deadline> {
        let started = exchange.started();
        let asked = self.since.unwrap_or(started);
        head_deadline(self.rule, self.request, started, asked)
    }

    /// Until the response's last byte must be there, now that its head is.
    pub(super) fn body_deadline(&self, exchange: &Exchange) -> Option<Deadline> {
        let request = self.request_deadline(exchange);
        let Some(lifetime) = self.rule.timeouts.stream_lifetime else {
            return request;
        };
        let reason = Reason::StreamLifetimeTimeout;
        Deadline::earlier(
            request,
            Deadline::after(Instant::now(), Some(lifetime), reason),
        )
    }

    /// When the caller stops waiting, for those who are told: sidecars, gRPC servers, and whoever the caller itself told.
    pub(super) fn end_to_tell(&self, exchange: &Exchange, endpoint: &Endpoint) -> Option<Instant> {
        let deadline = self.request_deadline(exchange)?;
        let request = self.request;
        (endpoint.mtls || request.grpc || request.timeout.is_some()).then_some(deadline.at)
    }

    /// Whether the request clock is the policy's: a caller's own may be shorter than any endpoint could keep.
    pub(super) fn is_policys_time(&self) -> bool {
        let caller = self.request.timeout;
        let policy = self.rule.timeouts.request;
        policy.is_some_and(|policy| caller.is_none_or(|caller| policy <= caller))
    }

    /// The endpoints that serve what it asks for.
    pub(super) fn endpoints(&self) -> &Arc<EndpointSet> {
        let all = &self.backend.endpoints;
        let by_model = &self.backend.model_endpoints;
        if by_model.is_empty() {
            return all;
        }
        let of_model = self.listed_model().and_then(|index| by_model.get(index));
        of_model.unwrap_or(all)
    }

    /// How long a try may take to a stream's first token.
    pub(super) fn first_token(&self) -> Option<Duration> {
        let inference = self.backend.upstream.inference.as_ref()?;
        let request = self.request.model.as_ref()?;
        request.stream.then_some(inference.streams.first_token)?
    }

    /// The place of the model among those that the backend lists.
    fn listed_model(&self) -> Option<usize> {
        let inference = self.backend.upstream.inference.as_ref()?;
        inference.find(self.asked_model()?)
    }

    /// The model that is asked for.
    fn asked_model(&self) -> Option<&str> {
        match self.model {
            Some(model) => Some(&model.name),
            None => self.request.model.as_ref()?.name(),
        }
    }

    /// Whether it asks for the same at the same place.
    pub(super) fn is_same(&self, other: &Call<'_>) -> bool {
        let (one, two) = (self.backend, other.backend);
        if one.port != two.port
            || !Arc::ptr_eq(&one.upstream, &two.upstream)
            || !Arc::ptr_eq(&one.endpoints, &two.endpoints)
        {
            return false;
        }
        match (self.listed_model(), other.listed_model()) {
            (None, None) => self.asked_model() == other.asked_model(),
            (one, two) => one == two,
        }
    }

    /// Whether the backend refuses the model that is asked for. What could not be read is not taken for one that it knows.
    pub(super) fn is_unknown_model(&self) -> bool {
        let Some(inference) = &self.backend.upstream.inference else {
            return false;
        };
        let Some(request) = &self.request.model else {
            return false;
        };
        inference.refuse_unknown && request.api != Api::ListModels && self.listed_model().is_none()
    }

    /// The body as the backend gets it, where that is not what the client sent.
    pub(super) fn edited(&self) -> Option<Edited> {
        let inference = self.backend.upstream.inference.as_deref();
        let request = self.request.model.as_ref()?;
        let mut edits = match self.model {
            None => request.edits(inference?),
            Some(model) => request.edits_to(&model.name, inference).ok()?,
        };
        if let Some((policy, Ok(allowed))) = self.continuation()
            && allowed.asks_for_ids(policy.mode)
            && !self.is_rest()
        {
            edits.get_or_insert_default().ask_for_ids(request);
        }
        let edits = edits?;
        Edited::new(self.request, request, &edits)
    }

    /// Whether the request can ask for the model that it is to ask for.
    pub(super) fn can_ask(&self) -> bool {
        let Some(model) = self.model else {
            return true;
        };
        let inference = self.backend.upstream.inference.as_deref();
        let request = self.request.model.as_ref();
        let edits = request.ok_or(NotReplaced);
        let edits = edits.and_then(|request| request.edits_to(&model.name, inference));
        // What is replaced must be here as a whole.
        edits.is_ok_and(|edits| edits.is_none() || self.request.body.whole().is_some())
    }

    /// What the rule says of a stream that breaks, and whether the request allows that. `None`: a break is a break.
    pub(super) fn continuation(
        &self,
    ) -> Option<(&Continuation, Result<Allowed, ContinuationResult>)> {
        let policy = self.rule.recovery.continuation.as_deref()?;
        self.backend.upstream.inference.as_ref()?;
        let allowed = self.request.model.as_ref()?.continuable()?;
        Some((policy, allowed))
    }

    /// Whether it asks for the rest of a stream that broke.
    pub(super) fn is_rest(&self) -> bool {
        self.rule.recovery.continuation.is_some()
            && self
                .request
                .head
                .headers
                .contains_key(headers::CONTINUATION)
    }

    /// Whether its stream is one part of what the client gets, which is looked at as a whole.
    pub(super) fn is_part(&self) -> bool {
        self.is_rest() || matches!(self.continuation(), Some((_, Ok(_))))
    }

    /// An endpoint for the next try.
    pub(super) fn pick(&self, tried: &[Arc<Endpoint>]) -> Option<Arc<Endpoint>> {
        let endpoints = self.endpoints();
        if let Some(same) = self.affinity.same(endpoints, tried) {
            return Some(same);
        }
        let key = self.affinity.key(endpoints, self.worker, self.request);
        let mut rng = self.worker.rng.borrow_mut();
        if !endpoints.wants_prompt() {
            return endpoints.pick_by(key, &mut *rng, tried);
        }
        let of_fallback;
        let prompt = match self.model {
            None => self.affinity.prompt(self.request),
            // Its cache knows the prompt under its own name.
            Some(model) => {
                let request = self.request.model.as_ref();
                of_fallback = request.and_then(|request| request.prompt_for(&model.name));
                of_fallback.as_ref()
            }
        };
        let picked = endpoints.pick_for(&Asked { key, prompt }, &mut *rng, tried)?;
        self.affinity.set_uncached(picked.uncached);
        Some(picked.endpoint)
    }

    /// Tells the client by what it is known from now on. A fallback's answer leaves its session where it is.
    pub(super) fn finish(&self, headers: &mut HeaderMap) {
        if self.since.is_none() {
            let endpoints = self.endpoints();
            self.affinity.finish(self.rule, endpoints, headers);
        }
    }

    /// Begins a try at an endpoint. `None`: it has as many requests as it may have.
    pub(super) fn begin(&self, endpoint: &Arc<Endpoint>, exchange: &Exchange) -> Option<InFlight> {
        self.begin_since(endpoint, exchange.started())
    }

    /// As [`begin`](Self::begin), for a request that came at this moment.
    pub(super) fn begin_since(
        &self,
        endpoint: &Arc<Endpoint>,
        started: Instant,
    ) -> Option<InFlight> {
        let mut in_flight = endpoint.try_begin()?;
        if self.endpoints().wants_prompt() {
            in_flight.prompt(self.affinity.uncached(self.request));
        }
        // The policy's clocks: the caller's own may be shorter than any endpoint could keep.
        in_flight.answer_by(|| {
            let timeouts = &self.rule.timeouts;
            let since = self.since.unwrap_or(started);
            let heads = [timeouts.response_headers, timeouts.first_byte];
            let heads = heads.into_iter().flatten().min();
            let head = heads.and_then(|after| since.checked_add(after));
            let request = timeouts
                .request
                .and_then(|after| started.checked_add(after));
            head.into_iter().chain(request).min()
        });
        Some(in_flight)
    }

    /// Whether there is an endpoint that was not tried and would be chosen.
    pub(super) fn has_others(&self, tried: &[Arc<Endpoint>]) -> bool {
        self.endpoints().has_untried(tried)
    }

    /// Why there was no endpoint for a try.
    pub(super) fn nothing_to_pick(&self) -> Reason {
        if self.endpoints().is_full() {
            if let Some(limits) = &self.backend.upstream.limits {
                limits.refusals.count(Limit::EndpointRequests);
            }
            Reason::CircuitOpen
        } else {
            let upstream = &self.backend.upstream;
            upstream.why_none().unwrap_or(Reason::NoEndpoints)
        }
    }

    /// What the endpoint's server is told of the request, where it is outside the mesh.
    pub(super) fn outside<'e>(&'e self, endpoint: &'e Endpoint) -> Option<outside::To<'e>> {
        outside::To::of(endpoint, &self.backend.upstream.service)
    }

    pub(super) fn describe(&self, reason: Reason) -> String {
        let service = &self.backend.upstream.service;
        let port = self.backend.port;
        match reason {
            Reason::NoEndpoints => {
                format!("{service} port {port} has no endpoint that takes requests")
            }
            Reason::ConnectFailed => {
                format!("no endpoint of {service} port {port} accepted a connection")
            }
            Reason::ConnectTimeout => format!("no connection to {service} port {port} in time"),
            Reason::UpstreamUntrusted => {
                format!(
                    "the server reached as {service} port {port} did not prove that it may serve it"
                )
            }
            Reason::UpstreamReset => format!("{service} broke the connection before it answered"),
            Reason::RequestTimeout => format!("{service} did not answer within the request's time"),
            Reason::PerTryTimeout => format!("{service} did not answer within the time of a try"),
            Reason::ResponseHeadersTimeout => {
                format!("{service} did not begin to answer within the response-headers time")
            }
            Reason::FirstByteTimeout => {
                format!("{service} sent nothing of a body within the first-byte time")
            }
            Reason::NotReady => "the sidecar has no identity yet".into(),
            Reason::LoopDetected => {
                format!("an endpoint of {service} is one of this sidecar's own listeners")
            }
            Reason::ProtocolMismatch => format!(
                "the request asks for https, and {service} port {port} would get it in plaintext: use CONNECT, \
                 or give the service TLS"
            ),
            Reason::UnknownModel => match self.asked_model() {
                Some(name) => format!("{service} does not serve the model {name:?}"),
                None => format!(
                    "{service} serves certain models only, and the request names none that could be read"
                ),
            },
            Reason::FirstTokenTimeout => {
                format!("{service} sent no token within the first-token time")
            }
            Reason::DnsFailed => dns_failed(&self.backend.upstream),
            Reason::CircuitOpen => format!("{service} has as much under way as its limits allow"),
            Reason::Throttled => {
                format!("{service} refuses so many requests that this one was not sent")
            }
            Reason::ClientGone => "the client went away".into(),
            Reason::UpgradeFailed => format!("{service} did not complete the change of protocol"),
            other => format!("{service}: {}", other.as_str()),
        }
    }
}

pub(super) fn request_deadline(
    rule: &Rule,
    request: &Arrived,
    started: Instant,
) -> Option<Deadline> {
    let after = match (rule.timeouts.request, request.timeout) {
        (Some(policy), Some(caller)) => Some(policy.min(caller)),
        (policy, caller) => policy.or(caller),
    };
    Deadline::after(started, after, Reason::RequestTimeout)
}

fn first_byte_deadline(
    rule: &Rule,
    request: &Arrived,
    started: Instant,
    asked: Instant,
) -> Option<Deadline> {
    Deadline::earlier(
        request_deadline(rule, request, started),
        Deadline::after(asked, rule.timeouts.first_byte, Reason::FirstByteTimeout),
    )
}

/// Until there must be a response's head. `started`: when the request came; `asked`: since when its backend is asked.
pub(super) fn head_deadline(
    rule: &Rule,
    request: &Arrived,
    started: Instant,
    asked: Instant,
) -> Option<Deadline> {
    let reason = Reason::ResponseHeadersTimeout;
    Deadline::earlier(
        first_byte_deadline(rule, request, started, asked),
        Deadline::after(asked, rule.timeouts.response_headers, reason),
    )
}

/// Which names have no address, and why.
fn dns_failed(upstream: &Upstream) -> String {
    let troubles = upstream.names.iter().filter_map(|name| {
        let (trouble, _) = name.standing().trouble.clone()?;
        Some(format!("{}: {trouble}", name.host))
    });
    troubles.collect::<Vec<_>>().join("; ")
}
