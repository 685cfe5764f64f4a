//! Who this sidecar is: its SPIFFE id, its key, its certificate and how they are renewed.
//!
//! The key is made here and never sent. What goes to the control plane is a signing request with the public key; what
//! comes back is a short-lived certificate ([`issue`]). It is renewed at half of its life ([`keeper`]) and may outlive a
//! restart on disk ([`store`]).

pub mod issue;
pub mod keeper;
pub mod store;
pub mod token;

use std::fmt;
use std::time::SystemTime;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};

pub use outrigger_proto::spiffe::{self, InvalidSpiffeId, SpiffeId, SpiffePattern};
pub use token::JoinToken;

/// A key with its certificate, and whom to trust.
pub struct Identity {
    pub id: SpiffeId,
    /// PKCS#8.
    pub key: PrivateKeyDer<'static>,
    /// Leaf first, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The trust bundle.
    pub roots: Vec<CertificateDer<'static>>,
    /// When it was received. The certificate's NotBefore lies further back (clock skew) and says nothing about its life.
    pub issued_at: SystemTime,
    /// The leaf's NotAfter.
    pub not_after: SystemTime,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("id", &self.id)
            .field("issued_at", &self.issued_at)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Whether the certificate has ended.
    pub fn is_expired(&self) -> bool {
        SystemTime::now() >= self.not_after
    }

    /// A deep copy: the key type has no `Clone` of its own, so that copies are made on purpose.
    pub fn duplicate(&self) -> Identity {
        Identity {
            id: self.id.clone(),
            key: self.key.clone_key(),
            chain: self.chain.clone(),
            roots: self.roots.clone(),
            issued_at: self.issued_at,
            not_after: self.not_after,
        }
    }
}
