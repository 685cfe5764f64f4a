//! TLS towards servers outside the mesh: their certificates are verified against public or given roots, and they get none
//! of ours.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{ALPN_H2, ALPN_HTTP1, REMEMBERED_SESSIONS, provider};

/// What a service says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OriginSettings {
    /// What is sent as SNI. `None`: the endpoint's name.
    pub server_name: Option<ServerName<'static>>,
    /// Empty: the system's.
    pub roots: Vec<CertificateDer<'static>>,
    /// The certificate must have one of these. Empty: the name that is sent.
    pub names: Vec<ServerName<'static>>,
}

/// Configurations for one service, for TLS 1.2 and 1.3.
#[derive(Debug)]
pub struct OriginTls {
    pub settings: OriginSettings,
    /// Offers ALPN `h2` only.
    pub(crate) h2: Arc<ClientConfig>,
    /// Offers ALPN `http/1.1` only.
    pub(crate) http1: Arc<ClientConfig>,
    /// Without ALPN.
    pub(crate) tcp: Arc<ClientConfig>,
}

impl OriginTls {
    /// Fails where a given root is no certificate of an authority.
    pub fn new(settings: OriginSettings) -> Result<OriginTls, Error> {
        let provider = provider();
        let roots = if settings.roots.is_empty() {
            system_roots()
        } else {
            let mut roots = RootCertStore::empty();
            for root in &settings.roots {
                roots.add(root.clone())?;
            }
            Arc::new(roots)
        };
        let verifier = Arc::new(OriginVerifier {
            roots,
            names: settings.names.clone(),
            algorithms: provider.signature_verification_algorithms,
        });
        let config = |alpn: &[&[u8]]| -> Result<Arc<ClientConfig>, Error> {
            let mut config = ClientConfig::builder_with_provider(provider.clone())
                .with_safe_default_protocol_versions()?
                .dangerous()
                .with_custom_certificate_verifier(verifier.clone())
                .with_no_client_auth();
            config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
            config.resumption = Resumption::in_memory_sessions(REMEMBERED_SESSIONS);
            Ok(Arc::new(config))
        };
        Ok(OriginTls {
            h2: config(&[ALPN_H2])?,
            http1: config(&[ALPN_HTTP1])?,
            tcp: config(&[])?,
            settings,
        })
    }
}

/// The system's roots (`SSL_CERT_FILE` and `SSL_CERT_DIR` count), read when the first service needs them and kept: some
/// hundred kilobytes.
///
/// A machine that has none verifies nobody: every handshake fails as untrusted.
fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let read = || {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (_, ignored) = roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            tracing::warn!(
                ignored,
                errors = ?found.errors,
                "this machine has no CA certificates: servers outside the mesh cannot be verified, unless their service \
                 names a CA"
            );
        }
        Arc::new(roots)
    };
    ROOTS.get_or_init(read).clone()
}

/// The chain leads to the roots, and the certificate has one of the names.
#[derive(Debug)]
struct OriginVerifier {
    roots: Arc<RootCertStore>,
    /// Empty: the name that is connected to.
    names: Vec<ServerName<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for OriginVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let leaf = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(
            &leaf,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        if self.names.is_empty() {
            verify_server_name(&leaf, server_name)?;
            return Ok(ServerCertVerified::assertion());
        }
        let mut result = Ok(());
        for name in &self.names {
            result = verify_server_name(&leaf, name);
            if result.is_ok() {
                break;
            }
        }
        result.map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
