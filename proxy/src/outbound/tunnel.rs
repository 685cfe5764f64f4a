//! `CONNECT`: a tunnel to a port of a service.

use std::rc::Rc;

use http::{Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::route::Route;
use crate::error::Reason;
use crate::http::arrival::Arrived;
use crate::http::exchange::Exchange;
use crate::http::response::ResponseBody;
use crate::policy::Backend;
use crate::runtime::Worker;
use crate::tcp::copy::{self, End};
use crate::tcp::{Dialed, dial};

/// Connects to the backend, answers 200 and copies bytes both ways from then on.
pub(super) async fn open(
    worker: &Rc<Worker>,
    route: &Route,
    backend: &Backend,
    request: &mut Arrived,
    mut exchange: Box<Exchange>,
) -> Response<ResponseBody> {
    let client_side = request.head.extensions.remove::<OnUpgrade>();
    let (Some(client_side), true) = (client_side, request.head.version < Version::HTTP_2) else {
        return exchange.fail(
            Reason::MethodNotSupported,
            "CONNECT is understood on HTTP/1.1 connections only",
        );
    };
    let dialed = match dial(worker, backend).await {
        Ok(dialed) => dialed,
        Err(reason) => {
            let detail = format!("no tunnel to {} port {}", route.service.name, backend.port);
            return exchange.fail(reason, &detail);
        }
    };
    let Dialed {
        mut stream,
        endpoint,
        mut in_flight,
        _open: open,
    } = dialed;
    exchange.log_attempt(endpoint.address, endpoint.identity.as_ref());
    in_flight.first_byte();
    exchange.upgraded(StatusCode::OK, Some(in_flight));
    let limits = route.service.tcp;
    tokio::task::spawn_local(async move {
        let Ok(client) = client_side.await else {
            exchange.end_upgraded(0, 0, Some(Reason::ClientGone));
            return;
        };
        let copied = copy::Bytes::default();
        let mut client = TokioIo::new(client);
        let end = copy::both_ways(&mut client, &mut stream, limits, &copied).await;
        let reason = match end {
            End::Closed => None,
            End::Client => {
                stream.reset_on_close();
                Some(Reason::ClientGone)
            }
            End::Idle => Some(Reason::StreamIdleTimeout),
            End::Lifetime => {
                stream.reset_on_close();
                Some(Reason::ConnectionLifetime)
            }
            End::Server => Some(Reason::UpstreamTruncated),
        };
        exchange.end_upgraded(copied.up.get(), copied.down.get(), reason);
        drop(open);
    });
    Response::new(ResponseBody::none())
}
