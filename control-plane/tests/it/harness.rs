//! A control plane with a directory of its own, and clients for it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use hyper_util::rt::TokioIo;
use outrigger_control_plane::app::ControlPlane;
use outrigger_control_plane::ca::token::JoinToken;
use outrigger_control_plane::client::{Client, ConnectOptions, Context};
use outrigger_control_plane::config::Config;
use outrigger_proto::api::v1 as api;
use outrigger_proto::dataplane::v1 as wire;
use outrigger_proto::identity::v1 as identity;
use rcgen::{CertificateParams, KeyPair};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

pub use wire::discover_request::Message as Up;
pub use wire::discover_response::Message as Down;

/// What does not happen within this time does not happen.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long nothing is waited for.
pub const QUIET: Duration = Duration::from_millis(300);

pub struct Mesh {
    pub directory: tempfile::TempDir,
    flags: Vec<String>,
    plane: Option<ControlPlane>,
    pub client: Client,
}

impl Mesh {
    pub async fn start() -> Mesh {
        Mesh::start_with(&[]).await
    }

    pub async fn start_with(flags: &[&str]) -> Mesh {
        let directory = tempfile::tempdir().unwrap();
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let (plane, client) = start(directory.path(), &flags).await;
        Mesh {
            directory,
            flags,
            plane: Some(plane),
            client,
        }
    }

    /// Stops the control plane and starts another one on the same directory.
    pub async fn restart(&mut self) {
        self.plane.take().unwrap().stop().await;
        let (plane, client) = start(self.directory.path(), &self.flags).await;
        (self.plane, self.client) = (Some(plane), client);
    }

    pub fn plane(&self) -> &ControlPlane {
        self.plane.as_ref().unwrap()
    }

    pub fn context(&self) -> Context {
        Context::load(&self.directory.path().join("admin.yaml")).unwrap()
    }

    pub async fn token(&self, account: &str, uses: u32) -> String {
        let request = api::CreateTokenRequest {
            service_account: account.to_owned(),
            max_uses: uses,
            ..Default::default()
        };
        let response = self.client.tokens().create_token(request).await.unwrap();
        response.into_inner().token
    }

    /// Joins with a fresh token and a fresh key.
    pub async fn join(&self, account: &str) -> Credentials {
        let token = self.token(account, 1).await;
        self.join_with(&token).await.unwrap()
    }

    pub async fn join_with(&self, token: &str) -> Result<Credentials, Status> {
        let key = KeyPair::generate().unwrap();
        let request = request(&key, Some(token));
        let mut client = self.identity(None).await;
        let response = client.issue_certificate(request).await?.into_inner();
        Ok(Credentials::new(key, response))
    }

    pub async fn identity(
        &self,
        credentials: Option<&Credentials>,
    ) -> identity::identity_service_client::IdentityServiceClient<Channel> {
        let channel = self
            .channel(self.plane().sidecar_address, credentials)
            .await;
        identity::identity_service_client::IdentityServiceClient::new(channel.unwrap())
    }

    /// A connection with a client certificate, or without.
    pub async fn channel(
        &self,
        address: SocketAddr,
        credentials: Option<&Credentials>,
    ) -> Result<Channel, tonic::transport::Error> {
        let tls = client_tls(&self.context(), credentials);
        connect(address, tls).await
    }

    pub async fn apply(&self, yaml: &str) -> Vec<api::ApplyResult> {
        let documents = serde_yaml::Deserializer::from_str(yaml);
        let resources = documents.map(|document| {
            let value: serde_json::Value = serde::Deserialize::deserialize(document).unwrap();
            to_resource(&value)
        });
        let request = api::ApplyRequest {
            resources: resources.collect(),
            dry_run: false,
        };
        let response = self.client.resources().apply(request).await.unwrap();
        response.into_inner().results
    }

    pub async fn delete(&self, kind: &str, name: &str) {
        let request = api::DeleteRequest {
            r#ref: Some(reference(kind, name)),
            ..Default::default()
        };
        self.client.resources().delete(request).await.unwrap();
    }

    pub async fn get(&self, kind: &str, name: &str) -> api::Resource {
        let request = api::GetRequest {
            r#ref: Some(reference(kind, name)),
        };
        self.client
            .resources()
            .get(request)
            .await
            .unwrap()
            .into_inner()
    }

    pub async fn sidecars(&self) -> Vec<api::Sidecar> {
        let request = api::ListSidecarsRequest {};
        let response = self.client.mesh().list_sidecars(request).await.unwrap();
        response.into_inner().sidecars
    }

    /// Waits until a sidecar's record is as wanted.
    pub async fn sidecar(
        &self,
        instance: &str,
        wanted: impl Fn(&api::Sidecar) -> bool,
    ) -> api::Sidecar {
        let mut last = None;
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                let sidecars = self.sidecars().await;
                last = sidecars.into_iter().find(|it| it.instance == instance);
                if let Some(sidecar) = last.as_ref().filter(|it| wanted(it)) {
                    return sidecar.clone();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        match found.await {
            Ok(sidecar) => sidecar,
            Err(_) => panic!("the sidecar is not as wanted: {last:?}"),
        }
    }

    /// Opens a stream; the Welcome has been read.
    pub async fn open(&self, credentials: &Credentials, hello: wire::Hello) -> Sidecar {
        let mut sidecar = self.dial(credentials).await.unwrap();
        sidecar.send(Up::Hello(hello)).await;
        match sidecar.next().await {
            Down::Welcome(_) => sidecar,
            other => panic!("not a Welcome: {other:?}"),
        }
    }

    /// Opens a stream and says nothing.
    pub async fn dial(&self, credentials: &Credentials) -> Result<Sidecar, Status> {
        let channel = self
            .channel(self.plane().sidecar_address, Some(credentials))
            .await
            .map_err(|error| Status::unavailable(format!("{error:?}")))?;
        let (up, requests) = mpsc::channel(64);
        let mut client = wire::dataplane_service_client::DataplaneServiceClient::new(channel);
        let down = client.discover(ReceiverStream::new(requests)).await?;
        Ok(Sidecar {
            up,
            down: down.into_inner(),
            held: HashMap::new(),
        })
    }
}

async fn start(directory: &Path, flags: &[String]) -> (ControlPlane, Client) {
    let listen = "127.0.0.1:0";
    let mut arguments = vec![
        "outrigger-control-plane".to_owned(),
        format!("--data-dir={}", directory.display()),
        format!("--sidecar-listen={listen}"),
        format!("--management-listen={listen}"),
        format!("--metrics-listen={listen}"),
    ];
    arguments.extend_from_slice(flags);
    let config = Config::try_parse_from(arguments).unwrap();
    let plane = ControlPlane::start(&config).await.unwrap();
    let context = Context::load(&directory.join("admin.yaml")).unwrap();
    let options = ConnectOptions {
        server: Some(plane.management_address.to_string()),
        ..Default::default()
    };
    let client = Client::connect(&context, &options).await.unwrap();
    (plane, client)
}

fn reference(kind: &str, name: &str) -> api::ResourceRef {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    api::ResourceRef {
        kind: kind.to_owned(),
        namespace: if kind == "Mesh" { "" } else { namespace }.to_owned(),
        name: name.to_owned(),
    }
}

fn to_resource(value: &serde_json::Value) -> api::Resource {
    use outrigger_control_plane::api::convert;
    use outrigger_control_plane::model;
    let resource: model::Resource = serde_json::from_value(value.clone()).unwrap();
    convert::to_message(&resource, None)
}

/// A key and its certificate.
pub struct Credentials {
    pub key: PrivatePkcs8KeyDer<'static>,
    pub chain: Vec<CertificateDer<'static>>,
    pub response: identity::IssueCertificateResponse,
}

impl Credentials {
    pub fn new(key: KeyPair, response: identity::IssueCertificateResponse) -> Credentials {
        let chain = response.certificate_chain_der.iter();
        Credentials {
            key: PrivatePkcs8KeyDer::from(key.serialize_der()),
            chain: chain.map(|der| der.clone().into()).collect(),
            response,
        }
    }
}

pub fn request(key: &KeyPair, token: Option<&str>) -> identity::IssueCertificateRequest {
    let csr = CertificateParams::default().serialize_request(key).unwrap();
    identity::IssueCertificateRequest {
        csr_der: csr.der().to_vec(),
        attestation: token.map(|token| {
            identity::issue_certificate_request::Attestation::JoinToken(token.to_owned())
        }),
        lifetime_seconds: 0,
    }
}

pub fn client_tls(context: &Context, credentials: Option<&Credentials>) -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(context.ca_certificate.as_bytes()).unwrap();
    roots.add(root).unwrap();
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_webpki_verifier(verifier.build().unwrap());
    let mut config = match credentials {
        None => builder.with_no_client_auth(),
        Some(credentials) => {
            let key = PrivateKeyDer::from(credentials.key.clone_key());
            let chain = credentials.chain.clone();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

pub async fn connect(
    address: SocketAddr,
    tls: rustls::ClientConfig,
) -> Result<Channel, tonic::transport::Error> {
    let connector = TlsConnector::from(Arc::new(tls));
    let dial = move |_: http::Uri| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            // A DNS name of the control plane's certificate.
            let name = ServerName::try_from("control-plane.outrigger.local").unwrap();
            let stream = connector.connect(name, stream).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    };
    Endpoint::from_static("http://control-plane")
        .connect_with_connector(tower_dial::Dial(dial))
        .await
}

mod tower_dial {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    /// A connector from a function.
    pub struct Dial<F>(pub F);

    impl<F, R, T, E> tower_service::Service<http::Uri> for Dial<F>
    where
        F: FnMut(http::Uri) -> R,
        R: Future<Output = Result<T, E>> + Send + 'static,
    {
        type Response = T;
        type Error = E;
        type Future = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, uri: http::Uri) -> Self::Future {
            Box::pin((self.0)(uri))
        }
    }
}

/// The sidecar's end of a stream.
pub struct Sidecar {
    up: mpsc::Sender<wire::DiscoverRequest>,
    down: Streaming<wire::DiscoverResponse>,
    /// What it holds after all acknowledged deltas.
    pub held: HashMap<String, wire::Resource>,
}

impl Sidecar {
    pub async fn send(&self, message: Up) {
        let message = Some(message);
        self.up
            .send(wire::DiscoverRequest { message })
            .await
            .unwrap();
    }

    pub async fn subscribe(&self, names: &[&str]) {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let unsubscribe = Vec::new();
        self.send(Up::Subscribe(wire::Subscribe { names, unsubscribe }))
            .await;
    }

    pub async fn unsubscribe(&self, names: &[&str]) {
        let unsubscribe = names.iter().map(|name| (*name).to_owned()).collect();
        let names = Vec::new();
        self.send(Up::Subscribe(wire::Subscribe { names, unsubscribe }))
            .await;
    }

    pub async fn ack(&self, nonce: &str) {
        let nonce = nonce.to_owned();
        self.send(Up::Ack(wire::Ack { nonce })).await;
    }

    pub async fn beat(&self) {
        self.send(Up::Heartbeat(wire::Heartbeat {})).await;
    }

    /// Announces endpoints (service, port, state) and returns the refusals.
    pub async fn announce(
        &mut self,
        endpoints: &[(&str, u32, wire::EndpointState)],
    ) -> Vec<wire::Refusal> {
        let endpoints = endpoints
            .iter()
            .map(|(service, port, state)| wire::AnnouncedEndpoint {
                service: (*service).to_owned(),
                port: *port,
                weight: 0,
                state: (*state).into(),
            });
        self.send(Up::Announce(wire::Announce {
            endpoints: endpoints.collect(),
        }))
        .await;
        loop {
            match self.next().await {
                Down::AnnounceResult(result) => return result.refusals,
                Down::Delta(delta) => self.take(delta).await,
                other => panic!("unexpected: {other:?}"),
            }
        }
    }

    pub async fn message(&mut self) -> Result<Down, Status> {
        let message = tokio::time::timeout(PATIENCE, self.down.message()).await;
        let message = message.map_err(|_| Status::deadline_exceeded("nothing came"))??;
        Ok(message
            .ok_or_else(|| Status::cancelled("closed"))?
            .message
            .unwrap())
    }

    pub async fn next(&mut self) -> Down {
        self.message().await.unwrap()
    }

    /// The next delta, neither acknowledged nor applied.
    pub async fn delta(&mut self) -> wire::Delta {
        match self.next().await {
            Down::Delta(delta) => delta,
            other => panic!("not a delta: {other:?}"),
        }
    }

    /// Applies and acknowledges.
    pub async fn take(&mut self, delta: wire::Delta) {
        for resource in delta.resources {
            self.held.insert(resource.name.clone(), resource);
        }
        for name in delta.removed {
            self.held.remove(&name);
        }
        self.ack(&delta.nonce).await;
    }

    /// Applies deltas until what is held is as wanted.
    pub async fn until(
        &mut self,
        what: &str,
        wanted: impl Fn(&HashMap<String, wire::Resource>) -> bool,
    ) {
        let reached = tokio::time::timeout(PATIENCE, async {
            while !wanted(&self.held) {
                match self.down.message().await.unwrap().unwrap().message.unwrap() {
                    Down::Delta(delta) => self.take(delta).await,
                    Down::AnnounceResult(_) => {}
                    other => panic!("unexpected: {other:?}"),
                }
            }
        })
        .await;
        assert!(
            reached.is_ok(),
            "{what}: not reached; held: {:#?}",
            self.held
        );
    }

    /// Waits a little and fails if something comes.
    pub async fn quiet(&mut self) {
        let message = tokio::time::timeout(QUIET, self.down.message()).await;
        assert!(message.is_err(), "something came: {message:?}");
    }

    /// The status that ends the stream; what comes before it is dropped.
    pub async fn end(&mut self) -> Status {
        loop {
            match self.message().await {
                Ok(_) => {}
                Err(status) if status.code() == Code::DeadlineExceeded => panic!("it does not end"),
                Err(status) => return status,
            }
        }
    }

    pub fn endpoints(&self, service: &str) -> Option<Vec<wire::Endpoint>> {
        endpoints(&self.held, service)
    }

    pub fn service(&self, service: &str) -> Option<wire::Service> {
        match self.held.get(&format!("service/{service}"))?.body.clone()? {
            wire::resource::Body::Service(service) => Some(service),
            other => panic!("{other:?}"),
        }
    }

    /// Versions by name, as in Hello.
    pub fn versions(&self) -> HashMap<String, u64> {
        self.held
            .iter()
            .map(|(name, it)| (name.clone(), it.version))
            .collect()
    }
}

pub fn endpoints(
    held: &HashMap<String, wire::Resource>,
    service: &str,
) -> Option<Vec<wire::Endpoint>> {
    match held.get(&format!("endpoints/{service}"))?.body.clone()? {
        wire::resource::Body::Endpoints(endpoints) => Some(endpoints.endpoints),
        other => panic!("{other:?}"),
    }
}

/// Waits for a number of endpoints.
pub fn count(
    service: &'static str,
    wanted: usize,
) -> impl Fn(&HashMap<String, wire::Resource>) -> bool {
    move |held| endpoints(held, service).is_some_and(|endpoints| endpoints.len() == wanted)
}

pub fn caller(instance: &str) -> wire::Hello {
    wire::Hello {
        instance: instance.to_owned(),
        proxy_version: "0.0.0-test".to_owned(),
        ..Default::default()
    }
}

pub fn server(instance: &str, address: &str) -> wire::Hello {
    wire::Hello {
        inbound_address: address.to_owned(),
        ..caller(instance)
    }
}

pub const CHAT: &str = r#"
apiVersion: outrigger.dev/v1alpha1
kind: Service
metadata: {name: chat}
spec:
  hosts: [chat.models]
  ports: [{port: 80, protocol: http}]
"#;

pub fn service(name: &str) -> String {
    CHAT.replace("chat", name)
}

/// A token's parts, for bending them.
pub fn decode(token: &str) -> JoinToken {
    JoinToken::decode(token).unwrap()
}
