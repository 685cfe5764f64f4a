//! Sticky sessions under retries and hedges: a session goes where its answer came from.

use std::net::SocketAddr;
use std::time::Duration;

use aws_lc_rs::hmac;
use http::{Method, Response, StatusCode};
use http_body_util::Full;

use super::client::{Whole, once};
use super::mesh::{Calls, application, plain, retry, text};
use crate::policy::{Carrier, Hedge, SessionSettings};

fn sticky() -> Calls {
    Calls {
        session: Some(SessionSettings {
            carrier: Carrier::Header(http::HeaderName::from_static("x-session")),
            absolute_timeout: None,
            permanent: false,
            key: hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]),
        }),
        ..Calls::default()
    }
}

/// Says its name; fails or takes its time where the request's path names it.
async fn named(name: &'static str) -> SocketAddr {
    application(move |request| async move {
        let path = request.uri().path().to_owned();
        if path == format!("/fail/{name}") {
            let answer = Response::builder().status(StatusCode::SERVICE_UNAVAILABLE);
            return answer.body(Full::from(name)).unwrap();
        }
        if path == format!("/slow/{name}") {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        text(name)
    })
    .await
}

async fn ask(to: SocketAddr, path: &str, session: Option<&str>) -> Whole {
    let session = session.map_or_else(String::new, |it| format!("x-session: {it}\r\n"));
    once(
        to,
        &format!("GET {path} HTTP/1.1\r\nhost: chat\r\n{session}\r\n"),
    )
    .await
}

#[tokio::test]
async fn a_retry_takes_the_session_along() {
    let mut calls = sticky();
    calls.retry = Some(crate::policy::Retry {
        statuses: vec![StatusCode::SERVICE_UNAVAILABLE],
        ..retry(1)
    });
    let caller = plain(calls, &[named("a").await, named("b").await]);
    let to = caller.outbound();
    let first = ask(to, "/", None).await;
    let (home, token) = (first.body.clone(), first.head.get("x-session").unwrap());
    let other = if home == "a" { "b" } else { "a" };
    for _ in 0..4 {
        let again = ask(to, "/", Some(token)).await;
        assert_eq!(again.body, home);
        assert_eq!(again.head.get("x-session"), None, "it has its token");
    }
    // Only the session's endpoint fails: another one answers, and has the session from then on.
    let moved = ask(to, &format!("/fail/{home}"), Some(token)).await;
    assert_eq!((moved.head.status, moved.body.as_str()), (200, other));
    let token = moved.head.get("x-session").unwrap();
    for _ in 0..4 {
        let again = ask(to, "/", Some(token)).await;
        assert_eq!(again.body, other);
        assert_eq!(again.head.get("x-session"), None);
    }
}

#[tokio::test]
async fn a_hedge_that_wins_takes_the_session_along_and_one_that_loses_does_not() {
    let mut calls = sticky();
    calls.hedge = Some(Hedge {
        delay: Duration::from_millis(20),
        max_requests: 2,
        methods: vec![Method::GET],
    });
    let caller = plain(calls, &[named("a").await, named("b").await]);
    let to = caller.outbound();
    let first = ask(to, "/", None).await;
    let (home, token) = (first.body.clone(), first.head.get("x-session").unwrap());
    let other = if home == "a" { "b" } else { "a" };
    // The other one is slow, and not waited for where the session's own answers.
    for _ in 0..4 {
        let kept = ask(to, &format!("/slow/{other}"), Some(token)).await;
        assert_eq!(kept.body, home);
        assert_eq!(kept.head.get("x-session"), None);
    }
    let moved = ask(to, &format!("/slow/{home}"), Some(token)).await;
    assert_eq!(moved.body, other);
    let token = moved.head.get("x-session").unwrap();
    let again = ask(to, &format!("/slow/{home}"), Some(token)).await;
    assert_eq!(again.body, other);
    assert_eq!(again.head.get("x-session"), None);
}
