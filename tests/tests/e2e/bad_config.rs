//! What is wrong is refused where it is written; what a sidecar cannot use is refused there, and seen.

use std::task::{Context, Poll};
use std::time::Duration;

use outrigger_proto::dataplane::v1 as dataplane;
use outrigger_tests::tls::{self, Authority, Identity};
use outrigger_tests::{ControlPlane, eventually, within};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::{BoxFuture, Service};
use tonic::transport::{Channel, Endpoint, Uri};

use crate::mesh::{Mesh, service};

#[tokio::test]
async fn invalid_resources_are_refused_with_all_problems_and_change_nothing() {
    let mesh = Mesh::start("").await;
    let yaml = "kind: Service\nmetadata: {name: chat}\nspec:\n  ports: [{port: 99999, protocol: htpp}]\n  timeout: {request: soon}\n\
                ---\nkind: Route\nmetadata: {name: bad}\nspec:\n  parentRefs: [{name: chat}]\n  rules: [{matches: [{path: {type: RegularExpression, value: \"(\"}}]}]\n";
    let output = mesh.control_plane.try_apply(yaml);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    for part in [
        "99999",
        "htpp",
        "did you mean",
        "timeouts",
        "spec.rules[0].matches[0].path",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    let good_and_bad = format!(
        "{}---\n{}",
        service("good", ""),
        "kind: Route\nmetadata: {name: bad}\nspec: {}\n"
    );
    assert_eq!(
        mesh.control_plane.try_apply(&good_and_bad).status.code(),
        Some(1)
    );
    let services = mesh.control_plane.ctl(&["get", "services", "-o", "name"]);
    assert!(
        !services.contains("good"),
        "half of an apply was stored: {services}"
    );
    assert_eq!(mesh.caller.get("chat", "/").await.status, 200);
}

#[tokio::test]
async fn exit_codes_tell_scripts_what_happened() {
    let mut control_plane = ControlPlane::start().await;
    control_plane.apply(&service("chat", ""));
    let code = |control_plane: &ControlPlane, arguments: &[&str]| {
        control_plane.try_ctl(arguments).status.code()
    };
    assert_eq!(code(&control_plane, &["get", "service", "chat"]), Some(0));
    assert_eq!(code(&control_plane, &["get", "service", "nobody"]), Some(3));
    assert_eq!(
        code(&control_plane, &["delete", "service", "nobody"]),
        Some(3)
    );
    assert_eq!(code(&control_plane, &["frobnicate"]), Some(2));
    let stale = format!("{}  # stale\n", service("chat", "hosts: [x.example]"))
        .replace("{name: chat}", "{name: chat, resourceVersion: \"999999\"}");
    assert_eq!(control_plane.try_apply(&stale).status.code(), Some(4));
    // A wrong token in a context that is otherwise right.
    let context = std::fs::read_to_string(control_plane.data_dir().join("admin.yaml")).unwrap();
    let forged: String = context
        .lines()
        .map(|line| {
            if line.starts_with("token:") {
                "token: wrong\n".to_string()
            } else {
                format!("{line}\n")
            }
        })
        .collect();
    let file = control_plane.data_dir().join("forged.yaml");
    std::fs::write(&file, forged).unwrap();
    let refused = control_plane.try_ctl_as(&file, &["get", "services"]);
    assert_eq!(refused.status.code(), Some(5));
    control_plane.kill9();
    assert_eq!(code(&control_plane, &["get", "services"]), Some(5));
}

/// Opens the sidecar's connection to the control plane as whoever `identity` says.
#[derive(Clone)]
struct Connector(std::net::SocketAddr, std::sync::Arc<Identity>);

impl Service<Uri> for Connector {
    type Response = hyper_util::rt::TokioIo<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>;
    type Error = std::io::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self(to, identity) = self.clone();
        Box::pin(async move {
            let stream =
                tls::connect(to, "control-plane.outrigger.local", "h2", Some(&identity)).await?;
            Ok(hyper_util::rt::TokioIo::new(stream))
        })
    }
}

#[tokio::test]
async fn a_refusal_by_a_sidecar_is_in_the_status_until_it_is_mended() {
    let authority = Authority::new("a test's authority");
    let directory = tempfile::TempDir::new().unwrap();
    std::fs::write(directory.path().join("ca.crt"), authority.pem()).unwrap();
    std::fs::write(directory.path().join("ca.key"), authority.key_pem()).unwrap();
    let flag =
        |name: &str, file: &str| format!("--{name}={}", directory.path().join(file).display());
    let control_plane = ControlPlane::start_with(&[
        &flag("ca-cert", "ca.crt"),
        &flag("ca-key", "ca.key"),
        "--trust-domain=outrigger.local",
    ])
    .await;
    control_plane.apply(&service("chat", ""));

    // A sidecar of the test's own, so that it can refuse what a real one would take.
    let identity = authority.issue("spiffe://outrigger.local/ns/default/sa/choosy", -60, 3600);
    let connector = Connector(control_plane.sidecar_address(), identity.into());
    let channel: Channel = Endpoint::from_static("http://control-plane")
        .connect_with_connector(connector)
        .await
        .unwrap();
    let mut client = dataplane::dataplane_service_client::DataplaneServiceClient::new(channel);
    let (requests, receiver) = tokio::sync::mpsc::channel(8);
    let say = async |message| {
        requests
            .send(dataplane::DiscoverRequest {
                message: Some(message),
            })
            .await
            .unwrap()
    };
    use dataplane::discover_request::Message as Say;
    use dataplane::discover_response::Message as Hear;
    say(Say::Hello(dataplane::Hello {
        instance: "0c2f7a52-0000-4000-8000-000000000001".into(),
        ..Default::default()
    }))
    .await;
    say(Say::Subscribe(dataplane::Subscribe {
        names: vec!["service/default/chat".into()],
        unsubscribe: vec![],
    }))
    .await;
    let mut responses = client
        .discover(ReceiverStream::new(receiver))
        .await
        .unwrap()
        .into_inner();

    // Refuses the service wherever it comes, and takes everything else.
    let mut refuse = true;
    let mut answer_until = async |refuse_now: bool| {
        refuse = refuse_now;
        loop {
            let response = within("a delta", Duration::from_secs(10), responses.message())
                .await
                .unwrap()
                .unwrap();
            let Some(Hear::Delta(delta)) = response.message else {
                continue;
            };
            let has_service = delta
                .resources
                .iter()
                .any(|resource| resource.name == "service/default/chat");
            if has_service && refuse {
                let refusal = dataplane::Refusal {
                    name: "service/default/chat".into(),
                    reason: "ports[0].protocol: found 9, which is not of this version".into(),
                };
                say(Say::Nack(dataplane::Nack {
                    nonce: delta.nonce,
                    refusals: vec![refusal],
                }))
                .await;
            } else {
                say(Say::Ack(dataplane::Ack { nonce: delta.nonce })).await;
            }
            if has_service {
                return;
            }
        }
    };
    answer_until(true).await;
    eventually("the refusal is shown", Duration::from_secs(5), async || {
        let status = control_plane.ctl(&["status"]);
        let json = control_plane.ctl(&["status", "-o", "json"]);
        let shown =
            status.contains("service/default/chat") || status.to_lowercase().contains("reject");
        if shown
            && json.contains("ports[0].protocol: found 9")
            && json.contains("service/default/chat")
        {
            Ok(())
        } else {
            Err(format!("{status}\n{json}"))
        }
    })
    .await;
    assert_eq!(
        control_plane
            .try_ctl(&["status", "--wait", "1s"])
            .status
            .code(),
        Some(1)
    );

    control_plane.apply(&service("chat", "loadBalancing: {policy: random}"));
    answer_until(false).await;
    eventually("the refusal is gone", Duration::from_secs(5), async || {
        let json = control_plane.ctl(&["status", "-o", "json"]);
        if json.contains("ports[0].protocol") {
            Err(json)
        } else {
            Ok(())
        }
    })
    .await;
}
