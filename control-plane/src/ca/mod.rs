//! The mesh's certificate authority: made or loaded at start ([`init`], [`load`]), signs leaf certificates for requests
//! ([`Ca::issue`]), proves the control plane itself ([`server_cert`]), and checks join tokens ([`token`]).

pub mod csr;
pub mod error;
pub mod files;
pub mod init;
pub mod leaf;
pub mod load;
pub mod server_cert;
pub mod token;

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use rustls_pki_types::CertificateDer;

pub use error::CaError;
pub use leaf::Leaf;
pub use outrigger_proto::spiffe::{self, SpiffeId};

/// How far NotBefore lies in the past, against clocks that are behind ours (Istio backdates by two minutes, Linkerd
/// allows for ten seconds; hosts outside an orchestrator are worse).
pub const BACKDATE: Duration = Duration::from_secs(5 * 60);

/// Signs certificates of one trust domain.
pub struct Ca {
    trust_domain: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    /// Signing certificate first, then up to, and without, the root. Empty where the root signs.
    intermediates: Vec<CertificateDer<'static>>,
    roots: Vec<CertificateDer<'static>>,
    fingerprint: String,
    expires_at: SystemTime,
    lifetime: Duration,
}

impl Ca {
    /// For example `outrigger.local`.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// Root certificates that members of the mesh verify each other against.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// The same, PEM.
    pub fn roots_pem(&self) -> String {
        self.roots.iter().map(|root| pem(root)).collect()
    }

    /// SHA-256 of the root certificate's DER, lower-case hex.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// When the first certificate of the signing chain ends; nothing is valid after it.
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// Lifetime of the leaf certificates that ask for none, and the longest that can be had.
    pub fn leaf_lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Signs a certificate for the key in a PKCS#10 request (DER), with `id` as its only SAN.
    ///
    /// Nothing but the public key is taken from the request; that its sender has the private key is checked by its
    /// signature. `lifetime` of 0 means the default, which is also the cap.
    ///
    /// # Errors
    /// The request does not parse, its signature is wrong, its key is of a kind that is not allowed, or the CA's own
    /// certificate has expired.
    pub fn issue(
        &self,
        csr_der: &[u8],
        id: &SpiffeId,
        lifetime: Duration,
    ) -> Result<Leaf, CaError> {
        let key = csr::verified_key(csr_der)?;
        leaf::sign(self, &key, id, &[], lifetime, SystemTime::now())
    }
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ca")
            .field("trust_domain", &self.trust_domain)
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

/// SHA-256, lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref())
}

/// A certificate in PEM (RFC 7468).
fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, further) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = further;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
pub(crate) mod tests;
