//! Opaque bytes: from the application to a service, without looking into them.

pub(crate) mod copy;
mod dial;
pub(crate) mod tls;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, Method};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::address::Address;
use crate::balance::InFlight;
use crate::detect;
use crate::error::Reason;
use crate::listener::{Connection, Stream, accept, proxy_protocol};
use crate::outbound;
use crate::policy::matching::{self, RequestFacts};
use crate::policy::{Protocol, Rule, Service, ServicePort, TcpLimits};
use crate::runtime::{TcpBinding, Worker};
use crate::telemetry::access_log::Entry;
use crate::telemetry::metrics::{DetectionResult, RequestMetrics, Side, Wire};
use crate::telemetry::{Direction, Outcome};

pub(crate) use dial::{Dialed, dial};

/// Accepts connections for one service until a drain begins.
pub(crate) async fn listen(worker: Rc<Worker>, socket: TcpListener, binding: TcpBinding) {
    accept(worker, socket, move |worker, stream, address| {
        let worker = Rc::clone(worker);
        let binding = binding.clone();
        tokio::task::spawn_local(async move {
            Box::pin(serve(worker, stream, address, binding)).await;
        });
    })
    .await;
}

async fn serve(
    worker: Rc<Worker>,
    mut stream: TcpStream,
    address: SocketAddr,
    binding: TcpBinding,
) {
    let Some(address) = real_address(&worker, &mut stream, address).await else {
        return;
    };
    let mut client = Stream::from(stream);
    let connection = Connection::open(&worker);
    let shared = &worker.shared;
    let service = shared.lookups.service(shared, &binding.service).await;
    let mut may_learn = false;
    if let Some(service) = &service
        && let Some(port) = detected_port(service, binding.port)
    {
        let name = &service.name;
        let outbound = Direction::Outbound;
        let port = (port.port, port.detection);
        match detect::of_port(&worker, &mut client, outbound, name, port).await {
            found @ (DetectionResult::Http1 | DetectionResult::Http2) => {
                let wire = match found {
                    DetectionResult::Http2 => Wire::Http2,
                    _ => Wire::Http1,
                };
                // It counts as one of HTTP's from here on.
                drop(connection);
                return outbound::serve_bound(Rc::clone(&worker), client, address, wire, binding);
            }
            DetectionResult::Timeout => may_learn = true,
            _ => {}
        }
    }
    let _open = shared
        .metrics
        .connection(Direction::Outbound, Side::Downstream, Wire::Tcp);
    let mut session = Session::begin(&worker, address, Direction::Outbound);
    let Some(service) = service else {
        return session.refuse(&client, Reason::NotReady);
    };
    session.service = Arc::clone(&service.name);
    if may_learn {
        session.learn_server_first(&service.name, binding.port);
    }
    let name = binding.service.rsplit('/').next().unwrap_or_default();
    let Some(rule) = rule(&service.rules, name, binding.port) else {
        return session.refuse(&client, Reason::NoRoute);
    };
    // Why it was refused is counted and logged with the session.
    let _ = connect_and_copy(&worker, session, &mut client, rule, service.tcp, || {}).await;
}

/// The port, if its protocol is to be found out.
fn detected_port(service: &Service, port: u16) -> Option<&ServicePort> {
    let mut ports = service.ports.iter();
    ports.find(|each| each.port == port && each.protocol == Protocol::Auto)
}

/// Connects to an endpoint that the rule leads to, calls `connected`, and copies until both sides are done. An error: there
/// was no connection, and the client was refused.
async fn connect_and_copy(
    worker: &Rc<Worker>,
    mut session: Session<'_>,
    client: &mut Stream,
    rule: &Rule,
    limits: TcpLimits,
    connected: impl FnOnce(),
) -> Result<(), Reason> {
    let backend = rule.choose();
    session.set_metrics(&backend.metrics);
    session.route = Arc::clone(&rule.route);
    let dialed = match dial(worker, backend).await {
        Ok(dialed) => dialed,
        Err(reason) => {
            session.refuse(client, reason);
            return Err(reason);
        }
    };
    connected();
    session.upstream = Some(dialed.endpoint.address.into());
    session.in_flight = Some(dialed.in_flight);
    let mut server = dialed.stream;
    session.copy(client, &mut server, limits).await;
    Ok(())
}

/// Where the client is: as the connection says, or as the PROXY protocol header does where one is to be there. `None`: it was
/// not there; the connection is refused.
async fn real_address(
    worker: &Worker,
    stream: &mut TcpStream,
    address: SocketAddr,
) -> Option<SocketAddr> {
    if !worker.bound.proxy_protocol.tcp {
        return Some(address);
    }
    proxy_protocol::client(worker, stream, address, Direction::Outbound).await
}

/// The rule for a port of a service: the first one that asks for nothing that only HTTP has.
fn rule<'a>(rules: &'a [Arc<Rule>], host: &str, port: u16) -> Option<&'a Arc<Rule>> {
    matching::find(
        rules,
        &RequestFacts {
            host,
            port,
            path: "/",
            query: "",
            method: &Method::CONNECT,
            headers: &HeaderMap::new(),
            model: None,
        },
    )
}

/// One connection, counted and logged at its end.
pub(crate) struct Session<'a> {
    worker: &'a Rc<Worker>,
    direction: Direction,
    client: SocketAddr,
    started: Instant,
    metrics: Option<Arc<RequestMetrics>>,
    pub(crate) service: Arc<str>,
    pub(crate) route: Arc<str>,
    pub(crate) upstream: Option<Address>,
    pub(crate) peer: Option<crate::identity::SpiffeId>,
    pub(crate) in_flight: Option<InFlight>,
    bytes: copy::Bytes,
    reason: Option<Reason>,
    ended: bool,
}

impl<'a> Session<'a> {
    pub(crate) fn begin(
        worker: &'a Rc<Worker>,
        client: SocketAddr,
        direction: Direction,
    ) -> Session<'a> {
        Session {
            worker,
            direction,
            client,
            started: Instant::now(),
            metrics: None,
            service: Arc::clone(&worker.nothing),
            route: Arc::clone(&worker.nothing),
            upstream: None,
            peer: None,
            in_flight: None,
            bytes: copy::Bytes::default(),
            reason: None,
            ended: false,
        }
    }

    pub(crate) fn set_metrics(&mut self, metrics: &Arc<RequestMetrics>) {
        metrics.begin();
        self.metrics = Some(Arc::clone(metrics));
    }

    pub(crate) fn end(&mut self, reason: Option<Reason>) {
        self.reason = reason;
        self.ended = true;
    }

    /// Ends before a byte was said: a plain close would look like an answer without content.
    pub(crate) fn refuse(&mut self, client: &Stream, reason: Reason) {
        client.reset_on_close();
        self.end(Some(reason));
    }

    /// Remembers that the port's server speaks first, if it does.
    fn learn_server_first(&self, service: &Arc<str>, port: u16) {
        let worker = Rc::clone(self.worker);
        let service = Arc::clone(service);
        let learn = move || worker.learnt.server_first(&service, port);
        self.bytes.server_first.set(Some(Box::new(learn)));
    }

    /// Copies until both sides are done.
    pub(crate) async fn copy(
        &mut self,
        client: &mut Stream,
        server: &mut Stream,
        limits: TcpLimits,
    ) {
        if let Some(in_flight) = &mut self.in_flight {
            // There is no response to wait for; the connection is what the endpoint was asked for.
            in_flight.first_byte();
        }
        let end = copy::both_ways(client, server, limits, &self.bytes).await;
        self.end(match end {
            copy::End::Closed => None,
            copy::End::Idle => Some(Reason::StreamIdleTimeout),
            copy::End::Lifetime => {
                // Cut in the middle, and both are to see it.
                server.reset_on_close();
                client.reset_on_close();
                Some(Reason::ConnectionLifetime)
            }
            copy::End::Client => {
                // What the client did to us is done to the server: it must not look like a proper end.
                server.reset_on_close();
                Some(Reason::ClientGone)
            }
            copy::End::Server => {
                client.reset_on_close();
                Some(Reason::UpstreamTruncated)
            }
        });
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if !self.ended {
            // The worker ended before the connection did.
            self.reason = Some(Reason::Draining);
        }
        let outcome = Outcome {
            reason: self.reason,
            duration: self.started.elapsed(),
            request_bytes: self.bytes.up.get(),
            response_bytes: self.bytes.down.get(),
            ..Outcome::default()
        };
        match &self.metrics {
            Some(metrics) => metrics.finish(&outcome),
            None => {
                let metrics = match self.direction {
                    Direction::Outbound => &self.worker.unrouted,
                    Direction::Inbound => &self.worker.unserved,
                };
                metrics.begin();
                metrics.finish(&outcome);
            }
        }
        let shared = &self.worker.shared;
        let mode = shared.snapshot.load().mesh.access_log;
        if shared.access_log.enabled(mode, &outcome) {
            let now = SystemTime::now();
            shared.access_log.record(Entry {
                time: now.checked_sub(outcome.duration).unwrap_or(now),
                direction: self.direction,
                request: None,
                protocol: "tcp",
                outcome,
                service: Arc::clone(&self.service),
                route: Arc::clone(&self.route),
                upstream: self.upstream.clone(),
                peer: self.peer.clone(),
                client: Some(self.client),
                attempts: u32::from(self.upstream.is_some()),
                not_retried: None,
                filter: None,
                fallback: None,
                cache_salt: None,
                turn: None,
                model: None,
            });
        }
    }
}
