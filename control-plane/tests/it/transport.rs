use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Credentials, Mesh, caller};

#[tokio::test]
async fn certificates_of_another_mesh_are_refused() {
    let (one, other) = (Mesh::start().await, Mesh::start().await);
    let credentials = one.join("chat").await;
    assert!(other.dial(&credentials).await.is_err());
    one.dial(&credentials).await.map(drop).unwrap();
}

#[tokio::test]
async fn self_made_and_expired_certificates_are_refused() {
    let mesh = Mesh::start_with(&["--certificate-lifetime=5s"]).await;
    let good = mesh.join("chat").await;
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    let id = good.response.spiffe_id.as_str();
    params
        .subject_alt_names
        .push(rcgen::SanType::URI(id.try_into().unwrap()));
    let certificate = params.self_signed(&key).unwrap();
    let self_made = Credentials {
        key: PrivatePkcs8KeyDer::from(key.serialize_der()),
        chain: vec![certificate.der().clone()],
        response: good.response.clone(),
    };
    assert!(mesh.dial(&self_made).await.is_err());
    let mut stream = mesh.open(&good, caller("caller-0001")).await;
    // The certificate's end is the stream's end.
    let status = stream.end().await;
    assert_eq!(status.code(), tonic::Code::Unauthenticated, "{status}");
    assert!(status.message().contains("expired"), "{status}");
    // Times in certificates are whole seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(mesh.dial(&good).await.is_err());
}

#[tokio::test]
async fn a_stream_needs_a_certificate() {
    let mesh = Mesh::start().await;
    let channel = mesh
        .channel(mesh.plane().sidecar_address, None)
        .await
        .unwrap();
    use outrigger_proto::dataplane::v1::dataplane_service_client::DataplaneServiceClient;
    let mut client = DataplaneServiceClient::new(channel.clone());
    let error = client
        .discover(tokio_stream::empty())
        .await
        .map(drop)
        .unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unauthenticated, "{error}");
    use outrigger_proto::telemetry::v1::telemetry_service_client::TelemetryServiceClient;
    let report = outrigger_proto::telemetry::v1::ReportRequest::default();
    let mut client = TelemetryServiceClient::new(channel);
    let error = client.report(report).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unauthenticated);
}

#[tokio::test]
async fn clients_that_talk_rubbish_or_nothing_harm_nobody() {
    let mesh = Mesh::start().await;
    let address = mesh.plane().sidecar_address;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0x16, 3, 1, 255, 255, 0, 0],
        &[0; 1000],
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        // It ends, with an alert or without.
        let _ = tokio::time::timeout(Duration::from_secs(12), read)
            .await
            .unwrap();
    }
    let credentials = mesh.join("chat").await;
    mesh.open(&credentials, caller("caller-0001")).await;
}

#[tokio::test]
async fn metrics_and_probes_answer_on_plain_http() {
    let mesh = Mesh::start().await;
    let credentials = mesh.join("chat").await;
    let _stream = mesh.open(&credentials, caller("caller-0001")).await;
    let metrics = http(&mesh, "/metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
    for line in [
        "outrigger_control_plane_sidecars_connected 1",
        "outrigger_control_plane_certificates_issued_total{reason=\"join\"} 1",
        "outrigger_control_plane_token_joins_total{result=\"ok\"} 1",
        "outrigger_control_plane_resources{kind=\"Service\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    assert!(http(&mesh, "/live").await.starts_with("HTTP/1.1 200"));
    assert!(http(&mesh, "/ready").await.starts_with("HTTP/1.1 200"));
    assert!(http(&mesh, "/else").await.starts_with("HTTP/1.1 404"));
}

async fn http(mesh: &Mesh, path: &str) -> String {
    let mut stream = TcpStream::connect(mesh.plane().metrics_address)
        .await
        .unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
