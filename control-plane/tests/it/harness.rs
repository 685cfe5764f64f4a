//! A control plane with a directory of its own, and clients for it.

mod sidecar;
mod tls;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use clap::Parser as _;
use outrigger_control_plane::app::ControlPlane;
use outrigger_control_plane::ca::token::JoinToken;
use outrigger_control_plane::client::{Client, ConnectOptions, Context};
use outrigger_control_plane::config::Config;
use outrigger_proto::api::v1 as api;
use outrigger_proto::dataplane::v1 as wire;
use outrigger_proto::identity::v1 as identity;
use rcgen::KeyPair;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

pub use sidecar::{Sidecar, count, endpoints};
pub use tls::{Credentials, request};
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
        let config = tls::client_config(&self.context(), credentials);
        tls::connect(address, config).await
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
        Ok(Sidecar::new(up, down.into_inner()))
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
