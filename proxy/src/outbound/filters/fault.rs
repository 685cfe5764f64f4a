//! Faults on purpose.

use std::pin::pin;

use super::{Context, Later, Next};
use crate::error::Reason;
use crate::http::arrival::Arrived;
use crate::http::clock::Deadline;
use crate::http::errors;
use crate::http::exchange::Exchange;
use crate::outbound::call;
use crate::policy::filters::{FaultInjection, Filters, Share};
use crate::telemetry::metrics::FilterAction;

/// Waits, then answers with an error or notes where the response ends, each by chance.
pub(super) async fn inject(
    faults: &FaultInjection,
    filters: &Filters,
    context: Context<'_>,
    request: &Arrived,
    mut exchange: Box<Exchange>,
    later: &mut Later,
) -> Next {
    if !faults.is_for(&request.head.headers) {
        return Next::Send(exchange);
    }
    let drawn = |share: Share| share.takes(&mut *context.worker.rng.borrow_mut());
    if let Some((pause, share)) = faults.delay
        && drawn(share)
    {
        filters.metrics.count(FilterAction::FaultDelay);
        exchange.log_filter(FilterAction::FaultDelay.as_str());
        // To the request it is a slow service: its clocks run.
        let deadline = call::head_deadline(
            context.rule,
            request,
            exchange.started(),
            exchange.started(),
        );
        let sleep = pin!(tokio::time::sleep(pause));
        if let Err(reason) = Deadline::limit(deadline, sleep).await {
            let answer = exchange.fail(reason, "a delay that the route injects");
            return Next::Answer(Box::new(answer));
        }
    }
    if let Some((abort, share)) = faults.abort
        && drawn(share)
    {
        filters.metrics.count(FilterAction::FaultAbort);
        exchange.log_filter(FilterAction::FaultAbort.as_str());
        let answer = errors::reply_with(
            Reason::FaultAbort,
            abort.http_status(),
            abort.grpc_code(),
            exchange.style(),
            "a fault that the route injects",
        );
        let answer = exchange.reply(answer, Some(Reason::FaultAbort));
        return Next::Answer(Box::new(answer));
    }
    if let Some((bytes, share)) = faults.truncate
        && drawn(share)
    {
        filters.metrics.count(FilterAction::FaultTruncate);
        exchange.log_filter(FilterAction::FaultTruncate.as_str());
        later.truncate = Some(later.truncate.map_or(bytes, |already| already.min(bytes)));
    }
    Next::Send(exchange)
}
