//! Requests that want to change the protocol (WebSocket): HTTP/1.1 from end to end, on connections of their own.

use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;

use super::call::Call;
use super::fallback;
use super::retry;
use super::send::{self, Answer};
use crate::error::Reason;
use crate::http::exchange::Exchange;
use crate::http::response::ResponseBody;
use crate::http::upgrade;
use crate::policy::Fallback;

/// Sends the request as any other, with the same clocks until the response's head; where the upstream agrees, the two connections
/// become one.
pub(super) async fn send(
    call: Call<'_>,
    client_side: Option<OnUpgrade>,
    mut exchange: Box<Exchange>,
) -> Response<ResponseBody> {
    let Some(client_side) = client_side else {
        return exchange.fail(
            Reason::BadRequest,
            "this connection cannot change its protocol",
        );
    };
    call.request.keep(retry::kept_bytes(call.rule));
    let result = send::reach(&call, &mut exchange).await;
    if fallback::is_wanted(&call, &result) {
        return fallback::run(call, exchange, result, Some(client_side)).await;
    }
    finish(&call, client_side, exchange, result, None)
}

/// Answers the client. `mark`: the fallback that the answer comes from.
pub(super) fn finish(
    call: &Call<'_>,
    client_side: OnUpgrade,
    exchange: Box<Exchange>,
    result: Result<Answer, Reason>,
    mark: Option<&Fallback>,
) -> Response<ResponseBody> {
    let Answer {
        mut response,
        in_flight,
        ..
    } = match result {
        Ok(answer) if answer.response.status() == StatusCode::SWITCHING_PROTOCOLS => answer,
        // The upstream does not want to, or there is none.
        other => return send::finish(call, exchange, other, mark),
    };
    call.request.body.seal();
    let attempts = exchange.attempts();
    let idle = call.rule.timeouts.stream_idle;
    let server_side = upgrade::of_response(&mut response);
    let (head, _) = response.into_parts();
    let in_flight = Some(in_flight);
    let mut response = upgrade::join(exchange, head, client_side, server_side, in_flight, idle);
    // Behind the head's cleaning.
    call.finish(response.headers_mut());
    send::tell(call, attempts, mark, response.headers_mut());
    response
}
