//! Whether a request that failed is sent again.

use std::task::Poll;
use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, Method, Response};
use http_body::Body;
use tokio::time::Instant;

use super::call::Call;
use crate::admission::{Breaker, Counted, Permit};
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

/// How often a request that an endpoint refused because of the wait there goes to another one. Of three endpoints, chosen by their
/// load, one has room where any of many has; more would only bring what is full more work.
const MOST_MOVES: u32 = 2;

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
    body: &'a Replay,
    /// When there must be an answer.
    end: Option<Instant>,
    /// Limits of the service. `None`: it has none.
    limits: Option<&'a Breaker>,
    /// Among the service's retries, while one is under way.
    permit: Option<Permit>,
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
    /// `end`: when there must be an answer, retries included.
    pub(super) fn new(call: &Call<'a>, end: Option<Instant>) -> Retries<'a> {
        let rule = call.rule;
        // Once for each request, wherever it goes.
        let for_model = call.backend.upstream.inference.is_some();
        let pays = rule.retry.is_some() || rule.recovery.hedge.is_some() || for_model;
        if pays && call.since.is_none() {
            rule.budget.deposit();
        }
        Retries {
            worker: call.worker,
            rule,
            metrics: &call.backend.metrics,
            method: &call.request.head.method,
            body: &call.request.body,
            end,
            limits: call.backend.upstream.limits.as_deref(),
            permit: None,
            safe: 0,
            by_policy: 0,
            refused: None,
        }
    }

    /// After a try without a response. `others`: there are endpoints that were not tried.
    pub(super) fn after_failure(&mut self, failure: Failure, others: bool) -> Next {
        if failure.reason == Reason::NotReady {
            return Next::Stop;
        }
        let cause = match failure.reason {
            // A limit of ours: another endpoint may have a connection already.
            Reason::CircuitOpen if !others => return Next::Stop,
            Reason::ConnectFailed | Reason::ConnectTimeout | Reason::CircuitOpen => {
                RetryCause::Connect
            }
            Reason::UpstreamUntrusted => RetryCause::Untrusted,
            Reason::PerTryTimeout | Reason::FirstTokenTimeout => RetryCause::Timeout,
            _ => RetryCause::Reset,
        };
        // The same endpoint would refuse the connection again; a stream that it refused it may take on another connection.
        let elsewhere = others || cause == RetryCause::Reset;
        let unfinished = failure.stale && (!self.body.is_sent() || self.method.is_idempotent());
        if (failure.unprocessed || unfinished) && elsewhere {
            return self.safely(cause);
        }
        let wanted = self.rule.retry.as_ref().filter(|retry| match cause {
            RetryCause::Timeout => retry.on_timeout,
            RetryCause::Reset => retry.on_reset,
            // All there is has refused: it may be back after a pause.
            _ => true,
        });
        match wanted {
            Some(retry) => self.by_policy(retry, cause, failure.unprocessed, None),
            None => Next::Stop,
        }
    }

    /// After a response. `unprocessed`: made by the peer's sidecar, whose application has not seen the request.
    pub(super) fn after_response(
        &mut self,
        response: &Response<Source>,
        unprocessed: bool,
        others: bool,
    ) -> Next {
        if unprocessed && others {
            return self.safely(RetryCause::Connect);
        }
        let Some(retry) = &self.rule.retry else {
            return Next::Stop;
        };
        let trailers = response.body().peeked_trailers();
        let code = || {
            let in_trailers = || trailers.and_then(status_of);
            grpc_status(response.headers()).or_else(in_trailers)
        };
        let cause = if retry.statuses.contains(&response.status()) {
            RetryCause::Status
        } else if !retry.grpc_codes.is_empty()
            && code().is_some_and(|code| retry.grpc_codes.contains(&code))
        {
            RetryCause::GrpcStatus
        } else {
            return Next::Stop;
        };
        let asked = match pushback(response.headers())
            .or_else(|| trailers.and_then(pushback))
            .or_else(|| retry_after(response.headers()).map(Pushback::AtLeast))
        {
            // It does not want to be asked again (so soon), and the client may not want to wait so long.
            Some(Pushback::Never) => return self.refuse(RetryRefusal::Pushback),
            Some(Pushback::AtLeast(pause) | Pushback::Exactly(pause))
                if pause > retry.backoff.max =>
            {
                return self.refuse(RetryRefusal::Pushback);
            }
            asked => asked,
        };
        self.by_policy(retry, cause, unprocessed, asked)
    }

    /// After a refusal by an endpoint that has too much to do: nothing was begun, so another endpoint is asked at once, without
    /// a policy and within its budget. `moves`: how often that was done.
    pub(super) fn after_refusal(&mut self, moves: u32, others: bool) -> Next {
        if !others {
            return Next::Stop;
        }
        if moves >= MOST_MOVES {
            return self.refuse(RetryRefusal::Attempts);
        }
        if !self.body.can_repeat() {
            return self.refuse(RetryRefusal::BodyTooLarge);
        }
        if !self.rule.budget.try_withdraw() {
            return self.refuse(RetryRefusal::Budget);
        }
        self.metrics.retries.made(RetryCause::Busy);
        Next::Again(Duration::ZERO)
    }

    fn safely(&mut self, cause: RetryCause) -> Next {
        if self.safe >= SAFE_RETRIES {
            return self.refuse(RetryRefusal::Attempts);
        }
        if !self.body.can_repeat() {
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
        unprocessed: bool,
        asked: Option<Pushback>,
    ) -> Next {
        if self.by_policy >= retry.max_retries {
            return self.refuse(RetryRefusal::Attempts);
        }
        if !unprocessed && !retry.methods.contains(self.method) {
            return self.refuse(RetryRefusal::Method);
        }
        if !self.body.can_repeat() {
            return self.refuse(RetryRefusal::BodyTooLarge);
        }
        let drawn = {
            let mut rng = self.worker.rng.borrow_mut();
            retry.backoff.delay(self.by_policy + 1, &mut *rng)
        };
        let pause = match asked {
            Some(Pushback::Exactly(pause)) => pause,
            Some(Pushback::AtLeast(pause)) => drawn.max(pause),
            _ => drawn,
        };
        let too_late = |end| Instant::now() + pause >= end;
        if self.end.is_some_and(too_late) {
            return self.refuse(RetryRefusal::Deadline);
        }
        if let Some(limits) = self.limits {
            // The one before is over.
            self.permit = None;
            self.permit = limits.enter(Counted::Retries);
            if self.permit.is_none() {
                return self.refuse(RetryRefusal::Limit);
            }
        }
        if !self.rule.budget.try_withdraw() {
            return self.refuse(RetryRefusal::Budget);
        }
        self.by_policy += 1;
        self.metrics.retries.made(cause);
        Next::Again(pause)
    }

    fn refuse(&mut self, why: RetryRefusal) -> Next {
        self.metrics.retries.refused(why);
        self.refused = Some(why);
        Next::Stop
    }
}

/// What a server says of the next try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pushback {
    AtLeast(Duration),
    Exactly(Duration),
    Never,
}

/// The status of a trailers-only response.
pub(super) fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    if !headers::is_grpc(headers) {
        return None;
    }
    status_of(headers)
}

fn status_of(trailers: &HeaderMap) -> Option<u32> {
    trailers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// `grpc-retry-pushback-ms`: after how many milliseconds the server wants to be asked again; what is no such number, negative
/// ones among them, means never (<https://github.com/grpc/proposal/blob/master/A6-client-retries.md>, "Pushback").
fn pushback(headers: &HeaderMap) -> Option<Pushback> {
    let value = headers.get("grpc-retry-pushback-ms")?;
    let millis = value
        .to_str()
        .ok()
        .and_then(|text| text.parse::<u32>().ok());
    Some(millis.map_or(Pushback::Never, |millis| {
        Pushback::Exactly(Duration::from_millis(millis.into()))
    }))
}

/// Servers that send a head before they fail put the status of a gRPC call into trailers. Where these are here already, and
/// nothing is before them, the call can still be made again, if it may be at all.
pub(super) async fn look_at_trailers(call: &Call<'_>, response: &mut Response<Source>) {
    let request = call.request;
    let retry = call.rule.retry.as_ref();
    if !request.grpc
        || !retry.is_some_and(|retry| may_follow_trailers(retry, &request.head.method))
        || !request.body.can_repeat()
        || response.body().is_end_stream()
    {
        return;
    }
    let body = response.body_mut();
    std::future::poll_fn(|cx| {
        // Whether something is there now is all that matters.
        let _ = body.poll_peek(cx);
        Poll::Ready(())
    })
    .await;
}

/// Whether a status in a response's trailers could make the policy send a request of this method again.
fn may_follow_trailers(retry: &Retry, method: &Method) -> bool {
    !retry.grpc_codes.is_empty() && retry.max_retries > 0 && retry.methods.contains(method)
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

#[cfg(test)]
mod tests;
