//! gRPC with tonic on both sides.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt};
use outrigger_tests::echo::{EchoClient, EchoServer, Text};
use outrigger_tests::{ControlPlane, Sidecar, eventually, within};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request};

use crate::mesh::{service, service_of};

/// A mesh whose service's port has this protocol, with the echo server behind it.
async fn start(protocol: &str) -> (ControlPlane, EchoServer, Sidecar, Sidecar, EchoClient) {
    let control_plane = ControlPlane::start().await;
    control_plane.apply(&service_of(protocol, 80, "chat", ""));
    let app = EchoServer::start().await;
    let server = Sidecar::serving(&control_plane, "chat:80", app.address()).await;
    let caller = Sidecar::caller(&control_plane).await;
    let client = EchoClient::connect(caller.outbound(), "chat").await;
    eventually("the echo answers", Duration::from_secs(10), async || {
        client
            .clone()
            .unary(Request::new("ready".into()))
            .await
            .map_err(|status| status.to_string())
    })
    .await;
    (control_plane, app, server, caller, client)
}

#[tokio::test]
async fn all_kinds_of_calls() {
    // Where the port says `http`, the content type says what it is.
    for protocol in ["grpc", "http2", "http"] {
        let (_control_plane, _app, server, _caller, mut client) = start(protocol).await;
        let answer = client.unary(Request::new("hello".into())).await.unwrap();
        assert_eq!(answer.metadata().get("x-initial").unwrap(), "head");
        assert_eq!(answer.into_inner(), "hello".into());

        let counted: Vec<Text> = client
            .server_stream("count:500")
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        assert_eq!(
            (counted.len(), counted[499].text.as_str()),
            (500, "499"),
            "{protocol}"
        );

        let words = ["a", "b", "c"].map(Text::from).to_vec();
        assert_eq!(
            client.client_stream(words).await.unwrap(),
            "a b c".into(),
            "{protocol}"
        );

        // Each message is sent only after the echo of the one before: nothing may be held back.
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let mut echoes = client.both(ReceiverStream::new(receiver)).await.unwrap();
        for number in 0..20 {
            let text = Text {
                text: format!("message {number}"),
            };
            sender.send(text.clone()).await.unwrap();
            let echo = within("an echo", Duration::from_secs(5), echoes.next())
                .await
                .unwrap()
                .unwrap();
            assert_eq!(echo, text, "{protocol}");
        }
        drop(sender);
        assert!(
            within("the end", Duration::from_secs(5), echoes.next())
                .await
                .is_none()
        );

        let metrics = server.metrics().await;
        let gone = [("direction", "inbound"), ("reason", "client-gone")];
        assert_eq!(
            metrics.sum("outrigger_requests_total", &gone),
            0.0,
            "{protocol}: the end was not seen"
        );
        assert!(
            metrics.sum(
                "outrigger_requests_total",
                &[("direction", "inbound"), ("code", "2xx")]
            ) >= 4.0
        );
    }
}

#[tokio::test]
async fn statuses_and_trailers_arrive_as_they_are() {
    let (_control_plane, _app, _server, _caller, mut client) = start("grpc").await;
    for code in [1, 3, 5, 8, 13, 14, 16] {
        let status = client
            .unary(Request::new(Text {
                text: format!("fail:{code}"),
            }))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::from_i32(code));
        assert_eq!(status.message(), "as you asked: ünïcode");
        assert_eq!(status.metadata().get("x-trailing").unwrap(), "tail");
        let binary = status
            .metadata()
            .get_bin("x-trailing-bin")
            .unwrap()
            .to_bytes()
            .unwrap();
        assert_eq!(binary[..], [0, 255, 7]);
    }
    // A status after messages: in trailers proper.
    let texts = futures_util::stream::iter([Text::from("one"), Text::from("fail:9")]);
    let mut echoes = client.both(texts).await.unwrap();
    assert_eq!(echoes.next().await.unwrap().unwrap(), "one".into());
    assert_eq!(
        echoes.next().await.unwrap().unwrap_err().code(),
        Code::FailedPrecondition
    );
}

#[tokio::test]
async fn deadlines_travel_and_end_calls() {
    let (_control_plane, _app, _server, _caller, mut client) = start("grpc").await;
    let mut request = Request::new(Text::from("deadline"));
    request.set_timeout(Duration::from_secs(7));
    let seen = client.unary(request).await.unwrap().into_inner().text;
    let (value, unit) = seen.split_at(seen.len() - 1);
    let seconds = value.parse::<f64>().unwrap()
        * match unit {
            "S" => 1.0,
            "m" => 1e-3,
            "u" => 1e-6,
            "n" => 1e-9,
            _ => 0.0,
        };
    assert!(
        (6.0..=7.0).contains(&seconds),
        "the application was told {seen}"
    );

    let start = Instant::now();
    let mut request = Request::new(Text::from("sleep:5000"));
    request.set_timeout(Duration::from_millis(400));
    let status = client.unary(request).await.unwrap_err();
    // tonic's own timer says CANCELLED where it is first.
    assert!(
        matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled),
        "{status:?}"
    );
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn errors_of_the_proxy_are_grpc_statuses() {
    let control_plane = ControlPlane::start().await;
    control_plane.apply(&service_of("grpc", 80, "chat", ""));
    control_plane.apply(&service_of(
        "grpc",
        80,
        "slow",
        "timeouts: {request: 300ms}",
    ));
    let app = EchoServer::start().await;
    let _server = Sidecar::serving(&control_plane, "slow:80", app.address()).await;
    let caller = Sidecar::caller(&control_plane).await;

    let mut slow = EchoClient::connect(caller.outbound(), "slow").await;
    eventually("the echo answers", Duration::from_secs(10), async || {
        slow.clone()
            .unary(Request::new("ready".into()))
            .await
            .map_err(|status| status.to_string())
    })
    .await;
    for (authority, text, code, reason) in [
        ("nobody", "x", Code::Unimplemented, "no-route"),
        ("chat", "x", Code::Unavailable, "no-endpoints"),
        (
            "slow",
            "sleep:3000",
            Code::DeadlineExceeded,
            "request-timeout",
        ),
    ] {
        let mut client = EchoClient::connect(caller.outbound(), authority).await;
        let status = client.unary(Request::new(text.into())).await.unwrap_err();
        assert_eq!(status.code(), code, "{authority}: {status:?}");
        assert_eq!(
            status.metadata().get("x-outrigger-reason").unwrap(),
            reason,
            "{status:?}"
        );
        assert!(!status.message().is_empty());
    }
    slow.unary(Request::new("again".into())).await.unwrap();
}

#[tokio::test]
async fn grpc_codes_are_retried_where_the_policy_says_so() {
    let control_plane = ControlPlane::start().await;
    let retry = "retry: {attempts: 2, grpcCodes: [unavailable], methods: [POST], backoff: 5ms}";
    control_plane.apply(&service("chat", retry).replace("protocol: http", "protocol: grpc"));
    let app = EchoServer::start().await;
    let _server = Sidecar::serving(&control_plane, "chat:80", app.address()).await;
    let caller = Sidecar::caller(&control_plane).await;
    let mut client = EchoClient::connect(caller.outbound(), "chat").await;
    eventually("the echo answers", Duration::from_secs(10), async || {
        client
            .clone()
            .unary(Request::new("ready".into()))
            .await
            .map_err(|status| status.to_string())
    })
    .await;
    let retries = async || {
        caller
            .metrics()
            .await
            .sum("outrigger_retries_total", &[("service", "default/chat")])
    };
    let before = retries().await;
    assert_eq!(
        client
            .unary(Request::new("fail:14".into()))
            .await
            .unwrap_err()
            .code(),
        Code::Unavailable
    );
    assert_eq!(retries().await - before, 2.0);
    assert_eq!(
        client
            .unary(Request::new("fail:9".into()))
            .await
            .unwrap_err()
            .code(),
        Code::FailedPrecondition
    );
    assert_eq!(retries().await - before, 2.0);
}
