//! Opens a connection: TCP, TLS, and the proof that the other side is who it should be.

use std::io;
use std::sync::Arc;

use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::{Destination, Failure, Peer, Target};
use crate::error::Reason;
use crate::identity::SpiffeId;
use crate::listener::Stream;
use crate::policy::OutsideTls;
use crate::runtime::Worker;
use crate::shared::Shared;
use crate::telemetry::Direction;
use crate::tls::{self, HandshakeFailure, OriginTls, TlsState};

/// What a connection between sidecars carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alpn {
    Http2,
    Http1,
    /// Bytes.
    Tcp,
}

impl Alpn {
    fn config(self, tls: &TlsState) -> &Arc<rustls::ClientConfig> {
        match self {
            Alpn::Http2 => &tls.client_h2,
            Alpn::Http1 => &tls.client_http1,
            Alpn::Tcp => &tls.client_tcp,
        }
    }

    fn name(self) -> &'static [u8] {
        match self {
            Alpn::Http2 => b"h2",
            Alpn::Http1 => b"http/1.1",
            Alpn::Tcp => b"outrigger-tcp",
        }
    }

    fn config_outside(self, tls: &OriginTls) -> &Arc<rustls::ClientConfig> {
        match self {
            Alpn::Http2 => &tls.h2,
            Alpn::Http1 => &tls.http1,
            Alpn::Tcp => &tls.tcp,
        }
    }
}

/// A connection, and who is at its other end (`None`: plaintext).
pub(crate) struct Connected {
    pub(crate) stream: Stream,
    pub(crate) peer: Option<SpiffeId>,
}

/// Connects within the target's connect time. Large: box it.
pub(crate) async fn connect(
    worker: &Worker,
    target: Target<'_>,
    alpn: Alpn,
) -> Result<Connected, Failure> {
    // Over HTTP/2 several requests wait for one connection, and count themselves.
    let _waiting = match alpn {
        Alpn::Http2 => None,
        Alpn::Http1 | Alpn::Tcp => target.wait()?,
    };
    if target.has_no_room() {
        worker.pool.close_one_idle(&target);
    }
    connect_ahead(worker, target, alpn).await
}

/// As [`connect`], for no request: nothing makes room for it.
pub(super) async fn connect_ahead(
    worker: &Worker,
    target: Target<'_>,
    alpn: Alpn,
) -> Result<Connected, Failure> {
    let held = target.hold_connection()?;
    let mut connected = dial(&worker.shared, target, alpn).await?;
    if let Some(held) = held {
        connected.stream.hold(held);
    }
    Ok(connected)
}

/// As [`connect`], from any thread and beside the limits: for what is no request.
pub(crate) async fn dial(
    shared: &Shared,
    target: Target<'_>,
    alpn: Alpn,
) -> Result<Connected, Failure> {
    let connecting = establish(shared, target, alpn);
    match tokio::time::timeout(target.connect_timeout, connecting).await {
        Ok(result) => result.map_err(Failure::before),
        Err(_) => Err(Failure::before(Reason::ConnectTimeout)),
    }
}

async fn establish(shared: &Shared, target: Target<'_>, alpn: Alpn) -> Result<Connected, Reason> {
    let address = match target.address {
        Destination::Ip(address) => address,
        Destination::Unix(path) => {
            // Only applications are reached that way, without TLS.
            let stream = UnixStream::connect(path).await;
            return Ok(Connected {
                stream: Stream::from(stream.map_err(|error| refused(&error))?),
                peer: None,
            });
        }
    };
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| refused(&error))?;
    // Fails only where the connection is gone already, which the first write finds out.
    let _ = stream.set_nodelay(true);
    let result = match (target.peer, target.outside) {
        (Some(peer), _) => {
            let tls = shared.tls.load_full().ok_or(Reason::NotReady)?;
            handshake(stream, peer, alpn, &tls).await
        }
        (None, Some(outside)) => handshake_outside(stream, outside, alpn).await,
        (None, None) => {
            return Ok(Connected {
                stream: Stream::from(stream),
                peer: None,
            });
        }
    };
    let metrics = &shared.metrics;
    metrics.handshake(
        Direction::Outbound,
        result.as_ref().map(|_| ()).map_err(|failure| *failure),
    );
    result.map_err(|failure| {
        tracing::debug!(%address, failure = failure.as_str(), "TLS handshake failed");
        reason(failure)
    })
}

/// What a failed handshake means for the request: nobody there who speaks TLS, or somebody who is not to be trusted.
pub(super) fn reason(failure: HandshakeFailure) -> Reason {
    match failure {
        HandshakeFailure::Protocol => Reason::ConnectFailed,
        _ => Reason::UpstreamUntrusted,
    }
}

fn refused(error: &io::Error) -> Reason {
    match error.kind() {
        // The kernel gave up before our own clock did.
        io::ErrorKind::TimedOut => Reason::ConnectTimeout,
        _ => Reason::ConnectFailed,
    }
}

async fn handshake(
    stream: TcpStream,
    peer: Peer<'_>,
    alpn: Alpn,
    tls: &TlsState,
) -> Result<Connected, HandshakeFailure> {
    let connector = TlsConnector::from(Arc::clone(alpn.config(tls)));
    let stream = connector
        .connect(peer.server_name.clone(), stream)
        .await
        .map_err(|error| tls::classify(&error))?;
    let connection = stream.get_ref().1;
    let id = tls::peer_id(connection)?;
    if !is_allowed(&id, &peer) {
        return Err(HandshakeFailure::WrongIdentity);
    }
    // A server that ignores ALPN is not a sidecar.
    if connection.alpn_protocol() != Some(alpn.name()) {
        return Err(HandshakeFailure::Protocol);
    }
    Ok(Connected {
        stream: Stream::from(tokio_rustls::TlsStream::from(stream)),
        peer: Some(id),
    })
}

/// With a server outside the mesh. It proves its name, and learns nothing of ours.
async fn handshake_outside(
    stream: TcpStream,
    outside: &OutsideTls,
    alpn: Alpn,
) -> Result<Connected, HandshakeFailure> {
    let connector = TlsConnector::from(Arc::clone(alpn.config_outside(&outside.origin)));
    let stream = connector
        .connect(outside.server_name.clone(), stream)
        .await
        .map_err(|error| tls::classify(&error))?;
    // HTTP/2 over TLS is agreed on by ALPN (RFC 9113, section 3.3); a server that knows no ALPN speaks HTTP/1.1.
    if alpn == Alpn::Http2 && stream.get_ref().1.alpn_protocol() != Some(alpn.name()) {
        return Err(HandshakeFailure::Protocol);
    }
    Ok(Connected {
        stream: Stream::from(tokio_rustls::TlsStream::from(stream)),
        peer: None,
    })
}

/// The service says who may serve it; where an endpoint announced itself, it must also be the one that did.
pub(super) fn is_allowed(id: &SpiffeId, peer: &Peer<'_>) -> bool {
    let of_service = |id| {
        peer.upstream
            .identities
            .iter()
            .any(|pattern| pattern.matches(id))
    };
    of_service(id) && peer.identity.is_none_or(|announced| announced == id)
}
