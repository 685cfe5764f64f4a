//! From the application to whichever service it asks for: accept → route → balance → connect → send, retry → respond.

mod admit;
mod affinity;
mod attempt;
mod call;
pub(crate) mod continuation;
mod fallback;
mod filters;
mod first_token;
mod hedge;
mod models;
mod moves;
mod outside;
pub(crate) mod request;
mod retry;
pub(crate) mod route;
mod send;
mod tunnel;
mod upgrade;
pub(crate) mod verdict;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{Method, Request, Response};
use hyper::upgrade::OnUpgrade;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::detect::{self, Detected};
use crate::error::Reason;
use crate::http::arrival::Arrived;
use crate::http::authority::InvalidAuthority;
use crate::http::body::Source;
use crate::http::errors::Style;
use crate::http::exchange::Exchange;
use crate::http::interim::Interim;
use crate::http::response::ResponseBody;
use crate::http::server::{self, Client, Handler};
use crate::listener::{Stream, accept, proxy_protocol};
use crate::policy::{Backend, Protocol, Snapshot};
use crate::runtime::{TcpBinding, Worker};
use crate::telemetry::metrics::Wire;
use crate::telemetry::{Direction, Outcome};

use affinity::Affinity;
use call::Call;

/// Accepts the application's connections until a drain begins.
pub(crate) async fn listen(worker: Rc<Worker>, socket: TcpListener) {
    accept(worker, socket, |worker, stream, address| {
        tokio::task::spawn_local(serve(Rc::clone(worker), stream, address));
    })
    .await;
}

async fn serve(worker: Rc<Worker>, mut stream: TcpStream, mut address: SocketAddr) {
    if worker.bound.proxy_protocol.outbound {
        let direction = Direction::Outbound;
        let client = proxy_protocol::client(&worker, &mut stream, address, direction);
        match Box::pin(client).await {
            Some(client) => address = client,
            None => return,
        }
    }
    let mut stream = Stream::from(stream);
    let detected = detect::detect(&mut stream).await;
    let wire = match detected {
        Detected::Silent => return,
        Detected::Http1 | Detected::Stalled => Wire::Http1,
        Detected::Http2 => Wire::Http2,
    };
    let client = Client::new(&worker, address, Direction::Outbound, wire);
    let handler = Rc::new(Outbound {
        client,
        bound: None,
    });
    if detected == Detected::Stalled {
        handler.refused(Reason::HeadTimeout);
        // It may not be read any more.
        let _ = stream.write_all(&detect::STALLED).await;
        return;
    }
    server::spawn(wire, stream, handler);
}

/// Serves a connection to the listener of one service that turned out to speak HTTP: whatever host its requests name.
pub(crate) fn serve_bound(
    worker: Rc<Worker>,
    stream: Stream,
    address: SocketAddr,
    wire: Wire,
    binding: TcpBinding,
) {
    let client = Client::new(&worker, address, Direction::Outbound, wire);
    let handler = Rc::new(Outbound {
        client,
        bound: Some(binding),
    });
    server::spawn(wire, stream, handler);
}

/// Requests of one of the application's connections.
struct Outbound {
    client: Rc<Client>,
    /// `None`: requests say which service they are for.
    bound: Option<TcpBinding>,
}

impl Handler for Outbound {
    fn handle(
        self: Rc<Self>,
        request: Request<Source>,
        interim: Arc<Interim>,
    ) -> impl Future<Output = Response<ResponseBody>> + 'static {
        let snapshot = self.client.worker.shared.snapshot.load_full();
        let (arrived, exchange) = Arrived::new(&self.client, &snapshot, request, interim, None);
        respond(self, snapshot, arrived, exchange)
    }

    fn client(&self) -> &Rc<Client> {
        &self.client
    }

    fn refused(&self, reason: Reason) {
        let metrics = self.client.unknown_kind();
        metrics.begin();
        metrics.finish(&Outcome {
            status: Some(reason.status()),
            reason: Some(reason),
            ..Outcome::default()
        });
    }
}

/// From the request to the response's head.
async fn respond(
    outbound: Rc<Outbound>,
    snapshot: Arc<Snapshot>,
    arrived: Result<Box<Arrived>, InvalidAuthority>,
    mut exchange: Box<Exchange>,
) -> Response<ResponseBody> {
    let mut arrived = match arrived {
        Ok(arrived) => arrived,
        Err(error) => return exchange.fail(Reason::BadRequest, &error.to_string()),
    };
    let worker = &outbound.client.worker;
    let bound = outbound.bound.as_ref();
    let route = match route::find(worker, &snapshot, &mut arrived, &mut exchange, bound).await {
        Ok(route) => route,
        Err(failed) => return exchange.fail(failed.reason, &failed.detail),
    };
    // What waits for a model must not hold a configuration that is no longer in effect.
    drop(snapshot);
    let affinity = Affinity::of(&route.rule, &arrived.head.headers);
    let backend = affinity
        .backend(&route.rule)
        .unwrap_or_else(|| route.rule.choose());
    exchange.set_metrics(&backend.metrics);
    exchange.log_route(&route.service.name, &route.rule.route);
    if backend.protocol == Protocol::Grpc {
        exchange.set_style(Style::Grpc);
    }
    if arrived.head.method == Method::CONNECT {
        let tunnel = tunnel::open(worker, &route, backend, &mut arrived, exchange);
        return Box::pin(tunnel).await;
    }
    if let Some(list) = models::list(&route, &arrived) {
        return exchange.reply(list, None);
    }
    let client_side = if arrived.upgrade {
        arrived.head.extensions.remove::<OnUpgrade>()
    } else {
        None
    };
    let Some(filters) = &route.rule.filters else {
        return forward(
            worker,
            &route,
            (backend, &affinity),
            &arrived,
            client_side,
            exchange,
        )
        .await;
    };
    // Boxed: requests without filters need no room for theirs.
    Box::pin(async {
        let mut later = filters::Later::default();
        let context = filters::Context {
            worker,
            rule: &route.rule,
            port: route.port,
        };
        let next = filters::request(filters, context, &mut arrived, exchange, &mut later).await;
        let mut response = match next {
            filters::Next::Send(exchange) => {
                forward(
                    worker,
                    &route,
                    (backend, &affinity),
                    &arrived,
                    client_side,
                    exchange,
                )
                .await
            }
            filters::Next::Answer(response) => *response,
        };
        filters::response(filters, later, &mut response);
        response
    })
    .await
}

/// To an endpoint of the backend.
async fn forward(
    worker: &Rc<Worker>,
    route: &route::Route,
    (backend, affinity): (&Backend, &Affinity),
    arrived: &Arrived,
    client_side: Option<OnUpgrade>,
    exchange: Box<Exchange>,
) -> Response<ResponseBody> {
    let call = Call {
        worker,
        rule: &route.rule,
        backend,
        request: arrived,
        affinity,
        since: None,
        model: None,
    };
    if arrived.upgrade {
        return Box::pin(upgrade::send(call, client_side, exchange)).await;
    }
    send::send(call, exchange).await
}
