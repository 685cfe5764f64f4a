//! Who may call itself the control plane: a certificate that chains to a pinned root and carries the control plane's
//! SPIFFE id. Host names are ignored, for the control plane is reached by address, through tunnels and port-forwards.

use std::fmt::Write as _;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Path of the control plane's SPIFFE id.
pub const CONTROL_PLANE_PATH: &str = "/ns/outrigger-system/sa/control-plane";

/// Why a server is not the control plane.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    #[error("its certificate comes from another CA: expected {}, found {presented}", expected.join(" or "))]
    OtherCa {
        /// SHA-256 of the pinned roots.
        expected: Vec<String>,
        /// SHA-256 of the last certificate of the presented chain: the root, where the server sends it.
        presented: String,
    },
    #[error("its certificate is not valid at this time ({0}); compare the clocks of both machines")]
    Time(String),
    #[error("its certificate is for {}, not for {expected}", if found.is_empty() { "no SPIFFE id" } else { found })]
    OtherIdentity { expected: String, found: String },
    #[error("its certificate is not usable: {0}")]
    Unusable(String),
}

/// Verifies servers against pinned roots and the control plane's SPIFFE id.
#[derive(Debug)]
pub struct ServerVerifier {
    roots: RootCertStore,
    pinned: Vec<String>,
    trust_domain: Option<String>,
    provider: Arc<CryptoProvider>,
}

impl ServerVerifier {
    /// Trusts `roots` and nothing else. Without `trust_domain` the control plane may be of any domain that the roots
    /// vouch for. Fails where a root is not a certificate.
    pub fn new(
        roots: &[CertificateDer<'static>],
        trust_domain: Option<String>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, rustls::Error> {
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root.clone())?;
        }
        Ok(Self {
            roots: store,
            pinned: roots.iter().map(fingerprint).collect(),
            trust_domain,
            provider,
        })
    }

    /// Checks the chain that a server presented.
    pub fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), VerifyError> {
        let parsed = ParsedCertificate::try_from(leaf)
            .map_err(|error| VerifyError::Unusable(error.to_string()))?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )
        .map_err(|error| self.explain(error, intermediates.last().unwrap_or(leaf)))?;
        self.check_identity(leaf)
    }

    fn explain(&self, error: rustls::Error, last: &CertificateDer<'_>) -> VerifyError {
        use CertificateError as E;
        match error {
            rustls::Error::InvalidCertificate(E::UnknownIssuer | E::BadSignature) => {
                VerifyError::OtherCa {
                    expected: self.pinned.clone(),
                    presented: fingerprint(last),
                }
            }
            rustls::Error::InvalidCertificate(
                time @ (E::Expired
                | E::ExpiredContext { .. }
                | E::NotValidYet
                | E::NotValidYetContext { .. }),
            ) => VerifyError::Time(time.to_string()),
            other => VerifyError::Unusable(other.to_string()),
        }
    }

    fn check_identity(&self, leaf: &CertificateDer<'_>) -> Result<(), VerifyError> {
        let found = spiffe_ids(leaf)?;
        let accepted = found.iter().any(|id| {
            id.strip_prefix("spiffe://")
                .and_then(|rest| rest.strip_suffix(CONTROL_PLANE_PATH))
                .is_some_and(|domain| match &self.trust_domain {
                    Some(expected) => domain == expected,
                    None => !domain.is_empty() && !domain.contains('/'),
                })
        });
        if accepted {
            return Ok(());
        }
        let domain = self.trust_domain.as_deref().unwrap_or("<trust domain>");
        Err(VerifyError::OtherIdentity {
            expected: format!("spiffe://{domain}{CONTROL_PLANE_PATH}"),
            found: found.join(", "),
        })
    }
}

fn spiffe_ids(leaf: &CertificateDer<'_>) -> Result<Vec<String>, VerifyError> {
    let unusable = |error: &dyn std::fmt::Display| VerifyError::Unusable(error.to_string());
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|error| unusable(&error))?;
    let Some(names) = certificate
        .subject_alternative_name()
        .map_err(|error| unusable(&error))?
    else {
        return Ok(Vec::new());
    };
    let uris = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) if uri.starts_with("spiffe://") => Some((*uri).to_owned()),
            _ => None,
        });
    Ok(uris.collect())
}

/// SHA-256 of a certificate's DER, lower-case hex: how people compare certificates.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
    digest
        .as_ref()
        .iter()
        .fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(leaf, intermediates, now)
            .map(|()| ServerCertVerified::assertion())
            .map_err(|error| CertificateError::Other(OtherError(Arc::new(error))).into())
    }

    // Only TLS 1.3 is configured; an answer is needed nevertheless, and it is the strict one.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            leaf,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            leaf,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests;
