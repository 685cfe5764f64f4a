//! Sends a request to another endpoint as well, where the answer is slow to come, and takes the first good one.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{Response, StatusCode};
use tokio::time::{Instant, sleep};

use super::call::Call;
use super::retry;
use super::send::{self, Tried};
use super::verdict;
use super::{admit, attempt};
use crate::admission::{Counted, Permit};
use crate::balance::{Endpoint, InFlight};
use crate::error::Reason;
use crate::http::body::Source;
use crate::http::exchange::Exchange;
use crate::http::replay::Whole;
use crate::policy::Hedge;
use crate::telemetry::metrics::{HedgeResult, RequestMetrics};

/// The hedges that were sent, until it is known what came of them.
struct Sent<'a> {
    metrics: &'a RequestMetrics,
    count: usize,
}

impl Sent<'_> {
    /// `index` of the winner; 0 is the request that was there first.
    fn settle(&mut self, index: usize) {
        let hedges = &self.metrics.retries.hedges;
        if index > 0 && self.count > 0 {
            hedges.count(HedgeResult::Won);
            self.count -= 1;
        }
        for _ in 0..std::mem::take(&mut self.count) {
            hedges.count(HedgeResult::Lost);
        }
    }
}

impl Drop for Sent<'_> {
    /// Nobody has won, or the request was given up.
    fn drop(&mut self) {
        for _ in 0..self.count {
            self.metrics.retries.hedges.count(HedgeResult::Failed);
        }
    }
}

/// Runs the request, and further ones beside it, until one has a good answer or all have failed; what came last is returned
/// then, for the retries to look at. Endpoints that failed or lost are added to `tried`. Losers are cancelled by being dropped:
/// a stream is reset, an HTTP/1.1 connection is closed.
pub(super) async fn race(
    call: &Call<'_>,
    hedge: &Hedge,
    exchange: &mut Exchange,
    (endpoint, in_flight): (Arc<Endpoint>, InFlight),
    tried: &mut Vec<Arc<Endpoint>>,
) -> Tried {
    let mut sent = Sent {
        metrics: &call.backend.metrics,
        count: 0,
    };
    let mut running = FuturesUnordered::new();
    let end = call.end_to_tell(exchange, &endpoint);
    let mut picked = vec![Arc::clone(&endpoint)];
    let first = Sending {
        endpoint,
        in_flight,
        extra: None,
    };
    running.push(run(call, 0, first, end));
    let mut slow = pin!(sleep(hedge.delay));
    let mut more = true;
    loop {
        // `None`: the delay has passed.
        let event = std::future::poll_fn(|cx| {
            if let Poll::Ready(Some(over)) = running.poll_next_unpin(cx) {
                return Poll::Ready(Some(over));
            }
            if more && slow.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            Poll::Pending
        });
        match event.await {
            Some((index, over)) => {
                let good = matches!(&over.result, Ok(response) if is_good(call, response));
                if good {
                    sent.settle(index);
                }
                if good || running.is_empty() {
                    if picked.len() > 1 {
                        let endpoint = &over.endpoint;
                        exchange.log_upstream(endpoint.address, endpoint.identity.as_ref());
                    }
                    // The caller adds this one itself.
                    picked.retain(|other| !other.is_same(&over.endpoint));
                    tried.append(&mut picked);
                    return over;
                }
                give_up(over);
            }
            None => match another(call, exchange, tried, &picked) {
                Ok(sending) => {
                    let endpoint = &sending.endpoint;
                    exchange.log_attempt(endpoint.address, endpoint.identity.as_ref());
                    let end = call.end_to_tell(exchange, endpoint);
                    let index = picked.len();
                    picked.push(Arc::clone(endpoint));
                    running.push(run(call, index, sending, end));
                    sent.count += 1;
                    more = picked.len() < hedge.max_requests as usize;
                    slow.as_mut().reset(Instant::now() + hedge.delay);
                }
                Err(why) => {
                    call.backend.metrics.retries.hedges.count(why);
                    more = false;
                }
            },
        }
    }
}

/// A request that is sent.
struct Sending {
    endpoint: Arc<Endpoint>,
    in_flight: InFlight,
    /// Of one that is sent beside another.
    extra: Option<Extra>,
}

/// What a hedge carries, and its place among the service's retries, where these have a limit.
struct Extra {
    body: Whole,
    _permit: Option<Permit>,
}

async fn run(
    call: &Call<'_>,
    index: usize,
    sending: Sending,
    end: Option<Instant>,
) -> (usize, Tried) {
    let Sending {
        endpoint,
        in_flight,
        extra,
    } = sending;
    let body = extra.as_ref().map(|extra| &extra.body);
    let result = attempt::try_one(call, &endpoint, body, end).await;
    let tried = Tried {
        endpoint,
        in_flight,
        result,
    };
    (index, tried)
}

/// Where one more request goes, and what it carries.
fn another(
    call: &Call<'_>,
    exchange: &Exchange,
    tried: &[Arc<Endpoint>],
    picked: &[Arc<Endpoint>],
) -> Result<Sending, HedgeResult> {
    let body = call.request.body.whole().ok_or(HedgeResult::Body)?;
    let taken: Vec<Arc<Endpoint>> = tried.iter().chain(picked).cloned().collect();
    if !call.has_others(&taken) {
        return Err(HedgeResult::NoEndpoint);
    }
    let endpoint = call
        .pick(&taken)
        .filter(|endpoint| !call.worker.is_own_outbound(endpoint.address))
        .filter(|endpoint| !call.request.would_lose_tls(endpoint))
        .ok_or(HedgeResult::NoEndpoint)?;
    let permit = match &call.backend.upstream.limits {
        Some(limits) => Some(limits.enter(Counted::Retries).ok_or(HedgeResult::Limit)?),
        None => None,
    };
    if !call.rule.budget.try_withdraw() {
        return Err(HedgeResult::NoBudget);
    }
    // A probation is for a request that is waited for.
    let in_flight = call
        .begin(&endpoint, exchange)
        .filter(|in_flight| !in_flight.is_late())
        .ok_or(HedgeResult::NoEndpoint)?;
    Ok(Sending {
        endpoint,
        in_flight,
        extra: Some(Extra {
            body,
            _permit: permit,
        }),
    })
}

/// Whether there is no reason to wait for another answer.
fn is_good(call: &Call<'_>, response: &Response<Source>) -> bool {
    let status = response.status();
    let retried = call.rule.retry.as_ref();
    !status.is_server_error()
        && status != StatusCode::TOO_MANY_REQUESTS
        && !retried.is_some_and(|retry| retry.statuses.contains(&status))
        && retry::grpc_status(response.headers()).is_none_or(|code| code == 0)
}

/// It failed, and others are still running.
fn give_up(mut over: Tried) {
    match &over.result {
        Ok(response) => {
            verdict::response(response, over.endpoint.mtls, &mut over.in_flight);
            if !(over.endpoint.mtls && admit::is_rate_limited(response.headers())) {
                send::judge(response, &mut over.in_flight);
            }
        }
        Err(failure) if failure.reason == Reason::CircuitOpen => {}
        Err(failure) => {
            over.in_flight.failed();
            verdict::failure(failure, &mut over.in_flight);
        }
    }
}
