//! Two HTTP/1.1 connections that change their protocol become one.

use std::time::Duration;

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Response, StatusCode, response::Parts};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::body::Source;
use super::exchange::Exchange;
use super::headers;
use super::response::ResponseBody;
use crate::balance::InFlight;
use crate::error::Reason;
use crate::policy::TcpLimits;
use crate::pool::Upgraded;
use crate::tcp::copy::{self, End};

/// An upstream's side of an upgrade.
pub(crate) fn of_response(response: &mut Response<Source>) -> Option<Box<Upgraded>> {
    match std::mem::replace(response.body_mut(), Source::Empty) {
        Source::Upgraded(upgraded) => Some(upgraded),
        _ => None,
    }
}

/// Answers `101` as the upstream did, and copies bytes both ways from then on.
pub(crate) fn join(
    mut exchange: Box<Exchange>,
    mut head: Parts,
    client: OnUpgrade,
    server: Option<Box<Upgraded>>,
    in_flight: Option<InFlight>,
    idle: Option<Duration>,
) -> Response<ResponseBody> {
    let (Some(mut server), Some(protocol)) = (server, head.headers.get(UPGRADE).cloned()) else {
        return exchange.fail(
            Reason::UpgradeFailed,
            "the upstream changed the protocol and did not say to which",
        );
    };
    headers::clean_response(&mut head.headers, false);
    head.headers
        .insert(CONNECTION, HeaderValue::from_static("upgrade"));
    head.headers.insert(UPGRADE, protocol);
    exchange.upgraded(StatusCode::SWITCHING_PROTOCOLS, in_flight);
    tokio::task::spawn_local(async move {
        let client = match client.await {
            Ok(client) => client,
            Err(error) => {
                tracing::debug!(%error, "upgrade failed");
                exchange.end_upgraded(0, 0, Some(Reason::UpgradeFailed));
                return;
            }
        };
        let copied = copy::Bytes::default();
        let mut client = TokioIo::new(client);
        let limits = TcpLimits {
            idle,
            lifetime: None,
        };
        let end = copy::both_ways(&mut client, &mut server.stream, limits, &copied).await;
        let reason = match end {
            End::Closed | End::Client => None,
            End::Idle => Some(Reason::StreamIdleTimeout),
            End::Lifetime => Some(Reason::ConnectionLifetime),
            End::Server => Some(Reason::UpstreamTruncated),
        };
        exchange.end_upgraded(copied.up.get(), copied.down.get(), reason);
    });
    Response::from_parts(head, ResponseBody::none())
}
