//! What the access log and the traces are told of a request.

use std::sync::Arc;
use std::time::SystemTime;

use http::header::{HOST, HeaderName};
use http::request::Parts;

use super::super::headers;
use super::Exchange;
use crate::address::Address;
use crate::error::Reason;
use crate::identity::SpiffeId;
use crate::policy::AccessLogMode;
use crate::telemetry::access_log::{Entry, ModelEntry, RequestLine, Turn};
use crate::telemetry::{Direction, Outcome};

/// What only the access log and traces want to know.
pub(super) struct Log {
    pub(super) line: RequestLine,
    pub(super) protocol: &'static str,
    pub(super) service: Arc<str>,
    pub(super) route: Arc<str>,
    pub(super) upstream: Option<Address>,
    pub(super) peer: Option<SpiffeId>,
    pub(super) not_retried: Option<&'static str>,
    pub(super) filter: Option<&'static str>,
    pub(super) fallback: Option<Arc<str>>,
    pub(super) cache_salt: Option<&'static str>,
    pub(super) turn: Option<Turn>,
}

impl Exchange {
    /// Keeps what the access log needs, unless it is off and the request is not sampled. `mode`: the mesh's setting.
    pub(crate) fn log_request(
        &mut self,
        mode: Option<AccessLogMode>,
        protocol: &'static str,
        head: &Parts,
    ) {
        let worst = Outcome {
            reason: Some(Reason::UpstreamReset),
            ..Outcome::default()
        };
        self.log_mode = mode;
        let access_log = &self.client.worker.shared.access_log;
        if self.trace.is_some() || access_log.enabled(mode, &worst) {
            let nothing = &self.client.worker.nothing;
            self.log = Some(Box::new(Log {
                line: request_line(head),
                protocol,
                service: Arc::clone(nothing),
                route: Arc::clone(nothing),
                upstream: None,
                peer: None,
                not_retried: None,
                filter: None,
                fallback: None,
                cache_salt: None,
                turn: None,
            }));
        }
    }

    pub(crate) fn log_route(&mut self, service: &Arc<str>, route: &Arc<str>) {
        if let Some(log) = &mut self.log {
            log.service = Arc::clone(service);
            log.route = Arc::clone(route);
        }
    }

    pub(crate) fn log_service(&mut self, service: &Arc<str>) {
        if let Some(log) = &mut self.log {
            log.service = Arc::clone(service);
        }
    }

    pub(crate) fn log_peer(&mut self, peer: Option<&SpiffeId>) {
        if let Some(log) = &mut self.log {
            log.peer = peer.cloned();
        }
    }

    /// `peer`: who the upstream announced to be.
    pub(crate) fn log_attempt(&mut self, upstream: impl Into<Address>, peer: Option<&SpiffeId>) {
        self.attempts += 1;
        self.log_upstream(upstream, peer);
    }

    /// As [`log_attempt`](Self::log_attempt), for an attempt that was counted.
    pub(crate) fn log_upstream(&mut self, upstream: impl Into<Address>, peer: Option<&SpiffeId>) {
        if let Some(log) = &mut self.log {
            log.upstream = Some(upstream.into());
            if self.client.direction == Direction::Outbound {
                log.peer = peer.cloned();
            }
        }
    }

    pub(crate) fn log_not_retried(&mut self, why: &'static str) {
        if let Some(log) = &mut self.log {
            log.not_retried = Some(why);
        }
    }

    /// What was done about the salt of the model server's cache.
    pub(crate) fn log_cache_salt(&mut self, action: &'static str) {
        if let Some(log) = &mut self.log {
            log.cache_salt = Some(action);
        }
    }

    /// How its turn at the application came.
    pub(crate) fn log_turn(&mut self, turn: Turn) {
        if let Some(log) = &mut self.log {
            log.turn = Some(turn);
        }
    }

    /// What a filter of the route did with the request. The last one counts.
    pub(crate) fn log_filter(&mut self, action: &'static str) {
        if let Some(log) = &mut self.log {
            log.filter = Some(action);
        }
    }

    pub(super) fn record(&self, log: Log, outcome: Outcome, model: Option<Box<ModelEntry>>) {
        let shared = &self.client.worker.shared;
        let is_logged = shared.access_log.enabled(self.log_mode, &outcome);
        if !is_logged && self.trace.is_none() {
            return;
        }
        let now = SystemTime::now();
        let entry = Entry {
            time: now.checked_sub(outcome.duration).unwrap_or(now),
            direction: self.client.direction,
            request: Some(log.line),
            protocol: log.protocol,
            outcome,
            service: log.service,
            route: log.route,
            upstream: log.upstream,
            peer: log.peer,
            client: Some(self.client.address),
            attempts: self.attempts,
            not_retried: log.not_retried,
            filter: log.filter,
            fallback: log.fallback,
            cache_salt: log.cache_salt,
            turn: log.turn,
            model,
        };
        if let Some(trace) = &self.trace {
            shared.traces.record(trace.end(entry.clone(), self.started));
        }
        if is_logged {
            shared.access_log.record(entry);
        }
    }
}

/// What the client asked for. Clones share the bytes.
fn request_line(head: &Parts) -> RequestLine {
    let header = |name: &HeaderName| head.headers.get(name).cloned();
    RequestLine {
        method: head.method.clone(),
        uri: head.uri.clone(),
        host: match head.uri.authority() {
            Some(_) => None,
            None => header(&HOST),
        },
        request_id: header(&headers::REQUEST_ID),
        traceparent: header(&headers::TRACEPARENT),
    }
}
