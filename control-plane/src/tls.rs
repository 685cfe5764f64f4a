//! TLS of the control plane's gRPC ports: our own certificate, and who the peer is.
//!
//! A client certificate is optional here, since a sidecar that joins has none. One that is presented must be good: it
//! chains to the CA, is in its time, and carries a SPIFFE id of this trust domain, or the handshake fails.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use crate::ca::server_cert::ServerCert;
use crate::ca::{Ca, SpiffeId};
use crate::metrics::Metrics;

/// A client that has not finished its handshake by then is let go, and again one that then says nothing.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes under way at a time; further clients wait in the kernel's queue.
const MAX_HANDSHAKES: usize = 1024;
/// Length of the HTTP/2 connection preface (RFC 9113, section 3.4): what every client of ours starts with.
const PREFACE: usize = 24;

/// Who is at the other end of a connection. In the extensions of every request.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// From the client certificate; none was presented where this is unset.
    pub certificate: Option<PeerCertificate>,
}

/// What a verified client certificate says.
#[derive(Clone, Debug)]
pub struct PeerCertificate {
    pub identity: Arc<SpiffeId>,
    pub not_after: SystemTime,
}

/// TLS 1.3 with the control plane's certificate, whichever is current at the time of the handshake.
///
/// # Errors
/// The CA's roots cannot be used as trust anchors.
pub fn server_config(ca: &Ca, certificate: Arc<ServerCert>) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(MeshClients::new(ca, provider)?))
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would bring back a client certificate without looking at its end again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

#[derive(Debug)]
struct MeshClients {
    chain: Arc<dyn ClientCertVerifier>,
    trust_domain: String,
}

impl MeshClients {
    fn new(ca: &Ca, provider: Arc<CryptoProvider>) -> Result<MeshClients, rustls::Error> {
        let mut roots = RootCertStore::empty();
        for root in ca.roots() {
            roots.add(root.clone())?;
        }
        let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .allow_unauthenticated()
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(MeshClients {
            chain,
            trust_domain: ca.trust_domain().to_owned(),
        })
    }
}

impl ClientCertVerifier for MeshClients {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self
            .chain
            .verify_client_cert(end_entity, intermediates, now)?;
        match peer_certificate(end_entity) {
            Some(peer) if peer.identity.trust_domain() == self.trust_domain => Ok(verified),
            _ => Err(rustls::CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// The one SPIFFE id of a certificate and its end. X.509-SVID, section 2: there is exactly one URI.
fn peer_certificate(der: &CertificateDer<'_>) -> Option<PeerCertificate> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let names = certificate.subject_alternative_name().ok()??.value;
    let mut uris = names.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let identity = uris.next()?.parse().ok()?;
    if uris.next().is_some() {
        return None;
    }
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    Some(PeerCertificate {
        identity: Arc::new(identity),
        not_after: UNIX_EPOCH + Duration::from_secs(seconds),
    })
}

/// Accepts connections until the receiver is dropped. A client that is slow or talks rubbish costs itself only.
pub fn accept(
    listener: TcpListener,
    config: ServerConfig,
    port: &'static str,
    metrics: Arc<Metrics>,
) -> mpsc::Receiver<io::Result<PeerStream>> {
    let (ready, connections) = mpsc::channel(64);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let slots = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    tokio::spawn(async move {
        loop {
            // The semaphore is never closed.
            let Ok(slot) = slots.clone().acquire_owned().await else {
                return;
            };
            let (stream, address) = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Out of file descriptors, or the client is gone already: others may still come.
                        tracing::warn!(port, %error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
                () = ready.closed() => return,
            };
            let (acceptor, ready, metrics) = (acceptor.clone(), ready.clone(), metrics.clone());
            tokio::spawn(async move {
                let _slot = slot;
                let result = handshake(acceptor, stream, address).await;
                let label = if result.is_ok() { "ok" } else { "failed" };
                metrics.handshakes.with_label_values(&[port, label]).inc();
                match result {
                    Ok(stream) => drop(ready.send(Ok(stream)).await),
                    Err(error) => tracing::debug!(port, %address, %error, "no TLS handshake"),
                }
            });
        }
    });
    connections
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
) -> io::Result<PeerStream> {
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "not finished in time"))??;
    let (_, session) = stream.get_ref();
    let certificate = session
        .peer_certificates()
        .and_then(|chain| peer_certificate(chain.first()?));
    Ok(PeerStream {
        stream,
        peer: Peer {
            address,
            certificate,
        },
        silence: Some(Silence {
            left: PREFACE,
            timer: Box::pin(tokio::time::sleep_until(Instant::now() + HANDSHAKE)),
        }),
    })
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct PeerStream {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    silence: Option<Silence>,
}

/// Ends a connection on which the client does not begin to speak.
#[derive(Debug)]
struct Silence {
    left: usize,
    timer: Pin<Box<Sleep>>,
}

impl Connected for PeerStream {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Some(silence) = &mut self.silence {
            silence.left = silence.left.saturating_sub(buf.filled().len() - before);
            if silence.left == 0 {
                self.silence = None;
            } else if read.is_pending() {
                ready!(silence.timer.as_mut().poll(cx));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        read
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
