#![allow(clippy::unwrap_used)]
use std::io;
use std::sync::Arc;

use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::test_ca::TestCa;
use super::{HandshakeFailure, TlsState, classify, joining_client, peer_id};
use crate::identity::Identity;

const CHAT: &str = "spiffe://outrigger.local/ns/default/sa/chat";
const CLIENT: &str = "spiffe://outrigger.local/ns/default/sa/client";
const CONTROL_PLANE: &str = "spiffe://outrigger.local/ns/outrigger-system/sa/control-plane";

/// Who each side saw, or why not. Reads a byte, so that the client notices a server that refused it.
struct Met {
    by_client: Result<String, HandshakeFailure>,
    by_server: Result<String, HandshakeFailure>,
    resumed: bool,
}

async fn meet(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Met {
    let (near, far) = tokio::io::duplex(64 << 10);
    let name = ServerName::try_from("80.chat.default.outrigger.local").unwrap();
    let failure = |error: io::Error| classify(&error);
    let client = async move {
        let mut stream = TlsConnector::from(client)
            .connect(name, near)
            .await
            .map_err(failure)?;
        let byte = stream.read_u8().await;
        byte.map_err(failure)?;
        let connection = stream.get_ref().1;
        let resumed = connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        peer_id(connection).map(|id| (id.to_string(), resumed))
    };
    let server = async move {
        let mut stream = TlsAcceptor::from(server)
            .accept(far)
            .await
            .map_err(failure)?;
        stream.write_u8(7).await.map_err(failure)?;
        stream.flush().await.map_err(failure)?;
        let id = peer_id(stream.get_ref().1).map(|id| id.to_string());
        // Keeps the connection until the client has read.
        let _ = stream.read_u8().await;
        id
    };
    let (by_client, by_server) = tokio::join!(client, server);
    Met {
        resumed: by_client.as_ref().is_ok_and(|(_, resumed)| *resumed),
        by_client: by_client.map(|(id, _)| id),
        by_server,
    }
}

fn state(identity: &Identity) -> TlsState {
    TlsState::new(identity).unwrap()
}

#[tokio::test]
async fn both_sides_know_each_other() {
    let ca = TestCa::new();
    let server = state(&ca.identity(CHAT));
    let client = state(&ca.identity(CLIENT));
    let met = meet(client.client_h2.clone(), server.server.clone()).await;
    assert_eq!(met.by_client.unwrap(), CHAT);
    assert_eq!(met.by_server.unwrap(), CLIENT);
    assert!(!met.resumed);

    let again = meet(client.client_h2.clone(), server.server.clone()).await;
    assert!(again.resumed, "tickets are on");
    assert_eq!(again.by_client.unwrap(), CHAT);
    assert_eq!(again.by_server.unwrap(), CLIENT);

    // A renewed server does not know the tickets of the one before.
    let renewed = state(&ca.identity(CHAT));
    let met = meet(client.client_h2.clone(), renewed.server).await;
    assert!(!met.resumed);
    assert_eq!(met.by_server.unwrap(), CLIENT);
}

#[tokio::test]
async fn a_client_without_certificate_is_refused() {
    let ca = TestCa::new();
    let server = state(&ca.identity(CHAT));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.root()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(super::PinnedRoot::new(
            [0; 32],
            "outrigger.local",
            &rustls::crypto::aws_lc_rs::default_provider(),
        )))
        .with_no_client_auth();
    // The wrong pin: the client refuses first.
    let met = meet(Arc::new(client), server.server.clone()).await;
    assert_eq!(met.by_client, Err(HandshakeFailure::Untrusted));

    let control_plane = with_root(&ca, CONTROL_PLANE);
    let server = state(&control_plane);
    let client = joining_client(ca.root_sha256(), "outrigger.local").unwrap();
    let met = meet(client, server.server).await;
    assert_eq!(met.by_server, Err(HandshakeFailure::NoCertificate));
    assert_eq!(met.by_client, Err(HandshakeFailure::NoCertificate));
}

/// An identity whose chain has the root at its end, as a control plane presents it.
fn with_root(ca: &TestCa, id: &str) -> Identity {
    let mut identity = ca.identity(id);
    identity.chain.push(ca.root());
    identity
}

#[tokio::test]
async fn a_joiner_accepts_only_the_pinned_control_plane() {
    let ca = TestCa::new();
    let other = TestCa::new();
    let met = async |identity: &Identity, pin: [u8; 32]| {
        // A server that asks for no client certificate, as a control plane lets joiners in.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(identity.chain.clone(), identity.key.clone_key())
            .unwrap();
        let mut server = server;
        server.alpn_protocols = vec![b"h2".to_vec()];
        let client = joining_client(pin, "outrigger.local").unwrap();
        meet(client, Arc::new(server)).await.by_client
    };
    let good = with_root(&ca, CONTROL_PLANE);
    assert_eq!(met(&good, ca.root_sha256()).await.unwrap(), CONTROL_PLANE);
    // Another pin.
    assert_eq!(
        met(&good, other.root_sha256()).await,
        Err(HandshakeFailure::Untrusted)
    );
    // The pinned root is shown, but did not sign the leaf.
    let mut forged = other.identity(CONTROL_PLANE);
    forged.chain.push(ca.root());
    assert_eq!(
        met(&forged, ca.root_sha256()).await,
        Err(HandshakeFailure::Untrusted)
    );
    // A sidecar of the mesh poses as the control plane.
    assert_eq!(
        met(&with_root(&ca, CHAT), ca.root_sha256()).await,
        Err(HandshakeFailure::WrongIdentity)
    );
    // Without the root there is nothing to pin.
    assert_eq!(
        met(&ca.identity(CONTROL_PLANE), ca.root_sha256()).await,
        Err(HandshakeFailure::Untrusted)
    );
}

#[tokio::test]
async fn each_bad_client_certificate_has_its_reason() {
    let ca = TestCa::new();
    let server = state(&ca.identity(CHAT));
    let met = async |identity: &Identity| {
        let client = state(identity).client_h2;
        meet(client, server.server.clone()).await.by_server
    };
    let mut foreign = TestCa::new().identity(CLIENT);
    foreign.roots = vec![ca.root()];
    assert_eq!(met(&foreign).await, Err(HandshakeFailure::Untrusted));
    let expired = ca.identity_for(CLIENT, (-120, -60));
    assert_eq!(met(&expired).await, Err(HandshakeFailure::Expired));
    let early = ca.identity_for(CLIENT, (600, 1200));
    assert_eq!(met(&early).await, Err(HandshakeFailure::Expired));
    let mut elsewhere = ca.identity("spiffe://other.local/ns/default/sa/client");
    // So that the client accepts the server, and the server has to refuse.
    elsewhere.id = CLIENT.parse().unwrap();
    assert_eq!(
        met(&elsewhere).await,
        Err(HandshakeFailure::WrongTrustDomain)
    );
    for uris in [
        &[][..],
        &["https://outrigger.local/"],
        &[CLIENT, "spiffe://outrigger.local/ns/default/sa/other"],
    ] {
        let mut nobody = ca.identity(CLIENT);
        let key = rcgen::KeyPair::generate().unwrap();
        nobody.chain = vec![ca.sign(&key, uris, (-60, 3600))];
        nobody.key = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        assert_eq!(
            met(&nobody).await,
            Err(HandshakeFailure::WrongIdentity),
            "{uris:?}"
        );
    }
}

#[tokio::test]
async fn each_bad_server_certificate_has_its_reason() {
    let ca = TestCa::new();
    let client = state(&ca.identity(CLIENT));
    let met = async |identity: &Identity| {
        let server = state(identity).server;
        meet(client.client_h2.clone(), server).await.by_client
    };
    let mut foreign = TestCa::new().identity(CHAT);
    foreign.roots = vec![ca.root()];
    assert_eq!(met(&foreign).await, Err(HandshakeFailure::Untrusted));
    let expired = ca.identity_for(CHAT, (-120, -60));
    assert_eq!(met(&expired).await, Err(HandshakeFailure::Expired));
    let elsewhere = ca.identity("spiffe://other.local/ns/default/sa/chat");
    assert_eq!(
        met(&elsewhere).await,
        Err(HandshakeFailure::WrongTrustDomain)
    );
}

#[test]
fn an_identity_is_checked_before_use() {
    let ca = TestCa::new();
    super::check(&ca.identity(CHAT)).unwrap();
    let mut other_key = ca.identity(CHAT);
    other_key.key = ca.identity(CHAT).key;
    super::check(&other_key).unwrap_err();
    let mut other_root = ca.identity(CHAT);
    other_root.roots = vec![TestCa::new().root()];
    super::check(&other_root).unwrap_err();
    super::check(&ca.identity_for(CHAT, (-120, -60))).unwrap_err();
    let mut no_root = ca.identity(CHAT);
    no_root.roots.clear();
    super::check(&no_root).unwrap_err();
    assert!(TlsState::new(&no_root).is_err());
}
