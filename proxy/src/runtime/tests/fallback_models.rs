//! Fallbacks that ask for another model.

use std::net::SocketAddr;
use std::time::Duration;

use http::Response;
use http_body_util::Full;

use super::client::post;
use super::mesh::{Calls, Onto, Sidecar, application, nobody, plain};
use super::models::{CHAT, DONE, ERROR, ROLE, Requests, STOP, TOKEN, server};
use crate::policy::{Cause, Causes, Inference, Model};

const SPARE: &str = "default/spare";
const BODY: &str = r#"{"model": "large", "stream": true, "messages":[]}"#;

fn inference() -> Inference {
    Inference {
        max_body_bytes: 1 << 20,
        ..Inference::default()
    }
}

/// Asks for `tiny` at another service, which calls it `org/tiny`.
async fn spare() -> (Onto, Requests) {
    let answer = &[Some(ROLE), Some(TOKEN), Some(STOP), Some(DONE)];
    let (address, requests) = server(answer, Duration::ZERO).await;
    let inference = Inference {
        models: vec![Model {
            name: "tiny".into(),
            aliases: Vec::new(),
            served_as: Some("org/tiny".into()),
            subset: Default::default(),
        }],
        refuse_unknown: true,
        provider: "spares".into(),
        ..inference()
    };
    (
        Onto::Model(SPARE, vec![address], "tiny", Some(inference)),
        requests,
    )
}

fn caller(on: &[Cause], to: Onto, first_token: Option<Duration>, at: SocketAddr) -> Sidecar {
    let mut inference = inference();
    inference.streams.first_token = first_token;
    let calls = Calls {
        inference: Some(inference),
        fallbacks: vec![(on.iter().copied().collect::<Causes>(), to)],
        ..Calls::default()
    };
    plain(calls, &[at])
}

async fn status(status: u16) -> SocketAddr {
    application(move |_| async move {
        let answer = Response::builder().status(status);
        answer.body(Full::from("primary")).unwrap()
    })
    .await
}

#[tokio::test]
async fn another_model_answers_whatever_failed_before_the_first_token() {
    let pause = Duration::ZERO;
    let (error, _) = server(&[Some(ROLE), Some(ERROR), Some(DONE)], pause).await;
    let (cut, _) = server(&[Some(ROLE), None], pause).await;
    let (empty, _) = server(&[Some(ROLE)], pause).await;
    let (slow, _) = server(&[Some(ROLE), Some(TOKEN)], Duration::from_secs(60)).await;
    for (at, first_token, cause) in [
        (nobody().await, None, Cause::ConnectFailed),
        (status(503).await, None, Cause::Overload),
        (status(429).await, None, Cause::Overload),
        (error, None, Cause::ModelError),
        (cut, None, Cause::ModelError),
        (empty, None, Cause::ModelError),
        (
            slow,
            Some(Duration::from_millis(200)),
            Cause::FirstByteTimeout,
        ),
    ] {
        let (to, requests) = spare().await;
        let caller = caller(&[cause], to, first_token, at);
        let answer = post(caller.outbound(), CHAT, BODY).await;
        assert_eq!(
            (answer.head.status, answer.body),
            (200, [ROLE, TOKEN, STOP, DONE].concat()),
            "{cause:?}"
        );
        assert_eq!(answer.head.get("x-outrigger-fallback"), Some(SPARE));
        assert_eq!(answer.head.get("x-outrigger-fallback-model"), Some("tiny"));
        // The rest of the body is as it was, and its length is right.
        let sent = requests.all().remove(0);
        let body = BODY.replace("large", "org/tiny");
        assert!(sent.ends_with(&format!("\r\n\r\n{body}")), "{sent}");
        let length = format!("content-length: {}\r\n", body.len());
        assert!(sent.contains(&length), "{sent}");

        let cause = format!("cause=\"{}\"", cause.as_str());
        let to = "to=\"default/spare\"";
        caller
            .expect_metric(&[
                "outrigger_fallbacks_total",
                &cause,
                to,
                "model=\"tiny\"",
                "} 1",
            ])
            .await;
        // What was asked for is a client's word that nobody answered to.
        caller
            .expect_metric(&[
                "outrigger_model_requests_total",
                "gen_ai_request_model=\"other\"",
                "gen_ai_response_model=\"tiny\"",
                "outcome=\"complete\"",
                "} 1",
            ])
            .await;
        caller
            .expect_metric(&[
                "gen_ai_client_operation_duration_seconds_count",
                "gen_ai_provider_name=\"spares\"",
                "gen_ai_response_model=\"tiny\"",
                "} 1",
            ])
            .await;
        let line = &caller.log_lines(1).await[0];
        assert_eq!(line["fallback"], SPARE);
        assert_eq!(
            (&line["model"], &line["fallback_model"]),
            (&"large".into(), &"tiny".into())
        );
        caller.idle().await;
    }
}

#[tokio::test]
async fn a_stream_is_not_held_back_for_other_causes() {
    let (error, _) = server(&[Some(ROLE), Some(ERROR), Some(DONE)], Duration::ZERO).await;
    let (to, requests) = spare().await;
    let caller = caller(&[Cause::Overload, Cause::ServerError], to, None, error);
    let answer = post(caller.outbound(), CHAT, BODY).await;
    assert_eq!(
        (answer.head.status, answer.body),
        (200, [ROLE, ERROR, DONE].concat())
    );
    assert_eq!(answer.head.get("x-outrigger-fallback-model"), None);
    assert!(requests.all().is_empty());
}

#[tokio::test]
async fn a_request_that_cannot_ask_for_it_stays_away() {
    let (to, requests) = spare().await;
    let mut calls = Calls {
        inference: Some(inference()),
        fallbacks: vec![([Cause::Overload].into_iter().collect(), to)],
        ..Calls::default()
    };
    let busy = status(503).await;
    let caller = plain(calls.clone(), &[busy]);
    for (index, (path, body)) in [
        (CHAT, "no JSON"),
        (CHAT, r#"{"MODEL": "large"}"#),
        ("/v2/models/large/infer", "{}"),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = post(caller.outbound(), path, body).await;
        assert_eq!((answer.head.status, answer.body.as_str()), (503, "primary"));
        assert_eq!(answer.head.get("x-outrigger-fallback"), None);
        let line = &caller.log_lines(index + 1).await[index];
        assert_eq!(line["not_retried"], "model-not-replaced");
    }
    let refused = [
        "outrigger_retries_refused_total",
        "model-not-replaced",
        "} 3",
    ];
    caller.expect_metric(&refused).await;
    // Longer than what is read, and nobody reads at all.
    calls.inference.as_mut().unwrap().max_body_bytes = 8;
    let caller = plain(calls.clone(), &[busy]);
    let answer = post(caller.outbound(), CHAT, BODY).await;
    assert_eq!(answer.head.status, 503);
    calls.inference = None;
    let caller = plain(calls, &[busy]);
    let answer = post(caller.outbound(), CHAT, BODY).await;
    assert_eq!(answer.head.status, 503);
    assert!(requests.all().is_empty());
}
