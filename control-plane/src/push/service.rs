//! Takes streams in: who may open one, and the glue between tonic and our own codec.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::Poll;

use http::{Request, Response};
use outrigger_proto::dataplane::v1::DiscoverRequest;
use outrigger_proto::dataplane::v1::dataplane_service_server::SERVICE_NAME;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Status, Streaming};

use super::codec::{DiscoverCodec, Outgoing};
use super::{Context, stream};
use crate::ca::SpiffeId;
use crate::discovery::Registry;
use crate::tls::{Peer, PeerCertificate};

/// Longest message of a sidecar. A Hello with 10,000 held names of real length is below 1 MiB.
const MAX_REQUEST: usize = 4 * 1024 * 1024;
/// Responses that wait for a slow sidecar. There is one delta in flight at most; the rest answers announcements.
const BACKLOG: usize = 16;
const DISCOVER: &str = "/outrigger.dataplane.v1.DataplaneService/Discover";

/// `outrigger.dataplane.v1.DataplaneService`. Written by hand where tonic would generate it, because its codec writes
/// shared bytes.
#[derive(Clone, Debug)]
pub struct DataplaneServer {
    context: Context,
}

impl DataplaneServer {
    pub fn new(context: Context) -> DataplaneServer {
        DataplaneServer { context }
    }
}

impl NamedService for DataplaneServer {
    const NAME: &'static str = SERVICE_NAME;
}

type BoxFuture<T, E> = std::pin::Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl tower_service::Service<Request<Body>> for DataplaneServer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let context = self.context.clone();
        Box::pin(async move {
            if request.uri().path() != DISCOVER {
                return Ok(Status::unimplemented("there is no such method").into_http());
            }
            let mut grpc = Grpc::new(DiscoverCodec).max_decoding_message_size(MAX_REQUEST);
            Ok(grpc.streaming(Discover(context), request).await)
        })
    }
}

struct Discover(Context);

impl StreamingService<DiscoverRequest> for Discover {
    type Response = Outgoing;
    type ResponseStream = ReceiverStream<Result<Outgoing, Status>>;
    type Future = BoxFuture<tonic::Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: tonic::Request<Streaming<DiscoverRequest>>) -> Self::Future {
        let context = self.0.clone();
        Box::pin(async move {
            let certificate = certificate(request.extensions())?;
            let (sender, receiver) = mpsc::channel(BACKLOG);
            let requests = request.into_inner();
            tokio::spawn(stream::run(context, certificate, requests, sender));
            Ok(tonic::Response::new(ReceiverStream::new(receiver)))
        })
    }
}

/// The client certificate of a call that needs one.
pub fn certificate(extensions: &tonic::Extensions) -> Result<PeerCertificate, Status> {
    extensions
        .get::<Peer>()
        .and_then(|peer| peer.certificate.clone())
        .ok_or_else(|| {
            Status::unauthenticated(
                "a client certificate of the mesh is needed; get one with IssueCertificate",
            )
        })
}

/// Whether a sidecar may say something in the name of an instance: one that is connected, with the same identity.
pub(crate) fn speaks_for(
    registry: &Registry,
    instance: &str,
    identity: &Arc<SpiffeId>,
) -> Result<(), Status> {
    match registry.identity(instance) {
        Some(connected) if connected == *identity => Ok(()),
        Some(_) => Err(Status::permission_denied(
            "the instance belongs to another identity",
        )),
        None => Err(Status::failed_precondition(
            "the instance is not connected; open a Discover stream first",
        )),
    }
}
