//! From peers to the application: accept → authenticate → forward.

mod admit;
mod application;
mod budget;
mod forward;
mod model;
mod plaintext;
mod port;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::detect::{self, Detected, FirstByte};
use crate::error::Reason;
use crate::http::server::{self, Client, Handler};
use crate::identity::SpiffeId;
use crate::listener::{Connection, Stream, accept, proxy_protocol};
use crate::policy::InboundPort;
use crate::runtime::Worker;
use crate::tcp::Session;
use crate::telemetry::Direction;
use crate::telemetry::metrics::{Side, Wire};
use crate::tls::{self, HandshakeFailure};

use forward::Inbound;

/// From the first byte to the end of the handshake. Two round trips; the rest is patience with loaded machines.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Accepts peers' connections until a drain begins.
pub(crate) async fn listen(worker: Rc<Worker>, socket: TcpListener) {
    accept(worker, socket, |worker, stream, address| {
        tokio::task::spawn_local(serve(Rc::clone(worker), stream, address));
    })
    .await;
}

async fn serve(worker: Rc<Worker>, mut stream: TcpStream, mut address: SocketAddr) {
    if worker.bound.proxy_protocol.inbound {
        let direction = Direction::Inbound;
        let client = proxy_protocol::client(&worker, &mut stream, address, direction);
        match Box::pin(client).await {
            Some(client) => address = client,
            None => return,
        }
    }
    let plain = plaintext::port(&worker.shared.snapshot.load());
    let first = match &plain {
        None => detect::first_byte(&stream, detect::SILENCE).await,
        Some(port) => {
            // A client without a sidecar may wait for the server's first word.
            let first = detect::first_byte(&stream, port.detection.timeout).await;
            if matches!(first, Ok(FirstByte::Silence)) {
                let serving = plaintext::serve(worker, stream, address, Arc::clone(port));
                return Box::pin(serving).await;
            }
            first
        }
    };
    let Ok(FirstByte::Is(first)) = first else {
        return;
    };
    if first == detect::TLS_HANDSHAKE {
        // Boxed: a handshake's state is large, and short-lived.
        match Box::pin(authenticate(&worker, stream)).await {
            Ok(peer) => serve_peer(worker, peer, address).await,
            Err(failure) => {
                tracing::debug!(%address, failure = failure.as_str(), "peer refused");
            }
        }
    } else if let Some(port) = plain {
        Box::pin(plaintext::serve(worker, stream, address, port)).await;
    } else if worker.shared.snapshot.load().mesh.permissive {
        serve_plaintext(worker, stream, address).await;
    } else {
        let metrics = &worker.shared.metrics;
        metrics.handshake(Direction::Inbound, Err(HandshakeFailure::NoCertificate));
        tracing::debug!(%address, "plaintext refused: the mesh is strict");
    }
}

/// A connection whose peer has proved who it is.
struct Peer {
    stream: Stream,
    id: SpiffeId,
    /// The service and port that are meant.
    server_name: Option<Box<str>>,
    wire: Wire,
}

/// The TLS handshake, counted.
async fn authenticate(worker: &Worker, stream: TcpStream) -> Result<Peer, HandshakeFailure> {
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake(worker, stream));
    let result = handshake.await.unwrap_or(Err(HandshakeFailure::Protocol));
    let count = result.as_ref().map(|_| ()).map_err(|failure| *failure);
    worker.shared.metrics.handshake(Direction::Inbound, count);
    result
}

async fn handshake(worker: &Worker, stream: TcpStream) -> Result<Peer, HandshakeFailure> {
    // Without an identity nobody can be answered; the peer tries another endpoint.
    let tls = worker
        .shared
        .tls
        .load_full()
        .ok_or(HandshakeFailure::Protocol)?;
    let stream = TlsAcceptor::from(Arc::clone(&tls.server))
        .accept(stream)
        .await
        .map_err(|error| tls::classify(&error))?;
    let connection = stream.get_ref().1;
    let id = tls::peer_id(connection)?;
    let server_name = connection.server_name().map(Box::from);
    let wire = match connection.alpn_protocol() {
        Some(b"h2") => Wire::Http2,
        Some(b"outrigger-tcp") => Wire::Tcp,
        // Also without ALPN: what every TLS client can speak.
        _ => Wire::Http1,
    };
    Ok(Peer {
        stream: Stream::from(tokio_rustls::TlsStream::from(stream)),
        id,
        server_name,
        wire,
    })
}

async fn serve_peer(worker: Rc<Worker>, peer: Peer, address: SocketAddr) {
    let Peer {
        stream,
        id,
        server_name,
        wire,
    } = peer;
    if wire == Wire::Tcp {
        let serving = serve_bytes(worker, stream, id, server_name, address);
        return Box::pin(serving).await;
    }
    let client = Client::new(&worker, address, Direction::Inbound, wire);
    let handler = Rc::new(Inbound::new(client, Some(id), server_name));
    server::spawn(wire, stream, handler);
}

async fn serve_plaintext(worker: Rc<Worker>, stream: TcpStream, address: SocketAddr) {
    let mut stream = Stream::from(stream);
    let detected = detect::detect(&mut stream).await;
    let wire = match detected {
        Detected::Silent => return,
        Detected::Http1 | Detected::Stalled => Wire::Http1,
        Detected::Http2 => Wire::Http2,
    };
    let client = Client::new(&worker, address, Direction::Inbound, wire);
    let handler = Rc::new(Inbound::new(client, None, None));
    if detected == Detected::Stalled {
        handler.refused(Reason::HeadTimeout);
        // It may not be read any more.
        let _ = stream.write_all(&detect::STALLED).await;
        return;
    }
    server::spawn(wire, stream, handler);
}

/// Bytes for the application.
async fn serve_bytes(
    worker: Rc<Worker>,
    stream: Stream,
    id: SpiffeId,
    server_name: Option<Box<str>>,
    address: SocketAddr,
) {
    let _connection = Connection::open(&worker);
    let metrics = &worker.shared.metrics;
    let _open = metrics.connection(Direction::Inbound, Side::Downstream, Wire::Tcp);
    let mut session = Session::begin(&worker, address, Direction::Inbound);
    let name = server_name.as_deref().unwrap_or_default();
    let Some(port) = worker.shared.snapshot.load().inbound.get(name).cloned() else {
        return session.refuse(&stream, Reason::UnknownService);
    };
    let kind = metrics.request(Direction::Inbound, &port.service, "", id.as_str());
    session.set_metrics(&kind);
    session.peer = Some(id);
    if port.has_limits_of_requests() {
        // A tunnel around a limit would be the end of it.
        session.service = Arc::clone(&port.service);
        return session.refuse(&stream, Reason::ProtocolMismatch);
    }
    forward_bytes(&worker, session, stream, &port, address).await;
}

/// Connects to the application, and copies until both sides are done.
async fn forward_bytes(
    worker: &Rc<Worker>,
    mut session: Session<'_>,
    mut stream: Stream,
    port: &InboundPort,
    address: SocketAddr,
) {
    let metrics = &worker.shared.metrics;
    session.service = Arc::clone(&port.service);
    session.upstream = Some(port.application.clone());
    match application::connect(worker, port).await {
        Ok(mut application) => {
            if let Some(version) = port.proxy_protocol {
                let header = proxy_protocol::encode(version, Some(address), stream.local_addr());
                // The copy finds out that the connection is gone.
                let _ = application.write_all(&header).await;
            }
            let _open = metrics.connection(Direction::Inbound, Side::Upstream, Wire::Tcp);
            session.copy(&mut stream, &mut application, port.tcp).await;
        }
        Err(reason) => session.refuse(&stream, reason),
    }
}
