//! Verification of the other side's certificate: the chain leads to the trust bundle, and the leaf carries a SPIFFE id that
//! may be there. Host names play no part.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::identity::{Identity, InvalidSpiffeId, SpiffeId};

/// What of a leaf matters after its chain was verified.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub id: SpiffeId,
    /// Seconds since 1970.
    pub not_after: i64,
}

/// Why a certificate of a trusted chain is refused all the same.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    #[error("the certificate cannot be parsed")]
    Encoding,
    /// X509-SVID, section 2: exactly one.
    #[error("the certificate has {0} URI names; it must have exactly one, a SPIFFE id")]
    Names(usize),
    #[error("the certificate's name is no SPIFFE id of a mesh: {0}")]
    Form(#[from] InvalidSpiffeId),
    #[error("{found} is not of trust domain {wanted}")]
    TrustDomain { found: SpiffeId, wanted: Arc<str> },
    #[error("{found} is not the control plane of trust domain {wanted}")]
    NotControlPlane { found: SpiffeId, wanted: Arc<str> },
    #[error("no certificate of the chain has the fingerprint that the join token names")]
    Fingerprint,
}

impl From<IdentityError> for Error {
    fn from(error: IdentityError) -> Error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
    }
}

/// Reads the SPIFFE id and the validity.
pub(crate) fn read_leaf(der: &CertificateDer<'_>) -> Result<Leaf, IdentityError> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| IdentityError::Encoding)?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| IdentityError::Encoding)?;
    let mut uris = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
    let id = match (uris.next(), uris.count()) {
        (Some(uri), 0) => uri.parse()?,
        (None, _) => return Err(IdentityError::Names(0)),
        (Some(_), more) => return Err(IdentityError::Names(more + 1)),
    };
    Ok(Leaf {
        id,
        not_after: certificate.validity().not_after.timestamp(),
    })
}

/// Whom to accept once the chain is good.
#[derive(Clone, Debug)]
pub(super) enum Who {
    /// Any member of the trust domain. Which one may be there is for the data path to say: it knows the service.
    AnyOf(Arc<str>),
    /// The control plane of the trust domain.
    ControlPlane(Arc<str>),
}

impl Who {
    fn check(&self, leaf: &CertificateDer<'_>) -> Result<(), IdentityError> {
        let found = read_leaf(leaf)?.id;
        match self {
            Who::AnyOf(wanted) if found.trust_domain() != &**wanted => {
                Err(IdentityError::TrustDomain {
                    found,
                    wanted: wanted.clone(),
                })
            }
            Who::ControlPlane(wanted) if found != SpiffeId::control_plane(wanted)? => {
                Err(IdentityError::NotControlPlane {
                    found,
                    wanted: wanted.clone(),
                })
            }
            Who::AnyOf(_) | Who::ControlPlane(_) => Ok(()),
        }
    }
}

/// Verifies peers against the trust bundle, as server and as client.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
    who: Who,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PeerVerifier {
    pub(super) fn new(
        roots: &[CertificateDer<'static>],
        who: Who,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<PeerVerifier>, Error> {
        let roots = Arc::new(root_store(roots)?);
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| Error::General(format!("the trust bundle is unusable: {error}")))?;
        Ok(Arc::new(PeerVerifier {
            roots,
            clients,
            who,
            algorithms: provider.signature_verification_algorithms,
        }))
    }
}

fn root_store(roots: &[CertificateDer<'static>]) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone())?;
    }
    Ok(store)
}

fn verify_chain(
    roots: &RootCertStore,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<(), Error> {
    let leaf = rustls::server::ParsedCertificate::try_from(leaf)?;
    verify_server_cert_signed_by_trust_anchor(&leaf, roots, intermediates, now, algorithms.all)
}

/// Verifies an identity of our own, as a peer will.
pub(super) fn chain_of(identity: &Identity, provider: &CryptoProvider) -> Result<(), Error> {
    let (leaf, intermediates) = identity
        .chain
        .split_first()
        .ok_or(Error::NoCertificatesPresented)?;
    let roots = root_store(&identity.roots)?;
    let algorithms = provider.signature_verification_algorithms;
    verify_chain(&roots, leaf, intermediates, UnixTime::now(), &algorithms)
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_chain(&self.roots, leaf, intermediates, now, &self.algorithms)?;
        self.who.check(leaf)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
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

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Every sidecar has one certificate: hints would only make the handshake longer.
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.clients.verify_client_cert(leaf, intermediates, now)?;
        self.who.check(leaf)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
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

/// Verifies the control plane before anything but a fingerprint is known of its CA.
#[derive(Debug)]
pub(super) struct PinnedRoot {
    sha256: [u8; 32],
    who: Who,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PinnedRoot {
    pub(super) fn new(
        sha256: [u8; 32],
        trust_domain: &str,
        provider: &CryptoProvider,
    ) -> PinnedRoot {
        PinnedRoot {
            sha256,
            who: Who::ControlPlane(trust_domain.into()),
            algorithms: provider.signature_verification_algorithms,
        }
    }
}

impl ServerCertVerifier for PinnedRoot {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // The leaf itself is no candidate: a trust anchor is a CA.
        let root = intermediates
            .iter()
            .find(|certificate| sha256(certificate) == self.sha256)
            .ok_or(IdentityError::Fingerprint)?;
        let roots = root_store(&[root.clone().into_owned()])?;
        verify_chain(&roots, leaf, intermediates, now, &self.algorithms)?;
        self.who.check(leaf)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
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

fn only_tls13() -> Error {
    // Never reached: the configurations allow TLS 1.3 only.
    Error::General("TLS 1.2 is not allowed".into())
}

fn sha256(der: &CertificateDer<'_>) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}
