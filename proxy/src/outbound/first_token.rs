//! Whether a model's answer has begun.

use std::pin::pin;
use std::time::Duration;

use http::Response;
use tokio::time::Instant;

use super::call::Call;
use crate::error::Reason;
use crate::http::body::Source;
use crate::http::clock::Deadline;
use crate::inference::{ModelRequest, stream};
use crate::pool::Failure;

/// A stream that had an error in the place of its first token, or nothing at all.
pub(super) const LOST: Failure = Failure {
    reason: Reason::ModelError,
    unprocessed: false,
    stale: false,
};

/// Looks at a model's answer from now on. Where a stream can still be made elsewhere, its head is held back until its first
/// token is here: not longer than the head may be waited for (`end`).
pub(super) async fn first_token(
    call: &Call<'_>,
    model: &ModelRequest,
    response: Response<Source>,
    begun: Instant,
    end: Option<Instant>,
) -> Result<Response<Source>, Failure> {
    let Some(inference) = &call.backend.upstream.inference else {
        return Ok(stream::watch(model, response));
    };
    let limit = Deadline::after(begun, call.first_token(), Reason::FirstTokenTimeout);
    let elsewhere = call.rule.retry.is_some() || call.rule.recovery.is_for_streams();
    let hold = model.stream && (elsewhere || limit.is_some() || call.is_rest());
    let first_token = limit.map(|limit| limit.at);
    let until = end.and_then(|end| end.checked_sub(HEAD_START));
    let begin = stream::begin(
        inference,
        model,
        response,
        hold.then_some(until),
        first_token,
        call.is_part(),
    );
    Deadline::limit(limit, pin!(begin))
        .await
        .map_err(|reason| Failure {
            reason,
            unprocessed: false,
            stale: false,
        })
}

/// A head that is held back is let go so long before its time is up.
const HEAD_START: Duration = Duration::from_millis(5);
