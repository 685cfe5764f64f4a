//! Whether a request that failed is sent again.

use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, Method, Response};

use crate::error::Reason;
use crate::http::body::Source;
use crate::http::headers;
use crate::http::replay::Replay;
use crate::policy::{Retry, Rule};
use crate::pool::Failure;
use crate::runtime::Worker;
use crate::telemetry::metrics::{RequestMetrics, RetryCause, RetryRefusal};

/// How often a request that was certainly not processed is sent again, whatever the policy says. With a handful of endpoints
/// gone at the same time one of three others is most likely there; more would only make a dead service slow to say so.
const SAFE_RETRIES: u32 = 3;

/// Bytes of a body that are kept for a replay where the route has no retries of its own: a refused connection must not
/// surface because the request had a body. The default of routes that have.
const DEFAULT_KEPT: usize = 64 * 1024;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Send it again after a pause.
    Again(Duration),
    /// It failed for good, or its response is passed on.
    Stop,
}

/// The retries of one request.
pub(super) struct Retries<'a> {
    worker: &'a Worker,
    rule: &'a Rule,
    metrics: &'a RequestMetrics,
    method: &'a Method,
    safe: u32,
    by_policy: u32,
    /// Why a failure that would be retried was not.
    pub(super) refused: Option<RetryRefusal>,
}

/// Bytes of a body to keep for requests of this rule.
pub(super) fn kept_bytes(rule: &Rule) -> usize {
    rule.retry
        .as_ref()
        .map_or(DEFAULT_KEPT, |retry| retry.max_body_bytes)
}

impl<'a> Retries<'a> {
    pub(super) fn new(
        worker: &'a Worker,
        rule: &'a Rule,
        metrics: &'a RequestMetrics,
        method: &'a Method,
    ) -> Retries<'a> {
        if rule.retry.is_some() {
            rule.budget.deposit();
        }
        Retries {
            worker,
            rule,
            metrics,
            method,
            safe: 0,
            by_policy: 0,
            refused: None,
        }
    }

    /// After a try without a response. `others`: there are endpoints that were not tried.
    pub(super) fn after_failure(&mut self, failure: Failure, body: &Replay, others: bool) -> Next {
        if failure.reason == Reason::NotReady {
            return Next::Stop;
        }
        let cause = match failure.reason {
            Reason::ConnectFailed | Reason::ConnectTimeout => RetryCause::Connect,
            Reason::UpstreamUntrusted => RetryCause::Untrusted,
            Reason::PerTryTimeout => RetryCause::Timeout,
            _ => RetryCause::Reset,
        };
        // The same endpoint would refuse the connection again; a stream that it refused it may take on another connection.
        let elsewhere = others || cause == RetryCause::Reset;
        let unfinished = failure.stale && (!body.is_sent() || self.method.is_idempotent());
        if (failure.unprocessed || unfinished) && elsewhere {
            return self.safely(cause, body);
        }
        let wanted = self.rule.retry.as_ref().filter(|retry| match cause {
            RetryCause::Timeout => retry.on_timeout,
            RetryCause::Reset => retry.on_reset,
            // All there is has refused: it may be back after a pause.
            _ => true,
        });
        match wanted {
            Some(retry) => self.by_policy(retry, cause, body, failure.unprocessed, Duration::ZERO),
            None => Next::Stop,
        }
    }

    /// After a response. `unprocessed`: made by the peer's sidecar, whose application has not seen the request.
    pub(super) fn after_response(
        &mut self,
        response: &Response<Source>,
        unprocessed: bool,
        body: &Replay,
        others: bool,
    ) -> Next {
        if unprocessed && others {
            return self.safely(RetryCause::Connect, body);
        }
        let Some(retry) = &self.rule.retry else {
            return Next::Stop;
        };
        let cause = if retry.statuses.contains(&response.status()) {
            RetryCause::Status
        } else if !retry.grpc_codes.is_empty()
            && grpc_status(response.headers()).is_some_and(|code| retry.grpc_codes.contains(&code))
        {
            RetryCause::GrpcStatus
        } else {
            return Next::Stop;
        };
        let asked = retry_after(response.headers()).unwrap_or(Duration::ZERO);
        if asked > retry.backoff.max {
            // It does not want to be asked again so soon, and the client may not want to wait so long.
            return Next::Stop;
        }
        self.by_policy(retry, cause, body, unprocessed, asked)
    }

    fn safely(&mut self, cause: RetryCause, body: &Replay) -> Next {
        if self.safe >= SAFE_RETRIES {
            return self.refuse(RetryRefusal::Attempts);
        }
        if !body.can_repeat() {
            return self.refuse(RetryRefusal::BodyTooLarge);
        }
        self.safe += 1;
        self.metrics.retries.made(cause);
        Next::Again(Duration::ZERO)
    }

    fn by_policy(
        &mut self,
        retry: &Retry,
        cause: RetryCause,
        body: &Replay,
        unprocessed: bool,
        at_least: Duration,
    ) -> Next {
        if self.by_policy >= retry.max_retries {
            return self.refuse(RetryRefusal::Attempts);
        }
        if !unprocessed && !retry.methods.contains(self.method) {
            return self.refuse(RetryRefusal::Method);
        }
        if !body.can_repeat() {
            return self.refuse(RetryRefusal::BodyTooLarge);
        }
        if !self.rule.budget.try_withdraw() {
            return self.refuse(RetryRefusal::Budget);
        }
        self.by_policy += 1;
        self.metrics.retries.made(cause);
        let mut rng = self.worker.rng.borrow_mut();
        let pause = retry.backoff.delay(self.by_policy, &mut *rng);
        Next::Again(pause.max(at_least))
    }

    fn refuse(&mut self, why: RetryRefusal) -> Next {
        self.metrics.retries.refused(why);
        self.refused = Some(why);
        Next::Stop
    }
}

/// The status of a trailers-only response.
fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    if !headers::is_grpc(headers) {
        return None;
    }
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// When the server wants to be asked again: seconds, or a date (RFC 9110, section 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(
        date.duration_since(SystemTime::now())
            .unwrap_or(Duration::ZERO),
    )
}
