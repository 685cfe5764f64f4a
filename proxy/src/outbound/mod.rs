//! From the application to whichever service it asks for: accept → route → balance → connect → send, retry → respond.

pub(crate) mod request;
mod retry;
mod route;
mod send;
mod tunnel;
mod upgrade;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{Method, Request, Response, Version};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::detect::{self, Detected};
use crate::error::Reason;
use crate::http::authority;
use crate::http::body::Source;
use crate::http::errors::Style;
use crate::http::exchange::{Exchange, ResponseBody};
use crate::http::headers;
use crate::http::interim::Interim;
use crate::http::replay::Replay;
use crate::http::server::{Client, Handler};
use crate::http::{http1, http2};
use crate::listener::{Stream, accept};
use crate::runtime::Worker;
use crate::telemetry::metrics::Wire;
use crate::telemetry::{Direction, Outcome};

/// Accepts the application's connections until a drain begins.
pub(crate) async fn listen(worker: Rc<Worker>, socket: TcpListener) {
    accept(worker, socket, |worker, stream, address| {
        tokio::task::spawn_local(serve(Rc::clone(worker), stream, address));
    })
    .await;
}

async fn serve(worker: Rc<Worker>, stream: TcpStream, address: SocketAddr) {
    let mut stream = Stream::from(stream);
    let detected = detect::detect(&mut stream).await;
    let wire = match detected {
        Detected::Silent => return,
        Detected::Http1 | Detected::Stalled => Wire::Http1,
        Detected::Http2 => Wire::Http2,
    };
    let client = Client::new(&worker, address, Direction::Outbound, wire);
    let handler = Rc::new(Outbound { client });
    match detected {
        // Boxed, so that each connection has the memory that its protocol needs.
        Detected::Http2 => Box::pin(http2::serve(stream, handler)).await,
        Detected::Stalled => {
            handler.refused(Reason::HeadTimeout);
            // It may not be read any more.
            let _ = stream.write_all(&detect::STALLED).await;
        }
        _ => Box::pin(http1::serve(stream, handler)).await,
    }
}

/// Requests of one of the application's connections.
struct Outbound {
    client: Rc<Client>,
}

impl Handler for Outbound {
    async fn handle(
        self: Rc<Self>,
        request: Request<Source>,
        interim: Arc<Interim>,
    ) -> Response<ResponseBody> {
        let worker = Rc::clone(&self.client.worker);
        let snapshot = worker.shared.snapshot.load_full();
        let (mut head, source) = request.into_parts();
        let upgrade = headers::wanted_upgrade(&head.headers);
        let found = headers::clean_request(&mut head.headers, upgrade.as_ref());
        headers::ensure_request_id(&mut head.headers, found, &mut *worker.rng.borrow_mut());

        let style = Style::of(&head.headers, head.uri.path(), None);
        let body = Replay::new(source);
        let mut exchange = Exchange::begin(&self.client, &head.method, style, body.clone());
        let protocol = match (&upgrade, style) {
            (Some(_), _) => "upgrade",
            (None, Style::Grpc) => "grpc",
            _ if head.version == Version::HTTP_2 => "h2",
            _ => "http/1.1",
        };
        exchange.log_request(snapshot.mesh.access_log, protocol, &head);

        let authority = match authority::of(&head) {
            Ok(authority) => authority,
            Err(error) => return exchange.fail(Reason::BadRequest, &error.to_string()),
        };
        let route = match route::find(&worker, &snapshot, &head, &authority).await {
            Ok(route) => route,
            Err(failed) => return exchange.fail(failed.reason, &failed.detail),
        };
        drop(snapshot);
        let backend = {
            let mut rng = worker.rng.borrow_mut();
            route.rule.choose(&mut *rng)
        };
        exchange.set_metrics(&backend.metrics);
        exchange.log_route(&route.service.name, &route.rule.route);
        exchange.set_style(Style::of(
            &head.headers,
            head.uri.path(),
            Some(backend.protocol),
        ));

        if head.method == Method::CONNECT {
            let tunnel = tunnel::open(&worker, &route, backend, head, exchange);
            return Box::pin(tunnel).await;
        }
        let call = send::Call::new(&worker, &route, backend, head, authority, body, &interim);
        if upgrade.is_some() {
            return Box::pin(upgrade::send(call, exchange)).await;
        }
        send::send(call, exchange).await
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
