//! Two HTTP/1.1 connections that change their protocol become one.

use std::time::Duration;

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Response, StatusCode, response::Parts};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::exchange::Exchange;
use super::headers;
use super::response::ResponseBody;
use crate::balance::InFlight;
use crate::error::Reason;
use crate::policy::TcpLimits;
use crate::tcp::copy::{self, End};

/// An upstream's side of an upgrade.
pub(crate) fn of_response<B>(response: &mut Response<B>) -> Option<OnUpgrade> {
    response.extensions_mut().remove::<OnUpgrade>()
}

/// Answers `101` as the upstream did, and copies bytes both ways from then on.
pub(crate) fn join(
    mut exchange: Box<Exchange>,
    mut head: Parts,
    client: OnUpgrade,
    server: Option<OnUpgrade>,
    in_flight: Option<InFlight>,
    idle: Option<Duration>,
) -> Response<ResponseBody> {
    let (Some(server), Some(protocol)) = (server, head.headers.get(UPGRADE).cloned()) else {
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
        let (client, server) = match futures_util::future::try_join(client, server).await {
            Ok(sides) => sides,
            Err(error) => {
                tracing::debug!(%error, "upgrade failed");
                exchange.end_upgraded(0, 0, Some(Reason::UpgradeFailed));
                return;
            }
        };
        let copied = copy::Bytes::default();
        let mut client = TokioIo::new(client);
        let mut server = TokioIo::new(server);
        let limits = TcpLimits {
            idle,
            lifetime: None,
        };
        let end = copy::both_ways(&mut client, &mut server, limits, &copied).await;
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
