//! Copies of requests for another backend. The original neither waits for them nor fails with them.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use http::{Response, StatusCode};
use http_body::Body;

use crate::admission::{Breaker, Counted, Limit};
use crate::balance::Endpoint;
use crate::http::arrival::Arrived;
use crate::http::body::Source;
use crate::http::tee::Lost;
use crate::outbound::{attempt, outside};
use crate::policy::filters::Mirror;
use crate::pool::{self, Failure, Path, Target};
use crate::runtime::Worker;
use crate::telemetry::Direction;
use crate::telemetry::metrics::MirrorOutcome;

/// Begins a copy of the request as it is now, if it belongs to the share. Connections that change their protocol are not copied:
/// what follows is a conversation.
pub(super) fn start(worker: &Rc<Worker>, mirror: &Arc<Mirror>, request: &Arrived) {
    if request.upgrade || !mirror.share.takes(&mut *worker.rng.borrow_mut()) {
        return;
    }
    let Some(copy) = mirror.metrics.begin() else {
        return;
    };
    let (source, fate) = match request.body.tap(&mirror.metrics) {
        Some((source, fate)) => (Source::Tee(source), Some(fate)),
        None => (Source::Empty, None),
    };
    let request = request.copy(source);
    let (worker, mirror) = (Rc::clone(worker), Arc::clone(mirror));
    tokio::task::spawn_local(async move {
        let lost = async {
            match &fate {
                Some(fate) => fate.until_lost().await,
                None => std::future::pending().await,
            }
        };
        copy.end(tokio::select! {
            // First: a copy that lost its rest fails because of that.
            biased;
            why = lost => match why {
                Lost::TooSlow => MirrorOutcome::TooSlow,
                Lost::Cut => MirrorOutcome::Cut,
            },
            outcome = send(&worker, &mirror, &request) => outcome,
            () = tokio::time::sleep(mirror.limit) => MirrorOutcome::Timeout,
        });
    });
}

/// One try: a copy is worth no retry.
async fn send(worker: &Rc<Worker>, mirror: &Mirror, request: &Arrived) -> MirrorOutcome {
    let limits = mirror.backend.upstream.limits.as_deref();
    let permit = limits.map(|limits| limits.enter(Counted::Requests));
    if let Some(None) = permit {
        return MirrorOutcome::Limited;
    }
    let endpoints = &mirror.backend.endpoints;
    let picked = endpoints.pick(&mut *worker.rng.borrow_mut(), &[]);
    let Some(endpoint) = picked else {
        if endpoints.is_full() {
            count_full(limits);
            return MirrorOutcome::Limited;
        }
        return MirrorOutcome::NoEndpoints;
    };
    if worker.is_own_outbound(endpoint.address) || request.would_lose_tls(&endpoint) {
        return MirrorOutcome::Failed;
    }
    let Some(mut in_flight) = endpoint.try_begin() else {
        count_full(limits);
        return MirrorOutcome::Limited;
    };
    let status = match try_one(worker, mirror, request, &endpoint).await {
        Ok(response) => {
            in_flight.first_byte();
            let (head, body) = response.into_parts();
            discard(body).await.then_some(head.status)
        }
        Err(_) => None,
    };
    match status {
        Some(status) if status < StatusCode::INTERNAL_SERVER_ERROR => MirrorOutcome::Ok,
        Some(_) => MirrorOutcome::Error,
        None => {
            in_flight.failed();
            MirrorOutcome::Failed
        }
    }
}

fn count_full(limits: Option<&Breaker>) {
    if let Some(limits) = limits {
        limits.refusals.count(Limit::EndpointRequests);
    }
}

async fn try_one(
    worker: &Rc<Worker>,
    mirror: &Mirror,
    request: &Arrived,
    endpoint: &Endpoint,
) -> Result<Response<Source>, Failure> {
    let backend = &mirror.backend;
    let target = Target::endpoint(endpoint, backend);
    let path = Path {
        worker,
        direction: Direction::Outbound,
        target: &target,
        interim: None,
    };
    let to = outside::To::of(endpoint, &backend.upstream.service);
    let body = || request.body.body();
    if endpoint.mtls || attempt::speaks_http2(request, backend.protocol) {
        pool::send_http2(
            path,
            || outside::http2(request, body(), None, to),
            || request.body.can_repeat(),
        )
        .await
    } else {
        pool::send_http1(path, || outside::http1(request, body(), None, to)).await
    }
}

/// Reads a body to its end, and forgets it. `false`: it broke.
async fn discard(mut body: Source) -> bool {
    loop {
        match std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            Some(Ok(_)) => {}
            Some(Err(_)) => return false,
            None => return true,
        }
    }
}
