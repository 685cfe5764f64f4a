//! A control plane in this process, on a real socket: it issues certificates, and tests say what its streams send.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use outrigger_proto::dataplane::v1 as wire;
use outrigger_proto::identity::v1 as identity;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};
use wire::discover_request::Message as Up;
use wire::discover_response::Message as Down;

use crate::identity::SpiffeId;
use crate::tls::read_leaf;
use crate::tls::test_ca::TestCa;

pub(crate) const ID: &str = "spiffe://outrigger.local/ns/default/sa/chat";
/// A test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Ends with everything it has, as if killed, when it is dropped.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    pub(crate) issuer: Arc<Issuer>,
    streams: mpsc::UnboundedReceiver<FakeStream>,
    runtime: Option<Runtime>,
}

pub(crate) struct Issuer {
    pub(crate) ca: TestCa,
    /// The token's uses that are left.
    pub(crate) uses: AtomicU32,
    /// Seconds.
    pub(crate) lifetime: AtomicU32,
    /// Public keys (as CSR) of what was issued, and whether it was a renewal.
    pub(crate) issued: Mutex<Vec<(Vec<u8>, bool)>>,
    /// What calls get instead of a certificate.
    pub(crate) trouble: Mutex<Option<Status>>,
}

impl Issuer {
    pub(crate) fn new() -> Arc<Issuer> {
        Arc::new(Issuer {
            ca: TestCa::new(),
            uses: AtomicU32::new(1),
            lifetime: AtomicU32::new(3600),
            issued: Mutex::new(Vec::new()),
            trouble: Mutex::new(None),
        })
    }

    /// A token as the control plane makes it.
    pub(crate) fn token(&self) -> String {
        token(self.ca.root_sha256())
    }
}

pub(crate) fn token(root_sha256: [u8; 32]) -> String {
    let ca: String = root_sha256
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let json = serde_json::json!({
        "id": "0123456789abcdef", "secret": "c2VjcmV0", "ca": ca, "td": "outrigger.local", "id_for": ID,
    });
    format!(
        "outrigger-join-v1.{}",
        URL_SAFE_NO_PAD.encode(json.to_string())
    )
}

impl Fake {
    pub(crate) fn start() -> Fake {
        Fake::start_at("127.0.0.1:0".parse().unwrap(), Issuer::new())
    }

    pub(crate) fn start_at(address: SocketAddr, issuer: Arc<Issuer>) -> Fake {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let socket = std::net::TcpListener::bind(address).unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let (sender, streams) = mpsc::unbounded_channel();
        runtime.spawn(serve(socket, issuer.clone(), sender));
        Fake {
            address,
            issuer,
            streams,
            runtime: Some(runtime),
        }
    }

    /// The next stream, its Hello received and its Welcome sent.
    pub(crate) async fn stream(&mut self) -> FakeStream {
        tokio::time::timeout(PATIENCE, self.streams.recv())
            .await
            .expect("no stream came")
            .unwrap()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// One stream, in a test's hands.
pub(crate) struct FakeStream {
    pub(crate) hello: wire::Hello,
    pub(crate) peer: Option<SpiffeId>,
    up: mpsc::UnboundedReceiver<Up>,
    down: mpsc::Sender<Result<wire::DiscoverResponse, Status>>,
}

impl FakeStream {
    pub(crate) async fn send(&self, message: Down) {
        let response = wire::DiscoverResponse {
            message: Some(message),
        };
        self.down.send(Ok(response)).await.unwrap();
    }

    /// Sends a delta and returns the answer to it.
    pub(crate) async fn delta(&mut self, delta: wire::Delta) -> Up {
        let nonce = delta.nonce.clone();
        self.send(Down::Delta(delta)).await;
        self.find(move |up| match up {
            Up::Ack(ack) => ack.nonce == nonce,
            Up::Nack(nack) => nack.nonce == nonce,
            _ => false,
        })
        .await
    }

    /// The next message that matches; others are skipped.
    pub(crate) async fn find(&mut self, matches: impl Fn(&Up) -> bool) -> Up {
        let found = async {
            loop {
                let up = self.up.recv().await.expect("the stream ended");
                if matches(&up) {
                    return up;
                }
            }
        };
        tokio::time::timeout(PATIENCE, found)
            .await
            .expect("the message did not come")
    }

    pub(crate) async fn subscribe(&mut self) -> wire::Subscribe {
        match self.find(|up| matches!(up, Up::Subscribe(_))).await {
            Up::Subscribe(subscribe) => subscribe,
            _ => unreachable!(),
        }
    }

    pub(crate) async fn announce(&mut self) -> Vec<wire::AnnouncedEndpoint> {
        match self.find(|up| matches!(up, Up::Announce(_))).await {
            Up::Announce(announce) => announce.endpoints,
            _ => unreachable!(),
        }
    }

    /// Ends the stream with an error.
    pub(crate) async fn fail(self, status: Status) {
        self.down.send(Err(status)).await.unwrap();
    }
}

#[derive(Clone)]
struct Service {
    issuer: Arc<Issuer>,
    streams: mpsc::UnboundedSender<FakeStream>,
}

#[derive(Clone)]
struct Peer(Option<SpiffeId>);

fn peer<T>(request: &Request<T>) -> Option<SpiffeId> {
    request
        .extensions()
        .get::<Peer>()
        .and_then(|peer| peer.0.clone())
}

#[tonic::async_trait]
impl wire::dataplane_service_server::DataplaneService for Service {
    type DiscoverStream = ReceiverStream<Result<wire::DiscoverResponse, Status>>;

    async fn discover(
        &self,
        request: Request<Streaming<wire::DiscoverRequest>>,
    ) -> Result<Response<Self::DiscoverStream>, Status> {
        let peer = peer(&request);
        let mut requests = request.into_inner();
        let Some(Up::Hello(hello)) = requests.message().await?.and_then(|first| first.message)
        else {
            return Err(Status::invalid_argument("no hello"));
        };
        let (down, responses) = mpsc::channel(64);
        let (up_sender, up) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let _ = up_sender.send(request.message.unwrap());
            }
        });
        let welcome = Down::Welcome(wire::Welcome {
            lease: Some(prost_types::Duration {
                seconds: 3,
                nanos: 0,
            }),
            control_plane_version: "fake".into(),
        });
        let stream = FakeStream {
            hello,
            peer,
            up,
            down,
        };
        stream.send(welcome).await;
        let _ = self.streams.send(stream);
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

#[tonic::async_trait]
impl identity::identity_service_server::IdentityService for Service {
    async fn issue_certificate(
        &self,
        request: Request<identity::IssueCertificateRequest>,
    ) -> Result<Response<identity::IssueCertificateResponse>, Status> {
        use identity::issue_certificate_request::Attestation;
        let issuer = &self.issuer;
        if let Some(trouble) = issuer.trouble.lock().unwrap().clone() {
            return Err(trouble);
        }
        let peer = peer(&request);
        let request = request.into_inner();
        let renewal = peer.is_some();
        let id = match (peer, request.attestation) {
            (Some(peer), None) => peer,
            (None, Some(Attestation::JoinToken(token))) if token == issuer.token() => {
                let take = |uses: u32| uses.checked_sub(1);
                let taken = issuer
                    .uses
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take);
                taken.map_err(|_| Status::unauthenticated("the join token is used up"))?;
                ID.parse().unwrap()
            }
            _ => return Err(Status::unauthenticated("no or wrong join token")),
        };
        let lifetime = issuer.lifetime.load(Ordering::SeqCst);
        let leaf = issuer
            .ca
            .sign_request(&request.csr_der, &id, lifetime.into());
        let issued = (request.csr_der, renewal);
        issuer.issued.lock().unwrap().push(issued);
        Ok(Response::new(identity::IssueCertificateResponse {
            spiffe_id: id.to_string(),
            certificate_chain_der: vec![leaf.to_vec()],
            not_before: None,
            not_after: None,
            trust_bundle: Some(identity::TrustBundle {
                trust_domain: "outrigger.local".into(),
                roots_der: vec![issuer.ca.root().to_vec()],
            }),
        }))
    }

    async fn get_trust_bundle(
        &self,
        _: Request<identity::GetTrustBundleRequest>,
    ) -> Result<Response<identity::TrustBundle>, Status> {
        Err(Status::unimplemented("not asked for by a sidecar"))
    }
}

async fn serve(
    socket: std::net::TcpListener,
    issuer: Arc<Issuer>,
    streams: mpsc::UnboundedSender<FakeStream>,
) {
    let own = issuer
        .ca
        .identity("spiffe://outrigger.local/ns/outrigger-system/sa/control-plane");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(issuer.ca.root()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .unwrap();
    let mut chain = own.chain.clone();
    chain.push(issuer.ca.root());
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, own.key.clone_key())
        .unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::from_std(socket).unwrap();
    let (sender, connections) = mpsc::channel(16);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(stream) = acceptor.accept(stream).await {
                let _ = sender
                    .send(Ok::<_, std::io::Error>(PeerStream(stream)))
                    .await;
            }
        }
    });
    let service = Service { issuer, streams };
    tonic::transport::Server::builder()
        .add_service(wire::dataplane_service_server::DataplaneServiceServer::new(
            service.clone(),
        ))
        .add_service(identity::identity_service_server::IdentityServiceServer::new(service))
        .serve_with_incoming(ReceiverStream::new(connections))
        .await
        .unwrap();
}

struct PeerStream(TlsStream<TcpStream>);

impl Connected for PeerStream {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        let chain = self.0.get_ref().1.peer_certificates();
        let leaf = chain.and_then(|chain| chain.first());
        Peer(leaf.map(|leaf| read_leaf(leaf).unwrap().id))
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
