//! The gRPC servers: what is served on which port.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::FILE_DESCRIPTOR_SET;
use outrigger_proto::api::v1::mesh_service_server::MeshServiceServer;
use outrigger_proto::api::v1::resource_service_server::ResourceServiceServer;
use outrigger_proto::api::v1::token_service_server::TokenServiceServer;
use outrigger_proto::budget::v1::budget_service_server::BudgetServiceServer;
use outrigger_proto::identity::v1::identity_service_server::IdentityServiceServer;
use outrigger_proto::telemetry::v1::telemetry_service_server::TelemetryServiceServer;
use tokio::net::TcpListener;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic_reflection::server::Builder as Reflection;

use super::auth::AdminOnly;
use super::identity::Identity;
use super::mesh::Mesh;
use super::resources::ResourceApi;
use super::telemetry::Telemetry;
use super::tokens::Tokens;
use crate::budget::Leases;
use crate::metrics::Metrics;
use crate::push::DataplaneServer;
use crate::tls;

/// A connection that does not answer a ping is closed, so that a host that vanished does not count as connected.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// One sidecar has a stream and now and then a call.
const SIDECAR_STREAMS: u32 = 32;
/// Tools may watch many things.
const MANAGEMENT_STREAMS: u32 = 256;
/// Longest header list: a client certificate is not in it, a token is.
const HEADERS: u32 = 16 * 1024;
/// A certificate request has about 1 KiB, a report 1,000 edges of 100 bytes.
const SIDECAR_REQUEST: usize = 1024 * 1024;

fn builder(streams: u32) -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(streams)
        .http2_max_header_list_size(HEADERS)
}

/// A port with TLS.
#[derive(Debug)]
pub struct Port {
    pub listener: TcpListener,
    pub tls: rustls::ServerConfig,
    pub metrics: Arc<Metrics>,
}

impl Port {
    fn incoming(self, name: &'static str) -> ReceiverStream<std::io::Result<tls::PeerStream>> {
        ReceiverStream::new(tls::accept(self.listener, self.tls, name, self.metrics))
    }
}

/// What sidecars call.
#[derive(Clone, Debug)]
pub struct SidecarServices {
    pub identity: Identity,
    pub dataplane: DataplaneServer,
    pub telemetry: Telemetry,
    pub leases: Leases,
}

/// Serves the sidecars' port until `stop`.
///
/// # Errors
/// Those of the transport.
pub async fn sidecars(
    port: Port,
    services: SidecarServices,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    builder(SIDECAR_STREAMS)
        .add_service(
            IdentityServiceServer::new(services.identity)
                .max_decoding_message_size(SIDECAR_REQUEST),
        )
        .add_service(
            TelemetryServiceServer::new(services.telemetry)
                .max_decoding_message_size(SIDECAR_REQUEST),
        )
        .add_service(
            BudgetServiceServer::new(services.leases).max_decoding_message_size(SIDECAR_REQUEST),
        )
        .add_service(services.dataplane)
        .serve_with_incoming_shutdown(port.incoming("sidecar"), stop)
        .await
}

/// What administrators call.
#[derive(Clone, Debug)]
pub struct ManagementServices {
    pub admins: AdminOnly,
    pub resources: ResourceApi,
    pub mesh: Mesh,
    pub tokens: Tokens,
}

/// A server that cannot be put together, or whose transport failed.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(transparent)]
    Transport(#[from] tonic::transport::Error),
    #[error("the description for reflection is damaged: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Serves the management port until `stop`.
///
/// Health and reflection need no token: probes have none, and the contract is public.
///
/// # Errors
/// Those of the transport.
pub async fn management(
    port: Port,
    services: ManagementServices,
    stop: impl Future<Output = ()>,
) -> Result<(), ServerError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<MeshServiceServer<Mesh>>().await;
    health
        .set_serving::<ResourceServiceServer<ResourceApi>>()
        .await;
    health.set_serving::<TokenServiceServer<Tokens>>().await;
    let reflection =
        || Reflection::configure().register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET);
    let admins = services.admins;
    builder(MANAGEMENT_STREAMS)
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(InterceptedService::new(
            services.resources.into_server(),
            admins.clone(),
        ))
        .add_service(InterceptedService::new(
            MeshServiceServer::new(services.mesh),
            admins.clone(),
        ))
        .add_service(InterceptedService::new(
            TokenServiceServer::new(services.tokens),
            admins,
        ))
        .serve_with_incoming_shutdown(port.incoming("management"), stop)
        .await?;
    Ok(())
}
