//! One request from its head to its end, wherever that is: counted once, logged once.

mod log;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use tokio::time::Instant;

use super::body::Source;
use super::clock::Deadline;
use super::errors::{self, Style};
use super::headers;
use super::replay::Replay;
use super::response::ResponseBody;
use super::server::Client;
use crate::admission::Held;
use crate::admission::tokens::Meter;
use crate::balance::InFlight;
use crate::error::Reason;
use crate::inference::continuation::Breaks;
use crate::inference::{Account, Served};
use crate::outbound::verdict;
use crate::policy::AccessLogMode;
use crate::resilience::outlier::Fault;
use crate::telemetry::Outcome;
use crate::telemetry::metrics::RequestMetrics;
use crate::telemetry::trace::Trace;
use log::Log;

/// Everything that is known of a request. It ends when this is dropped: with the response's body, or with the future that
/// was to answer it.
pub(crate) struct Exchange {
    client: Rc<Client>,
    metrics: Option<Arc<RequestMetrics>>,
    started: Instant,
    first_byte: Option<Duration>,
    status: Option<StatusCode>,
    reason: Option<Reason>,
    request: Replay,
    response_bytes: u64,
    /// How often it was sent.
    attempts: u32,
    in_flight: Option<InFlight>,
    /// What its limits gave it. `None`: there are none.
    held: Option<Held>,
    log: Option<Box<Log>>,
    log_mode: Option<AccessLogMode>,
    head: bool,
    style: Style,
    /// The response was sent to its end.
    complete: bool,
    /// Bytes from the client on an upgraded connection.
    upgraded_bytes: Option<u64>,
    /// Where it is for a model.
    model: Option<Box<Account>>,
    /// `None`: it is not sampled.
    trace: Option<Rc<Trace>>,
    /// It is between sidecars, and no request of anybody's.
    unheard: bool,
}

impl Exchange {
    pub(crate) fn begin(
        client: &Rc<Client>,
        method: &Method,
        style: Style,
        request: Replay,
    ) -> Box<Exchange> {
        client.begin();
        Box::new(Exchange {
            client: Rc::clone(client),
            metrics: None,
            started: Instant::now(),
            first_byte: None,
            status: None,
            reason: None,
            request,
            response_bytes: 0,
            attempts: 0,
            in_flight: None,
            held: None,
            log: None,
            log_mode: None,
            head: *method == Method::HEAD,
            style,
            complete: false,
            upgraded_bytes: None,
            model: None,
            trace: None,
            unheard: false,
        })
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    pub(crate) fn set_style(&mut self, style: Style) {
        self.style = style;
    }

    /// Which kind of request it is, once that is known.
    pub(crate) fn set_metrics(&mut self, metrics: &Arc<RequestMetrics>) {
        metrics.begin();
        self.metrics = Some(Arc::clone(metrics));
    }

    pub(crate) fn style(&self) -> Style {
        self.style
    }

    /// How often the request was sent.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// A fallback takes the request over. `metrics`: the kind that it is from now on.
    pub(crate) fn fall_back(&mut self, name: &Arc<str>, metrics: Option<&Arc<RequestMetrics>>) {
        if let Some(metrics) = metrics {
            if let Some(before) = &self.metrics {
                before.hand_over();
            }
            self.set_metrics(metrics);
        }
        if let Some(log) = &mut self.log {
            log.fallback = Some(Arc::clone(name));
        }
    }

    /// What a fallback asks a model for.
    pub(crate) fn set_served(&mut self, served: impl FnOnce() -> Served) {
        if let Some(account) = &mut self.model {
            account.served = Some(Box::new(served()));
        }
    }

    /// Keeps what limits gave the request, until its end.
    pub(crate) fn hold(&mut self, held: Held) {
        self.held = Some(held);
    }

    /// Gives back what limits gave: it goes on elsewhere.
    pub(crate) fn release(&mut self) {
        self.held = None;
    }

    /// It is for a model.
    pub(crate) fn set_model(&mut self, account: Account) {
        if let Some(trace) = &self.trace {
            trace.set_model(account.api, &account.inference);
        }
        self.model = Some(Box::new(account));
    }

    /// It is sampled, or not. To be said before anything is logged.
    pub(super) fn set_trace(&mut self, trace: Option<Rc<Trace>>) {
        self.trace = trace;
    }

    /// It is between sidecars: neither counted nor logged.
    pub(crate) fn unheard(&mut self) {
        if let Some(metrics) = self.metrics.take() {
            metrics.hand_over();
        }
        self.log = None;
        self.trace = None;
        self.unheard = true;
    }

    /// What it has reserved of budgets of tokens. It is for a model.
    pub(crate) fn set_meter(&mut self, meter: Rc<Meter>) {
        if let Some(account) = &mut self.model {
            account.meter = Some(meter);
        }
    }

    pub(crate) fn meter(&self) -> Option<&Rc<Meter>> {
        self.model.as_ref()?.meter.as_ref()
    }

    /// The application gets it from now on, and may use tokens for it.
    pub(crate) fn sends_tokens(&self) {
        if let Some(meter) = self.meter() {
            meter.send();
        }
    }

    /// Its stream is continued where it breaks, or would be.
    pub(crate) fn set_breaks(&mut self, breaks: &Rc<Breaks>) {
        if let Some(account) = &mut self.model {
            account.breaks = Some(Rc::clone(breaks));
        }
    }

    /// Whether the client's side broke.
    pub(crate) fn is_client_gone(&self) -> bool {
        self.request.is_broken()
    }

    /// Ends with an answer of our own.
    pub(crate) fn fail(self: Box<Self>, reason: Reason, detail: &str) -> Response<ResponseBody> {
        self.fail_with(reason, detail, |_| {})
    }

    /// Ends with an answer of our own, and further headers.
    pub(crate) fn fail_with(
        self: Box<Self>,
        reason: Reason,
        detail: &str,
        further: impl FnOnce(&mut HeaderMap),
    ) -> Response<ResponseBody> {
        let reason = if self.is_client_gone() {
            Reason::ClientGone
        } else {
            reason
        };
        let mut response = errors::reply(reason, self.style, detail);
        further(response.headers_mut());
        self.reply(response, Some(reason))
    }

    /// Ends because there is too much to do: so long the request would have had to wait.
    pub(crate) fn fail_busy(
        self: Box<Self>,
        detail: &str,
        wait: Duration,
    ) -> Response<ResponseBody> {
        if self.is_client_gone() {
            return self.fail(Reason::ClientGone, detail);
        }
        let response = errors::busy(self.style, detail, wait);
        self.reply(response, Some(Reason::Overloaded))
    }

    /// Ends with an answer of our own, with or without a reason.
    pub(crate) fn reply(
        mut self: Box<Self>,
        response: Response<Bytes>,
        reason: Option<Reason>,
    ) -> Response<ResponseBody> {
        // Nothing is under way for it any more.
        self.held = None;
        self.reason = reason;
        self.status = Some(if reason == Some(Reason::ClientGone) {
            Reason::ClientGone.status()
        } else {
            response.status()
        });
        let (head, mut body) = response.into_parts();
        if self.head {
            body = Bytes::new();
        }
        Response::from_parts(head, ResponseBody::whole(body, self))
    }

    /// Takes over the reason that another sidecar gave for its answer.
    pub(crate) fn note_reason(&mut self, answer: &HeaderMap) {
        if let Some(word) = answer.get(headers::REASON) {
            self.reason = Reason::ALL
                .into_iter()
                .find(|reason| word == reason.as_str());
        }
    }

    /// Ends with an upstream's answer.
    pub(crate) fn answer(
        mut self: Box<Self>,
        response: Response<Source>,
        in_flight: Option<InFlight>,
        idle: Option<Duration>,
        deadline: Option<Deadline>,
    ) -> Response<ResponseBody> {
        self.status = Some(response.status());
        self.first_byte = Some(self.started.elapsed());
        self.in_flight = in_flight;
        if let Some(Held::Served(served)) = &mut self.held
            // An answer that was not worked for says nothing of how long work takes.
            && !response.status().is_server_error()
        {
            served.first_byte();
        }
        self.client.set_patience(idle);
        if let Some(account) = &mut self.model {
            account.report = response
                .body()
                .model()
                .map(|stream| Rc::clone(stream.report()));
        }
        response.map(|source| ResponseBody::upstream(source, self, idle, deadline))
    }

    /// Bytes of the answer are here. Whether its first token is among them, or what came before: then there is no need to say it
    /// again. Of an answer whose tokens nobody reads it is the first byte.
    pub(super) fn has_begun(&mut self) -> bool {
        let Some(in_flight) = &mut self.in_flight else {
            return true;
        };
        if in_flight.is_prompt() {
            let account = self.model.as_ref();
            let report = account.and_then(|account| account.report.as_ref());
            if report.is_some_and(|report| !report.has_begun()) {
                return false;
            }
            in_flight.first_token();
        }
        true
    }

    /// An upgrade was accepted: the client got the upstream's head, and bytes follow.
    pub(crate) fn upgraded(&mut self, status: StatusCode, in_flight: Option<InFlight>) {
        self.status = Some(status);
        self.first_byte = Some(self.started.elapsed());
        self.in_flight = in_flight;
    }

    /// The upgraded connection has ended. To be dropped then.
    pub(crate) fn end_upgraded(&mut self, up: u64, down: u64, reason: Option<Reason>) {
        self.upgraded_bytes = Some(up);
        self.response_bytes = down;
        self.reason = reason;
        self.complete = true;
    }
}

impl Exchange {
    /// Whose request it is.
    pub(super) fn client(&self) -> Rc<Client> {
        Rc::clone(&self.client)
    }

    /// How many bytes of the response's body were on their way to the client when that ended.
    pub(super) fn sent(&mut self, bytes: u64) {
        self.response_bytes = bytes;
    }

    /// Bytes of the request's body so far.
    pub(super) fn request_bytes(&self) -> u64 {
        self.request.bytes()
    }

    /// The response has come to its end.
    pub(super) fn completed(&mut self) {
        self.complete = true;
        if self.meter().is_some_and(|meter| meter.is_stopped()) {
            // Ended as it should be: the model is not to blame.
            self.reason = Some(Reason::TokenBudget);
        }
        // What a stream of tokens says of itself counts, not that its bytes came to an end.
        if let Some(flaw) = self.model.as_ref().and_then(|account| account.flaw())
            && self.reason.is_none()
        {
            self.reason = Some(flaw);
            if let Some(in_flight) = &mut self.in_flight {
                in_flight.failed();
                in_flight.fault(Fault::Gateway);
            }
            return;
        }
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.succeeded();
        }
    }

    /// The response ended before its end.
    pub(super) fn broke(&mut self, reason: Reason) {
        let reason = if self.is_client_gone() {
            Reason::ClientGone
        } else {
            reason
        };
        self.reason = Some(reason);
        if reason != Reason::ClientGone
            && let Some(in_flight) = &mut self.in_flight
        {
            in_flight.failed();
            match reason {
                Reason::UpstreamTruncated
                | Reason::StreamIdleTimeout
                | Reason::FirstByteTimeout
                | Reason::FirstTokenTimeout
                | Reason::TokenIdleTimeout => {
                    in_flight.fault(Fault::Gateway);
                }
                // Cut because its time was over: that says nothing of who was asked.
                _ => in_flight.ignore(),
            }
        }
    }

    /// The response's trailers: where gRPC says how it went.
    pub(super) fn trailers(&mut self, trailers: &HeaderMap) {
        if let Some(in_flight) = &mut self.in_flight {
            verdict::trailers(trailers, in_flight);
        }
    }

    /// The response is broken off on purpose: nothing is wrong with the upstream.
    pub(super) fn faulted(&mut self, reason: Reason) {
        self.reason = Some(reason);
    }

    /// The client took nothing for too long.
    pub(super) fn not_taken(&mut self) {
        self.reason = Some(Reason::StreamIdleTimeout);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.complete
            && self.reason.is_none()
            && self
                .model
                .as_ref()
                .is_some_and(|account| account.is_told_all())
        {
            self.completed();
        }
        if !self.complete && self.reason.is_none() {
            self.reason = Some(self.client.cut_reason().unwrap_or(Reason::ClientGone));
        }
        if self.status.is_none() && self.reason == Some(Reason::ClientGone) {
            self.status = Some(Reason::ClientGone.status());
        }
        if let (Some(Held::Served(served)), Some(account)) = (&self.held, &self.model)
            && let Some((first_token, uncached)) = account.first_token()
        {
            served.answered(first_token, uncached);
        }
        let outcome = Outcome {
            status: self.status,
            reason: self.reason,
            duration: self.started.elapsed(),
            first_byte: self.first_byte,
            request_bytes: self.upgraded_bytes.unwrap_or_else(|| self.request.bytes()),
            response_bytes: self.response_bytes,
        };
        match &self.metrics {
            Some(metrics) => metrics.finish(&outcome),
            None if self.unheard => {}
            None => {
                let metrics = self.client.unknown_kind();
                metrics.begin();
                metrics.finish(&outcome);
            }
        }
        let model = self.model.take().map(|account| {
            let result = account.result(&outcome, self.started);
            account.settle(&outcome);
            if let Some(metrics) = &self.metrics {
                let models = &self.client.worker.shared.metrics.models;
                models.ended(metrics, &account, &result);
            }
            let served = account.served.and_then(|served| served.model);
            Box::new((account.name, served, result))
        });
        if let Some(log) = self.log.take() {
            self.record(*log, outcome, model);
        }
        if !self.request.is_sent() && !self.request.is_broken() {
            self.client.leave_unread();
        }
        self.client.end();
    }
}
