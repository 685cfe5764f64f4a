//! A gRPC echo service with a method of each kind, and its client. Written by hand on tonic's codec, so that it needs no
//! generated code; `tests/grpc` speaks the same service from Python.
//!
//! The text of a message steers the server: `fail:14` ends with that status, `sleep:500` answers after so many
//! milliseconds, `deadline` answers with the `grpc-timeout` that arrived, `count:3` is answered with three messages by
//! the server-streaming method. Everything else is echoed.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt, TryStreamExt};
use http::uri::PathAndQuery;
use tonic::codegen::{BoxFuture, Service};
use tonic::metadata::MetadataValue;
use tonic::server::{
    ClientStreamingService, Grpc, NamedService, ServerStreamingService, StreamingService,
    UnaryService,
};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::loopback;

/// `message Text { string text = 1; }`
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Text {
    #[prost(string, tag = "1")]
    pub text: String,
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self {
            text: text.to_string(),
        }
    }
}

type Texts = Pin<Box<dyn Stream<Item = Result<Text, Status>> + Send>>;
type Codec = ProstCodec<Text, Text>;

/// A running echo server.
#[derive(Debug)]
pub struct EchoServer {
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl EchoServer {
    pub async fn start() -> Self {
        let address = SocketAddr::new(loopback().into(), 28000);
        let incoming = tonic::transport::server::TcpIncoming::bind(address);
        let incoming = incoming
            .unwrap_or_else(|error| panic!("{address}: {error}"))
            .with_nodelay(Some(true));
        let task = tokio::spawn(async move {
            // It ends with the test.
            let _ = tonic::transport::Server::builder()
                .add_service(Echo)
                .serve_with_incoming(incoming)
                .await;
        });
        Self { address, task }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The service, for tonic's server.
#[derive(Debug, Clone, Copy)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "test.echo.v1.Echo";
}

impl Service<http::Request<tonic::body::Body>> for Echo {
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = Grpc::new(Codec::default());
            Ok(match request.uri().path() {
                "/test.echo.v1.Echo/Unary" => grpc.unary(Echo, request).await,
                "/test.echo.v1.Echo/ServerStream" => grpc.server_streaming(Echo, request).await,
                "/test.echo.v1.Echo/ClientStream" => grpc.client_streaming(Echo, request).await,
                "/test.echo.v1.Echo/Both" => grpc.streaming(Echo, request).await,
                path => Status::unimplemented(path.to_string()).into_http(),
            })
        })
    }
}

impl UnaryService<Text> for Echo {
    type Response = Text;
    type Future = BoxFuture<Response<Text>, Status>;

    fn call(&mut self, request: Request<Text>) -> Self::Future {
        Box::pin(async move {
            let deadline = request
                .metadata()
                .get("grpc-timeout")
                .and_then(|value| value.to_str().ok().map(String::from));
            let mut answer = Response::new(reply(request.into_inner(), deadline).await?);
            answer
                .metadata_mut()
                .insert("x-initial", MetadataValue::from_static("head"));
            Ok(answer)
        })
    }
}

impl ServerStreamingService<Text> for Echo {
    type Response = Text;
    type ResponseStream = Texts;
    type Future = BoxFuture<Response<Texts>, Status>;

    fn call(&mut self, request: Request<Text>) -> Self::Future {
        Box::pin(async move {
            let text = request.into_inner().text;
            let count = text
                .strip_prefix("count:")
                .and_then(|count| count.parse().ok())
                .unwrap_or(1);
            let stream = futures_util::stream::iter((0..count).map(|number: u32| {
                Ok(Text {
                    text: number.to_string(),
                })
            }));
            Ok(Response::new(stream.boxed()))
        })
    }
}

impl ClientStreamingService<Text> for Echo {
    type Response = Text;
    type Future = BoxFuture<Response<Text>, Status>;

    fn call(&mut self, request: Request<Streaming<Text>>) -> Self::Future {
        Box::pin(async move {
            let texts: Vec<String> = request
                .into_inner()
                .map_ok(|text| text.text)
                .try_collect()
                .await?;
            Ok(Response::new(Text {
                text: texts.join(" "),
            }))
        })
    }
}

impl StreamingService<Text> for Echo {
    type Response = Text;
    type ResponseStream = Texts;
    type Future = BoxFuture<Response<Texts>, Status>;

    fn call(&mut self, request: Request<Streaming<Text>>) -> Self::Future {
        let stream = request.into_inner().and_then(|text| reply(text, None));
        Box::pin(std::future::ready(Ok(Response::new(stream.boxed()))))
    }
}

async fn reply(message: Text, deadline: Option<String>) -> Result<Text, Status> {
    let number = |prefix| {
        message
            .text
            .strip_prefix(prefix)
            .and_then(|number: &str| number.parse::<u32>().ok())
    };
    if let Some(code) = number("fail:") {
        let mut status = Status::new(
            i32::try_from(code).unwrap_or(2).into(),
            "as you asked: ünïcode",
        );
        status
            .metadata_mut()
            .insert("x-trailing", MetadataValue::from_static("tail"));
        status
            .metadata_mut()
            .insert_bin("x-trailing-bin", MetadataValue::from_bytes(&[0, 255, 7]));
        return Err(status);
    }
    if let Some(milliseconds) = number("sleep:") {
        tokio::time::sleep(Duration::from_millis(milliseconds.into())).await;
    }
    if message.text == "deadline" {
        return Ok(Text {
            text: deadline.unwrap_or_else(|| "none".to_string()),
        });
    }
    Ok(message)
}

/// A client of the echo service.
#[derive(Debug, Clone)]
pub struct EchoClient {
    grpc: tonic::client::Grpc<Channel>,
}

impl EchoClient {
    /// Connects to `address` with `authority` as the name of the server.
    ///
    /// # Panics
    /// Where it cannot connect.
    pub async fn connect(address: SocketAddr, authority: &str) -> Self {
        let endpoint =
            Endpoint::from_shared(format!("http://{address}")).expect("an address makes a URI");
        let origin = format!("http://{authority}")
            .parse()
            .expect("tests name hosts that can be in a URI");
        let channel = endpoint
            .origin(origin)
            .connect()
            .await
            .unwrap_or_else(|error| panic!("{address}: {error:?}"));
        Self {
            grpc: tonic::client::Grpc::new(channel),
        }
    }

    /// # Errors
    /// As the server, or what is in between, says.
    pub async fn unary(&mut self, request: Request<Text>) -> Result<Response<Text>, Status> {
        self.ready().await?;
        self.grpc
            .unary(request, path("Unary"), Codec::default())
            .await
    }

    /// # Errors
    /// As the server, or what is in between, says.
    pub async fn server_stream(&mut self, text: &str) -> Result<Streaming<Text>, Status> {
        self.ready().await?;
        let answer = self
            .grpc
            .server_streaming(
                Request::new(text.into()),
                path("ServerStream"),
                Codec::default(),
            )
            .await?;
        Ok(answer.into_inner())
    }

    /// # Errors
    /// As the server, or what is in between, says.
    pub async fn client_stream(&mut self, texts: Vec<Text>) -> Result<Text, Status> {
        self.ready().await?;
        let request = Request::new(futures_util::stream::iter(texts));
        let answer = self
            .grpc
            .client_streaming(request, path("ClientStream"), Codec::default())
            .await?;
        Ok(answer.into_inner())
    }

    /// # Errors
    /// As the server, or what is in between, says.
    pub async fn both(
        &mut self,
        texts: impl Stream<Item = Text> + Send + 'static,
    ) -> Result<Streaming<Text>, Status> {
        self.ready().await?;
        let answer = self
            .grpc
            .streaming(Request::new(texts), path("Both"), Codec::default())
            .await?;
        Ok(answer.into_inner())
    }

    async fn ready(&mut self) -> Result<(), Status> {
        self.grpc
            .ready()
            .await
            .map_err(|error| Status::unavailable(format!("not ready: {error}")))
    }
}

fn path(method: &'static str) -> PathAndQuery {
    PathAndQuery::try_from(format!("/{}/{method}", Echo::NAME))
        .expect("names of methods make a path")
}
