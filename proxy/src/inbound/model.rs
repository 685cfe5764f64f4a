//! What is done with requests for models before they reach the application.

use std::rc::Rc;
use std::sync::Arc;

use crate::http::arrival::Arrived;
use crate::http::exchange::Exchange;
use crate::identity::SpiffeId;
use crate::inference::{Edited, Refusal, isolate, understand};
use crate::policy::Inference;
use crate::runtime::Worker;

/// Reads the request, and gives the body that is sent in place of the caller's, if any.
pub(super) async fn prepare(
    worker: &Rc<Worker>,
    inference: &Arc<Inference>,
    caller: Option<&SpiffeId>,
    request: &mut Arrived,
    exchange: &mut Exchange,
) -> Result<Option<Edited>, Refusal> {
    let metrics = &worker.shared.metrics;
    if !request.upgrade {
        understand(inference, &metrics.models, request, exchange).await?;
    }
    let Some(isolation) = inference.isolation else {
        return Ok(None);
    };
    let (done, result) = isolate(isolation, caller, request);
    if let Some(word) = metrics.salts.count(done) {
        exchange.log_cache_salt(word);
    }
    result
}
