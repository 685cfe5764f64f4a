use std::time::Duration;

use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::{get, once, post};
use super::mesh::{Calls, Onto, Sidecar, application, nobody, plain, sockets, text};
use crate::policy::filters::DirectResponse;
use crate::policy::{Cause, Causes, Timeouts};

const SPARE: &str = "default/spare";

fn on(causes: &[Cause]) -> Causes {
    causes.iter().copied().collect()
}

fn response(status: u16, body: &'static str) -> Onto {
    Onto::Response(DirectResponse {
        status: StatusCode::from_u16(status).unwrap(),
        content_type: Some(HeaderValue::from_static("application/json")),
        body: body.into(),
    })
}

async fn spare() -> Onto {
    let app = application(|request| async move {
        let body = http_body_util::BodyExt::collect(request.into_body()).await;
        let body = body.unwrap().to_bytes();
        text(&format!("spare {}", String::from_utf8_lossy(&body)))
    });
    Onto::Service(SPARE, vec![app.await])
}

async fn status(status: u16) -> std::net::SocketAddr {
    application(move |_| async move {
        let answer = Response::builder().status(status);
        answer.body(Full::from("primary")).unwrap()
    })
    .await
}

async fn used(caller: &Sidecar, cause: &str, to: &str) {
    let (cause, to) = (format!("cause=\"{cause}\""), format!("to=\"{to}\""));
    caller
        .expect_metric(&["outrigger_fallbacks_total", &cause, &to, "} 1"])
        .await;
}

#[tokio::test]
async fn each_cause_leads_to_its_fallback() {
    let hangs = sockets(|mut stream| async move {
        let mut head = [0; 1024];
        let _ = stream.read(&mut head).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    })
    .await;
    let stalls = sockets(|mut stream| async move {
        let mut head = [0; 1024];
        let _ = stream.read(&mut head).await;
        let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
    })
    .await;
    let resets = sockets(|mut stream| async move {
        let mut head = [0; 1024];
        let _ = stream.read(&mut head).await;
    })
    .await;
    let timeouts = Timeouts {
        first_byte: Some(Duration::from_millis(200)),
        ..Timeouts::default()
    };
    for (endpoints, cause) in [
        (vec![], Cause::NoEndpoints),
        (vec![nobody().await], Cause::ConnectFailed),
        (vec![status(503).await], Cause::Overload),
        (vec![status(429).await], Cause::Overload),
        (vec![status(500).await], Cause::ServerError),
        (vec![resets], Cause::Reset),
        (vec![hangs], Cause::FirstByteTimeout),
        (vec![stalls], Cause::FirstByteTimeout),
    ] {
        let calls = |fallbacks| Calls {
            timeouts: timeouts.clone(),
            fallbacks,
            ..Calls::default()
        };
        let caller = plain(calls(vec![(on(&[cause]), spare().await)]), &endpoints);
        let answer = post(caller.outbound(), "/", "body").await;
        assert_eq!(
            (answer.head.status, answer.body.as_str()),
            (200, "spare body"),
            "{cause:?}"
        );
        assert_eq!(answer.head.get("x-outrigger-fallback"), Some(SPARE));
        assert_eq!(answer.head.reason(), "");
        used(&caller, cause.as_str(), SPARE).await;
        let line = &caller.log_lines(1).await[0];
        assert_eq!(line["fallback"], SPARE);
        // It counts for where it went.
        caller
            .expect_metric(&["outrigger_requests_total", "peer=\"default/spare\"", "} 1"])
            .await;
        caller.idle().await;
        // Other causes are none of its business.
        let others = Cause::ALL.into_iter().filter(|other| {
            *other != cause && !(cause == Cause::Overload && *other == Cause::ServerError)
        });
        let caller = plain(calls(vec![(others.collect(), spare().await)]), &endpoints);
        let answer = post(caller.outbound(), "/", "body").await;
        assert!(answer.head.status >= 400, "{cause:?}: {answer:?}");
        assert_eq!(answer.head.get("x-outrigger-fallback"), None);
    }
}

#[tokio::test]
async fn they_are_tried_in_order() {
    let calls = Calls {
        expose_attempts: true,
        fallbacks: vec![
            (on(&[Cause::Reset]), response(500, "not this one")),
            (
                on(&[Cause::ServerError]),
                Onto::Service(SPARE, vec![nobody().await]),
            ),
            (on(&[Cause::ConnectFailed]), response(203, "{}")),
        ],
        ..Calls::default()
    };
    let caller = plain(calls, &[status(502).await]);
    let answer = get(caller.outbound(), "/").await;
    assert_eq!((answer.head.status, answer.body.as_str()), (203, "{}"));
    assert_eq!(answer.head.get("content-type"), Some("application/json"));
    assert_eq!(answer.head.get("x-outrigger-fallback"), Some("response"));
    assert_eq!(answer.head.get("x-outrigger-attempts"), Some("2"));
    used(&caller, "server-error", SPARE).await;
    used(&caller, "connect-failed", "response").await;
    assert_eq!(caller.log_lines(1).await[0]["fallback"], "response");
    let head = once(
        caller.outbound(),
        "GET / HTTP/1.1\r\nhost: chat\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(head.head.status, 203);
}

#[tokio::test]
async fn where_all_fail_the_last_failure_is_told() {
    let calls = Calls {
        fallbacks: vec![(
            on(&[Cause::ServerError]),
            Onto::Service(SPARE, vec![nobody().await]),
        )],
        ..Calls::default()
    };
    let caller = plain(calls, &[status(500).await]);
    let answer = get(caller.outbound(), "/").await;
    assert_eq!(
        (answer.head.status, answer.head.reason()),
        (503, "connect-failed")
    );
    assert_eq!(answer.head.get("x-outrigger-fallback"), Some(SPARE));
}

#[tokio::test]
async fn a_body_that_was_not_kept_goes_nowhere_else() {
    let reads = application(|request| async move {
        let _ = http_body_util::BodyExt::collect(request.into_body()).await;
        let answer = Response::builder().status(503);
        answer.body(Full::from("primary")).unwrap()
    })
    .await;
    let calls = Calls {
        fallbacks: vec![(on(&[Cause::Overload]), spare().await)],
        ..Calls::default()
    };
    let caller = plain(calls.clone(), &[reads]);
    let large = "x".repeat(70_000);
    let answer = post(caller.outbound(), "/", &large).await;
    assert_eq!((answer.head.status, answer.body.as_str()), (503, "primary"));
    assert_eq!(answer.head.get("x-outrigger-fallback"), None);
    let line = &caller.log_lines(1).await[0];
    assert_eq!(line["not_retried"], "body-too-large");
    // A response needs no body.
    let mut calls = calls;
    calls
        .fallbacks
        .push((on(&[Cause::Overload]), response(200, "later")));
    let caller = plain(calls, &[reads]);
    let answer = post(caller.outbound(), "/", &large).await;
    assert_eq!((answer.head.status, answer.body.as_str()), (200, "later"));
}
