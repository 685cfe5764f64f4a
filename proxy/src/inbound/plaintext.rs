//! Plaintext for a port that takes bytes, where the mesh is permissive: there is no name that says what is meant, so this
//! works where one port is served.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::forward::Inbound;
use super::forward_bytes;
use crate::detect;
use crate::http::server::{self, Client};
use crate::listener::{Connection, Stream};
use crate::policy::{InboundPort, Protocol, Snapshot};
use crate::runtime::Worker;
use crate::tcp::Session;
use crate::telemetry::Direction;
use crate::telemetry::metrics::{DetectionResult, Side, Wire};

/// The port that connections without a certificate may send bytes to.
pub(super) fn port(snapshot: &Snapshot) -> Option<Arc<InboundPort>> {
    if !snapshot.mesh.permissive {
        return None;
    }
    let mut ports = snapshot.inbound.values();
    match (ports.next(), ports.next()) {
        (Some(only), None)
            if matches!(
                only.protocol,
                Protocol::Tcp | Protocol::Tls | Protocol::Auto
            ) =>
        {
            Some(Arc::clone(only))
        }
        _ => None,
    }
}

/// Serves a connection without a certificate.
pub(super) async fn serve(
    worker: Rc<Worker>,
    stream: TcpStream,
    address: SocketAddr,
    port: Arc<InboundPort>,
) {
    let mut stream = Stream::from(stream);
    let connection = Connection::open(&worker);
    if port.protocol == Protocol::Auto {
        let inbound = Direction::Inbound;
        let of_port = (port.port, port.detection);
        let detecting = detect::of_port(&worker, &mut stream, inbound, &port.service, of_port);
        let wire = match detecting.await {
            DetectionResult::Http1 => Some(Wire::Http1),
            DetectionResult::Http2 => Some(Wire::Http2),
            _ => None,
        };
        if let Some(wire) = wire {
            // It counts as one of HTTP's from here on.
            drop(connection);
            let client = Client::new(&worker, address, inbound, wire);
            let handler = Rc::new(Inbound::new(client, None, None));
            return server::spawn(wire, stream, handler);
        }
    }
    let metrics = &worker.shared.metrics;
    let _open = metrics.connection(Direction::Inbound, Side::Downstream, Wire::Tcp);
    let mut session = Session::begin(&worker, address, Direction::Inbound);
    session.set_metrics(&metrics.request(Direction::Inbound, &port.service, "", ""));
    forward_bytes(&worker, session, stream, &port, address).await;
}
