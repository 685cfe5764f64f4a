//! Why a handshake failed, in one word: the label `result` of `outrigger_tls_handshakes_total`.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

use super::verify::IdentityError;

/// Why a TLS handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HandshakeFailure {
    /// The peer presented none.
    NoCertificate,
    /// No chain to the trust bundle.
    Untrusted,
    /// Ended, or not begun.
    Expired,
    /// A certificate of the trusted roots, but of another trust domain.
    WrongTrustDomain,
    /// Without a SPIFFE id, or with one that is not allowed here; of a server outside the mesh: for another name.
    WrongIdentity,
    /// Everything else: no TLS at all, no common version, the connection broke.
    Protocol,
}

impl HandshakeFailure {
    pub const ALL: [HandshakeFailure; 6] = [
        HandshakeFailure::NoCertificate,
        HandshakeFailure::Untrusted,
        HandshakeFailure::Expired,
        HandshakeFailure::WrongTrustDomain,
        HandshakeFailure::WrongIdentity,
        HandshakeFailure::Protocol,
    ];

    /// The metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            HandshakeFailure::NoCertificate => "no-certificate",
            HandshakeFailure::Untrusted => "untrusted",
            HandshakeFailure::Expired => "expired",
            HandshakeFailure::WrongTrustDomain => "wrong-trust-domain",
            HandshakeFailure::WrongIdentity => "wrong-identity",
            HandshakeFailure::Protocol => "protocol",
        }
    }
}

/// Finds the reason in what a handshake (or the first read after it) returned.
///
/// In TLS 1.3 a client learns only after its handshake that the server refused its certificate: as an alert, which says
/// less than the server's own log.
pub fn classify(error: &io::Error) -> HandshakeFailure {
    let Some(error) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>())
    else {
        return HandshakeFailure::Protocol;
    };
    match error {
        Error::NoCertificatesPresented => HandshakeFailure::NoCertificate,
        Error::InvalidCertificate(error) => of_certificate(error),
        Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
                HandshakeFailure::NoCertificate
            }
            AlertDescription::CertificateExpired => HandshakeFailure::Expired,
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError => HandshakeFailure::Untrusted,
            AlertDescription::AccessDenied => HandshakeFailure::WrongIdentity,
            _ => HandshakeFailure::Protocol,
        },
        _ => HandshakeFailure::Protocol,
    }
}

/// What a handshake failed of, in one line. rustls shows an error of a verifier as Rust code.
pub fn explain(error: &io::Error) -> String {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>());
    if let Some(Error::InvalidCertificate(CertificateError::Other(other))) = inner {
        return other.0.to_string();
    }
    error.to_string()
}

fn of_certificate(error: &CertificateError) -> HandshakeFailure {
    match error {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => HandshakeFailure::Expired,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            HandshakeFailure::WrongIdentity
        }
        CertificateError::Other(other) => match other.0.downcast_ref::<IdentityError>() {
            Some(IdentityError::TrustDomain { .. }) => HandshakeFailure::WrongTrustDomain,
            Some(IdentityError::Fingerprint) | None => HandshakeFailure::Untrusted,
            Some(_) => HandshakeFailure::WrongIdentity,
        },
        _ => HandshakeFailure::Untrusted,
    }
}
