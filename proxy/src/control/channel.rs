//! A connection to the control plane: TCP, TLS with our own verification, HTTP/2 with keepalive.

use std::future::{Ready, ready};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// For each of name lookup, TCP connect and TLS handshake. Loopback and a data centre need milliseconds; a control plane
/// that takes longer is taken for dead and tried again.
const STEP: Duration = Duration::from_secs(3);

/// A ping goes out when nothing was heard for this long, and the connection is dead when the answer takes longer than
/// [`PING_TIMEOUT`]: together they bound how long a vanished control plane goes unnoticed.
const PING_INTERVAL: Duration = Duration::from_secs(3);
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// Largest message that is accepted. An endpoint takes about 200 bytes: enough for a delta with 100,000 of them.
pub(crate) const MAX_MESSAGE: usize = 32 << 20;

/// An established connection.
#[derive(Clone, Debug)]
pub struct Connection {
    pub channel: Channel,
    /// The address used towards the control plane: the one that peers are likely to reach.
    pub local: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot resolve {address}: {error}")]
    Resolve { address: String, error: io::Error },
    #[error("cannot connect to {address}: {error}")]
    Connect { address: String, error: io::Error },
    /// The TLS handshake failed; `refused` where it is the certificate that we refused.
    #[error("TLS with {address} failed: {}", crate::tls::explain(error))]
    Tls {
        address: String,
        error: io::Error,
        refused: bool,
    },
    #[error("HTTP/2 with {address} failed: {error}")]
    Http2 {
        address: String,
        error: tonic::transport::Error,
    },
}

/// Connects to `host:port`. Never reconnects by itself: a connection that is lost ends the calls on it.
pub async fn connect(address: &str, tls: Arc<ClientConfig>) -> Result<Connection, ConnectError> {
    let stream = connect_tcp(address).await?;
    let local = stream.local_addr().map_err(|error| ConnectError::Connect {
        address: address.to_owned(),
        error,
    })?;
    let stream = handshake(address, stream, tls).await?;
    // The scheme and the authority only fill the requests' heads: the stream is there already, and encrypted.
    let channel = Endpoint::from_static("http://control-plane")
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_with_connector(Once(Some(stream)))
        .await
        .map_err(|error| ConnectError::Http2 {
            address: address.to_owned(),
            error,
        })?;
    Ok(Connection { channel, local })
}

async fn connect_tcp(address: &str) -> Result<TcpStream, ConnectError> {
    let resolve_error = |error| ConnectError::Resolve {
        address: address.to_owned(),
        error,
    };
    let candidates = timeout(STEP, tokio::net::lookup_host(address))
        .await
        .map_err(|_| resolve_error(timed_out()))?
        .map_err(resolve_error)?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no addresses");
    for candidate in candidates {
        match timeout(STEP, TcpStream::connect(candidate)).await {
            Ok(Ok(stream)) => {
                // Small messages both ways: waiting to fill a packet only adds latency. A failure shows on first use.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = timed_out(),
        }
    }
    Err(ConnectError::Connect {
        address: address.to_owned(),
        error: last,
    })
}

async fn handshake(
    address: &str,
    stream: TcpStream,
    tls: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let tls_error = |error: io::Error| ConnectError::Tls {
        address: address.to_owned(),
        refused: matches!(
            error.get_ref().and_then(|inner| inner.downcast_ref()),
            Some(rustls::Error::InvalidCertificate(_))
        ),
        error,
    };
    // Verification goes by SPIFFE id; the name is only sent along, and an address is sent as nothing.
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let name = ServerName::try_from(host)
        .map_err(|error| tls_error(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    timeout(STEP, TlsConnector::from(tls).connect(name, stream))
        .await
        .map_err(|_| tls_error(timed_out()))?
        .map_err(tls_error)
}

fn timed_out() -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        format!("no answer within {} s", STEP.as_secs()),
    )
}

/// Hands out the stream that is there, once.
struct Once(Option<TlsStream<TcpStream>>);

impl tower_service::Service<Uri> for Once {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Ready<Result<Self::Response, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(match self.0.take() {
            Some(stream) => Ok(TokioIo::new(stream)),
            None => Err(io::Error::new(
                io::ErrorKind::NotConnected,
                "the connection to the control plane was lost",
            )),
        })
    }
}
