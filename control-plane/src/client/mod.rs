//! A client of the management API: what `outriggerctl` and other tools speak to the control plane with.
//!
//! [`Context`] says where the control plane is, which CA it must belong to and which token opens it; the control plane
//! writes one for its administrator at its first start. [`Client::connect`] makes one HTTP/2 connection over TLS 1.3,
//! trusts no CA but the one of the context, and sends the token with every call.

mod connect;
mod context;
#[cfg(test)]
mod testing;
mod verify;

pub use connect::{ConnectError, ConnectOptions};
pub use context::{Context, ContextError};
pub use verify::{CONTROL_PLANE_PATH, ServerVerifier, VerifyError, fingerprint};

use outrigger_proto::api::v1::mesh_service_client::MeshServiceClient;
use outrigger_proto::api::v1::resource_service_client::ResourceServiceClient;
use outrigger_proto::api::v1::token_service_client::TokenServiceClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

/// The longest answer that is accepted, bytes. A list of some ten thousand resources fits; gRPC's own 4 MiB does not
/// hold one.
const MAX_ANSWER: usize = 64 << 20;

/// A connection to the management API.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Authorized,
}

/// A channel that sends the token with every call.
pub type Authorized = InterceptedService<Channel, Bearer>;

impl Client {
    /// Connects to the control plane of `context`. The connection is there, and the control plane has proven what it
    /// is, when this returns; whether it accepts the token turns out at the first call (`UNAUTHENTICATED`).
    pub async fn connect(
        context: &Context,
        options: &ConnectOptions,
    ) -> Result<Self, ConnectError> {
        let bearer = Bearer::new(&context.token)?;
        let channel = connect::channel(context, options).await?;
        Ok(Self {
            channel: InterceptedService::new(channel, bearer),
        })
    }

    /// Resources: apply, get, list, delete, watch.
    pub fn resources(&self) -> ResourceServiceClient<Authorized> {
        ResourceServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_ANSWER)
            .max_encoding_message_size(MAX_ANSWER)
    }

    /// Sidecars, and the control plane itself.
    pub fn mesh(&self) -> MeshServiceClient<Authorized> {
        MeshServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    /// Join tokens.
    pub fn tokens(&self) -> TokenServiceClient<Authorized> {
        TokenServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }
}

/// Adds `authorization: Bearer <token>`.
#[derive(Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl Bearer {
    fn new(token: &str) -> Result<Self, ConnectError> {
        let mut value: MetadataValue<Ascii> = format!("Bearer {token}")
            .parse()
            .map_err(|_| ConnectError::TokenNotAscii)?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

// Not derived: the token must not end up in a log.
impl std::fmt::Debug for Bearer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bearer(..)")
    }
}

impl Interceptor for Bearer {
    fn call(
        &mut self,
        mut request: tonic::Request<()>,
    ) -> Result<tonic::Request<()>, tonic::Status> {
        request
            .metadata_mut()
            .insert("authorization", self.0.clone());
        Ok(request)
    }
}
