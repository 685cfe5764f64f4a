//! gRPC with grpcio, as client and as server.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use outrigger_tests::echo::{EchoClient, EchoServer};
use outrigger_tests::{ControlPlane, Process, Sidecar, eventually, loopback, python, skip};
use tonic::Request;

use crate::mesh::service_of;

/// A mesh with the echo server at this address behind the service `chat`.
async fn start(app: SocketAddr) -> (ControlPlane, Sidecar, Sidecar) {
    let control_plane = ControlPlane::start().await;
    control_plane.apply(&service_of("grpc", 80, "chat", ""));
    let server = Sidecar::serving(&control_plane, "chat:80", app).await;
    let caller = Sidecar::caller(&control_plane).await;
    let client = EchoClient::connect(caller.outbound(), "chat").await;
    eventually("the echo answers", Duration::from_secs(20), async || {
        client
            .clone()
            .unary(Request::new("ready".into()))
            .await
            .map_err(|status| status.to_string())
    })
    .await;
    (control_plane, server, caller)
}

/// Lets grpcio's client make all its calls through this sidecar.
async fn call(python: &std::path::Path, caller: &Sidecar) {
    let mut command = Command::new(python);
    command
        .arg(python::directory("grpc").join("echo.py"))
        .arg("call")
        .arg(caller.outbound().to_string())
        .arg("chat");
    let directory = tempfile::TempDir::new().unwrap();
    let mut client = Process::spawn("grpcio-client", command, directory.path());
    let status = client.exited(Duration::from_secs(60)).await;
    assert!(status.success(), "{}", client.tail(20));
}

#[tokio::test]
async fn grpcio_calls_tonic() {
    let python = match python::environment("grpc") {
        Ok(python) => python,
        Err(reason) => return skip(&reason),
    };
    let app = EchoServer::start().await;
    let (_control_plane, _server, caller) = start(app.address()).await;
    call(&python, &caller).await;
}

#[tokio::test]
async fn grpcio_and_tonic_call_grpcio() {
    let python = match python::environment("grpc") {
        Ok(python) => python,
        Err(reason) => return skip(&reason),
    };
    let address = SocketAddr::new(loopback().into(), 28000);
    let mut command = Command::new(&python);
    command
        .arg(python::directory("grpc").join("echo.py"))
        .arg("serve")
        .arg(address.to_string());
    let directory = tempfile::TempDir::new().unwrap();
    let _app = Process::spawn("grpcio-server", command, directory.path());
    let (_control_plane, _server, caller) = start(address).await;
    call(&python, &caller).await;
    let mut client = EchoClient::connect(caller.outbound(), "chat").await;
    let words = ["a", "b"].map(Into::into).to_vec();
    assert_eq!(client.client_stream(words).await.unwrap(), "a b".into());
}
