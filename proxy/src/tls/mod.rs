//! TLS between sidecars and towards the control plane (TLS 1.3 only, certificates on both sides), and towards servers outside
//! the mesh (`origin`).

mod failure;
mod origin;
mod verify;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig};

use crate::identity::{Identity, SpiffeId};

pub use failure::{HandshakeFailure, classify, explain};
pub use origin::{OriginSettings, OriginTls};
pub(crate) use verify::read_leaf;
use verify::{PeerVerifier, PinnedRoot, Who};

/// ALPN of HTTP/2.
pub const ALPN_H2: &[u8] = b"h2";
/// ALPN of HTTP/1.1.
pub const ALPN_HTTP1: &[u8] = b"http/1.1";
/// ALPN of opaque streams between sidecars.
pub const ALPN_TCP: &[u8] = b"outrigger-tcp";

/// Sessions that a client configuration remembers, over all peers. Connections live long and are few: enough for a
/// burst of reconnects, small beside the connections themselves.
const REMEMBERED_SESSIONS: usize = 128;

/// What connections are made with: configurations of the identity in use. Replaced as a whole when the certificate is
/// renewed; connections that are open keep theirs.
///
/// Tickets are encrypted with keys of this state and end with it: after a renewal, or a change of the trust bundle, every
/// peer is verified from the start.
pub struct TlsState {
    pub id: SpiffeId,
    /// For peers: a certificate of the mesh is required. ALPN `h2`, `http/1.1`, `outrigger-tcp`.
    pub server: Arc<ServerConfig>,
    /// Offers ALPN `h2` only.
    pub client_h2: Arc<ClientConfig>,
    /// Offers ALPN `http/1.1` only.
    pub client_http1: Arc<ClientConfig>,
    /// Offers ALPN `outrigger-tcp` only.
    pub client_tcp: Arc<ClientConfig>,
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

impl TlsState {
    /// Configurations for an identity. Fails where key and certificate do not belong together or a root is unusable.
    pub fn new(identity: &Identity) -> Result<TlsState, rustls::Error> {
        let provider = provider();
        let own = certified_key(identity, &provider)?;
        let verifier = PeerVerifier::new(
            &identity.roots,
            Who::AnyOf(identity.id.trust_domain().into()),
            &provider,
        )?;

        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier.clone())
            .with_cert_resolver(own.clone());
        server.alpn_protocols = vec![ALPN_H2.to_vec(), ALPN_HTTP1.to_vec(), ALPN_TCP.to_vec()];
        server.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        server.session_storage = Arc::new(NoServerSessionStorage {});

        let client =
            |alpn: &[u8]| client_config(&provider, verifier.clone(), Some(own.clone()), alpn);
        Ok(TlsState {
            id: identity.id.clone(),
            server: Arc::new(server),
            client_h2: client(ALPN_H2)?,
            client_http1: client(ALPN_HTTP1)?,
            client_tcp: client(ALPN_TCP)?,
            not_after: identity.not_after,
        })
    }
}

/// For connections to the control plane with an identity: mTLS, and only the control plane's own id is accepted.
pub fn control_plane_client(identity: &Identity) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = provider();
    let own = certified_key(identity, &provider)?;
    let who = Who::ControlPlane(identity.id.trust_domain().into());
    let verifier = PeerVerifier::new(&identity.roots, who, &provider)?;
    client_config(&provider, verifier, Some(own), ALPN_H2)
}

/// For the first connection to the control plane, without an identity: the presented chain must have a certificate with
/// this SHA-256, lead to it, and belong to the control plane of the trust domain.
pub fn joining_client(
    root_sha256: [u8; 32],
    trust_domain: &str,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = provider();
    let verifier = Arc::new(PinnedRoot::new(root_sha256, trust_domain, &provider));
    client_config(&provider, verifier, None, ALPN_H2)
}

/// Whether peers would accept this identity now: the key belongs to the leaf, the chain leads to the bundle and is in its
/// time by this machine's clock.
pub(crate) fn check(identity: &Identity) -> Result<(), rustls::Error> {
    let provider = provider();
    certified_key(identity, &provider)?;
    verify::chain_of(identity, &provider)
}

fn client_config(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<dyn rustls::client::danger::ServerCertVerifier>,
    own: Option<Arc<SingleCertAndKey>>,
    alpn: &[u8],
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(own),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::in_memory_sessions(REMEMBERED_SESSIONS);
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn certified_key(
    identity: &Identity,
    provider: &CryptoProvider,
) -> Result<Arc<SingleCertAndKey>, rustls::Error> {
    let own = CertifiedKey::from_der(identity.chain.clone(), identity.key.clone_key(), provider)?;
    Ok(Arc::new(SingleCertAndKey::from(own)))
}

/// Who the peer of an established connection is. The chain and the trust domain were verified in the handshake (for a
/// resumed session: in the one that it came from); that the certificate has not ended since then is checked here.
///
/// Parses the certificate: call it once for each connection.
pub fn peer_id(connection: &rustls::CommonState) -> Result<SpiffeId, HandshakeFailure> {
    let leaf = connection
        .peer_certificates()
        .and_then(|chain| chain.first())
        .ok_or(HandshakeFailure::NoCertificate)?;
    let leaf = read_leaf(leaf).map_err(|_| HandshakeFailure::WrongIdentity)?;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    if i64::try_from(now.as_secs()).unwrap_or(i64::MAX) > leaf.not_after {
        return Err(HandshakeFailure::Expired);
    }
    Ok(leaf.id)
}

#[cfg(test)]
pub(crate) mod test_ca;
#[cfg(test)]
mod tests;
