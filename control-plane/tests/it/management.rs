use outrigger_control_plane::client::{Client, ConnectOptions};
use outrigger_proto::api::v1 as api;
use outrigger_proto::api::v1::mesh_service_client::MeshServiceClient;
use tonic::{Code, Request, Status};

use crate::harness::{CHAT, Credentials, Mesh, caller};

async fn status_with(
    mesh: &Mesh,
    header: Option<&str>,
    credentials: Option<&Credentials>,
) -> Result<(), Status> {
    let channel = mesh
        .channel(mesh.plane().management_address, credentials)
        .await
        .unwrap();
    let mut request = Request::new(api::GetStatusRequest {});
    if let Some(header) = header {
        request
            .metadata_mut()
            .insert("authorization", header.parse().unwrap());
    }
    MeshServiceClient::new(channel)
        .get_status(request)
        .await
        .map(drop)
}

#[tokio::test]
async fn nobody_gets_in_without_a_token() {
    let mesh = Mesh::start().await;
    let token = mesh.context().token;
    for header in [
        None,
        Some("Bearer wrong"),
        Some("Bearer "),
        Some("Basic YWRtaW46YWRtaW4="),
        Some(token.as_str()),
    ] {
        let error = status_with(&mesh, header, None).await.unwrap_err();
        assert_eq!(error.code(), Code::Unauthenticated, "{header:?}");
        assert!(!error.message().is_empty());
    }
    status_with(&mesh, Some(&format!("Bearer {token}")), None)
        .await
        .unwrap();
    status_with(&mesh, Some(&format!("bearer {token}")), None)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_administrators_certificate_opens_it_and_no_other_does() {
    let mesh = Mesh::start().await;
    let sidecar = mesh.join("admin").await;
    let error = status_with(&mesh, None, Some(&sidecar)).await.unwrap_err();
    assert_eq!(error.code(), Code::Unauthenticated);
    assert!(error.message().contains("is no administrator"), "{error}");

    let create = api::CreateTokenRequest {
        namespace: "outrigger-system".to_owned(),
        service_account: "admin".to_owned(),
        ..Default::default()
    };
    let token = mesh
        .client
        .tokens()
        .create_token(create)
        .await
        .unwrap()
        .into_inner()
        .token;
    let admin = mesh.join_with(&token).await.unwrap();
    status_with(&mesh, None, Some(&admin)).await.unwrap();
}

#[tokio::test]
async fn all_three_services_are_behind_the_token_and_health_and_reflection_are_not() {
    let mesh = Mesh::start().await;
    let channel = mesh
        .channel(mesh.plane().management_address, None)
        .await
        .unwrap();
    let list = api::resource_service_client::ResourceServiceClient::new(channel.clone())
        .list(api::ListRequest::default())
        .await;
    assert_eq!(list.unwrap_err().code(), Code::Unauthenticated);
    let tokens = api::token_service_client::TokenServiceClient::new(channel.clone())
        .create_token(api::CreateTokenRequest::default())
        .await;
    assert_eq!(tokens.unwrap_err().code(), Code::Unauthenticated);

    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;
    for service in [
        "",
        "outrigger.api.v1.ResourceService",
        "outrigger.api.v1.TokenService",
    ] {
        let check = tonic_health::pb::HealthCheckRequest {
            service: service.to_owned(),
        };
        let health = HealthClient::new(channel.clone())
            .check(check)
            .await
            .unwrap();
        assert_eq!(health.into_inner().status(), ServingStatus::Serving);
    }

    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let ask = tonic_reflection::pb::v1::ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut answers = ServerReflectionClient::new(channel)
        .server_reflection_info(tokio_stream::once(ask))
        .await
        .unwrap()
        .into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(services)) = answer else {
        panic!("{answer:?}");
    };
    assert!(
        services
            .service
            .iter()
            .any(|it| it.name == "outrigger.api.v1.ResourceService")
    );
}

#[tokio::test]
async fn status_tells_what_is_running() {
    let mesh = Mesh::start().await;
    let credentials = mesh.join("chat").await;
    let _stream = mesh.open(&credentials, caller("caller-0001")).await;
    mesh.apply(CHAT).await;
    let status = mesh
        .client
        .mesh()
        .get_status(api::GetStatusRequest {})
        .await
        .unwrap();
    let status = status.into_inner();
    assert_eq!(status.trust_domain, "outrigger.local");
    assert_eq!(status.ca_fingerprint, mesh.context().ca_fingerprint);
    assert_eq!(status.connected_sidecars, 1);
    assert_eq!(status.resources["Service"], 1);
    assert_eq!(status.resources["Mesh"], 0);
    assert!(status.ca_expires_at.unwrap().seconds > status.started_at.unwrap().seconds);
}

#[tokio::test]
async fn the_token_and_the_version_outlive_a_restart() {
    let mut mesh = Mesh::start().await;
    let version = |status: api::ControlPlaneStatus| status.config_version;
    mesh.apply(CHAT).await;
    let before = mesh
        .client
        .mesh()
        .get_status(api::GetStatusRequest {})
        .await
        .unwrap();
    let written = std::fs::read(mesh.directory.path().join("admin.yaml")).unwrap();
    mesh.restart().await;
    assert_eq!(
        written,
        std::fs::read(mesh.directory.path().join("admin.yaml")).unwrap()
    );
    let after = mesh
        .client
        .mesh()
        .get_status(api::GetStatusRequest {})
        .await
        .unwrap();
    assert!(version(after.into_inner()) > version(before.into_inner()));
}

#[tokio::test]
async fn a_second_control_plane_on_the_same_directory_says_why_it_cannot_start() {
    use clap::Parser as _;
    use outrigger_control_plane::{app::ControlPlane, config::Config};
    let mesh = Mesh::start().await;
    let config = |flag: &str, directory: &std::path::Path| {
        let directory = format!("--data-dir={}", directory.display());
        let flags = [
            "x",
            &directory,
            "--sidecar-listen=127.0.0.1:0",
            "--metrics-listen=127.0.0.1:0",
            flag,
        ];
        Config::try_parse_from(flags).unwrap()
    };
    let free = "--management-listen=127.0.0.1:0";
    let error = ControlPlane::start(&config(free, mesh.directory.path()))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("in use by another process"),
        "{error}"
    );

    let other = tempfile::tempdir().unwrap();
    let taken = format!("--management-listen={}", mesh.plane().management_address);
    let error = ControlPlane::start(&config(&taken, other.path()))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("--management-listen"), "{error}");
    assert!(
        error.to_string().contains("in use by another program"),
        "{error}"
    );
}

#[tokio::test]
async fn the_context_file_is_private_and_names_a_server_that_can_be_reached() {
    use std::os::unix::fs::PermissionsExt as _;
    let mesh = Mesh::start().await;
    let path = mesh.directory.path().join("admin.yaml");
    let mode = std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    Client::connect(&mesh.context(), &ConnectOptions::default())
        .await
        .unwrap();
}
