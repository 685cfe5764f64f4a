//! Makes the connection: TCP, TLS, HTTP/2, each with an error that says what to look at.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use super::context::Context;
use super::verify::{ServerVerifier, VerifyError};

/// Pings on a quiet connection, so that a watch ends when the control plane's machine is gone. The server side allows
/// one ping in ten seconds and more.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// How to connect.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// Limit for TCP, TLS and HTTP/2 together.
    pub timeout: Duration,
    /// Address instead of the context's, `host:port`.
    pub server: Option<String>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            server: None,
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("`{0}` is not an address; allowed: HOST:PORT")]
    Address(String),
    #[error("the context's CA certificate is not usable: {0}")]
    Ca(String),
    #[error("the context's token holds characters that cannot be sent")]
    TokenNotAscii,
    #[error("cannot connect to the control plane at {server}: {source}")]
    Tcp { server: String, source: io::Error },
    #[error("the control plane at {server} did not answer within {timeout:?}")]
    Timeout { server: String, timeout: Duration },
    #[error("the server at {server} is not the control plane of this context: {reason}")]
    Untrusted { server: String, reason: VerifyError },
    #[error("no TLS connection to the control plane at {server}: {source}")]
    Tls { server: String, source: io::Error },
    #[error("no HTTP/2 connection to the control plane at {server}: {reason}")]
    Http { server: String, reason: String },
}

/// Connects, and connects again for later calls where the connection was lost.
pub(super) async fn channel(
    context: &Context,
    options: &ConnectOptions,
) -> Result<Channel, ConnectError> {
    let server = options.server.as_ref().unwrap_or(&context.server).clone();
    let endpoint = endpoint(&server)?;
    let dial = Dial {
        server: server.clone(),
        tls: TlsConnector::from(Arc::new(tls_config(context)?)),
    };
    let connecting = endpoint.connect_with_connector(dial);
    match tokio::time::timeout(options.timeout, connecting).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(explain(server, error)),
        Err(_) => Err(ConnectError::Timeout {
            server,
            timeout: options.timeout,
        }),
    }
}

fn endpoint(server: &str) -> Result<Endpoint, ConnectError> {
    let bad = || ConnectError::Address(server.to_owned());
    // The scheme is never used: the connector below always speaks TLS.
    let uri: Uri = format!("http://{server}").parse().map_err(|_| bad())?;
    if uri.port_u16().is_none()
        || uri.path() != "/"
        || uri.authority().is_some_and(|a| a.as_str() != server)
    {
        return Err(bad());
    }
    Ok(Endpoint::from(uri)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .tcp_nodelay(true))
}

fn tls_config(context: &Context) -> Result<ClientConfig, ConnectError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let roots = context.roots().map_err(ConnectError::Ca)?;
    let verifier = ServerVerifier::new(&roots, context.trust_domain.clone(), Arc::clone(&provider))
        .map_err(|error| ConnectError::Ca(error.to_string()))?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| ConnectError::Ca(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    // The verifier ignores it, and an address in SNI is not allowed.
    config.enable_sni = false;
    Ok(config)
}

/// Finds the error of [`Dial`] beneath the transport's own words for it.
fn explain(server: String, error: tonic::transport::Error) -> ConnectError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    let mut last = error.to_string();
    while let Some(error) = source {
        if let Some(dial) = error.downcast_ref::<DialError>() {
            return dial.to_connect_error(server);
        }
        last = error.to_string();
        source = error.source();
    }
    ConnectError::Http {
        server,
        reason: last,
    }
}

#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("TCP: {0}")]
    Tcp(io::Error),
    #[error("TLS: {0}")]
    Tls(io::Error),
}

impl DialError {
    fn to_connect_error(&self, server: String) -> ConnectError {
        // An io::Error cannot be cloned; kind and text are all that is used of it.
        let copy = |error: &io::Error| io::Error::new(error.kind(), error.to_string());
        match self {
            Self::Tcp(error) => ConnectError::Tcp {
                server,
                source: copy(error),
            },
            Self::Tls(error) => match refusal(error) {
                Some(reason) => ConnectError::Untrusted { server, reason },
                None => ConnectError::Tls {
                    server,
                    source: copy(error),
                },
            },
        }
    }
}

/// What [`ServerVerifier`] said, where it was the one that ended the handshake.
fn refusal(error: &io::Error) -> Option<VerifyError> {
    let rustls = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) = rustls else {
        return None;
    };
    other.0.downcast_ref::<VerifyError>().cloned()
}

/// Opens TLS connections to one server, whatever URI it is asked for.
#[derive(Clone)]
struct Dial {
    server: String,
    tls: TlsConnector,
}

impl tower_service::Service<Uri> for Dial {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { server, tls } = self.clone();
        Box::pin(async move {
            let tcp = TcpStream::connect(&server).await.map_err(DialError::Tcp)?;
            tcp.set_nodelay(true).map_err(DialError::Tcp)?;
            // Neither sent nor checked, see `tls_config`.
            let name = ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into());
            let stream = tls.connect(name, tcp).await.map_err(DialError::Tls)?;
            Ok(TokioIo::new(stream))
        })
    }
}

#[cfg(test)]
mod tests;
