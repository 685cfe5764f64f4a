//! Keys, certificates and connections.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use outrigger_control_plane::client::Context;
use outrigger_proto::identity::v1 as identity;
use rcgen::{CertificateParams, KeyPair};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

/// A key and its certificate.
pub struct Credentials {
    pub key: PrivatePkcs8KeyDer<'static>,
    pub chain: Vec<CertificateDer<'static>>,
    pub response: identity::IssueCertificateResponse,
}

impl Credentials {
    pub fn new(key: KeyPair, response: identity::IssueCertificateResponse) -> Credentials {
        let chain = response.certificate_chain_der.iter();
        Credentials {
            key: PrivatePkcs8KeyDer::from(key.serialize_der()),
            chain: chain.map(|der| der.clone().into()).collect(),
            response,
        }
    }
}

pub fn request(key: &KeyPair, token: Option<&str>) -> identity::IssueCertificateRequest {
    let csr = CertificateParams::default().serialize_request(key).unwrap();
    identity::IssueCertificateRequest {
        csr_der: csr.der().to_vec(),
        attestation: token.map(|token| {
            identity::issue_certificate_request::Attestation::JoinToken(token.to_owned())
        }),
        lifetime_seconds: 0,
    }
}

pub fn client_config(context: &Context, credentials: Option<&Credentials>) -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(context.ca_certificate.as_bytes()).unwrap();
    roots.add(root).unwrap();
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_webpki_verifier(verifier.build().unwrap());
    let mut config = match credentials {
        None => builder.with_no_client_auth(),
        Some(credentials) => {
            let key = PrivateKeyDer::from(credentials.key.clone_key());
            let chain = credentials.chain.clone();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

pub async fn connect(
    address: SocketAddr,
    tls: rustls::ClientConfig,
) -> Result<Channel, tonic::transport::Error> {
    let connector = TlsConnector::from(Arc::new(tls));
    let dial = move |_: http::Uri| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            // A DNS name of the control plane's certificate.
            let name = ServerName::try_from("control-plane.outrigger.local").unwrap();
            let stream = connector.connect(name, stream).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    };
    Endpoint::from_static("http://control-plane")
        .connect_with_connector(tower_dial::Dial(dial))
        .await
}

mod tower_dial {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    /// A connector from a function.
    pub struct Dial<F>(pub F);

    impl<F, R, T, E> tower_service::Service<http::Uri> for Dial<F>
    where
        F: FnMut(http::Uri) -> R,
        R: Future<Output = Result<T, E>> + Send + 'static,
    {
        type Response = T;
        type Error = E;
        type Future = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, uri: http::Uri) -> Self::Future {
            Box::pin((self.0)(uri))
        }
    }
}
