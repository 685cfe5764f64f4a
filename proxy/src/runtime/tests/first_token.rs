//! Until when a prompt is one that is read, for the choice of a replica.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::client::Http1;
use super::mesh::{Calls, calling, endpoint, sockets};
use super::models::{CHAT, DONE, ROLE, STOP, TOKEN};
use crate::balance::{EndpointSet, Policy};
use crate::policy::Inference;
use crate::tls::test_ca::TestCa;

const COMMENT: &str = ": keep-alive\n\n";
const BODY: &str =
    r#"{"model":"a","stream":true,"messages":[{"role":"user","content":"a prompt"}]}"#;

#[tokio::test]
async fn a_prompt_is_read_until_the_first_token_and_not_until_the_first_byte() {
    let go_on = Arc::new(Notify::new());
    let waits = Arc::clone(&go_on);
    let address = sockets(move |mut stream| {
        let waits = Arc::clone(&waits);
        async move {
            let _ = stream.read(&mut [0; 4096]).await;
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            let _ = stream.write_all(head.as_bytes()).await;
            for event in [COMMENT, ROLE, TOKEN, &[STOP, DONE].concat()] {
                let chunk = format!("{:x}\r\n{event}\r\n", event.len());
                let _ = stream.write_all(chunk.as_bytes()).await;
                waits.notified().await;
            }
            let _ = stream.write_all(b"0\r\n\r\n").await;
        }
    })
    .await;
    // With and without the knowledge of what a token is.
    for inference in [true, false] {
        let caller = calling(&TestCa::new());
        let calls = Calls {
            policy: Policy::ModelLoad,
            inference: inference.then(|| Inference {
                max_body_bytes: 1 << 20,
                ..Inference::default()
            }),
            ..Calls::default()
        };
        let replica = endpoint(address, false);
        let endpoints = vec![replica];
        let seen = EndpointSet::new(calls.policy, Duration::from_secs(10), endpoints.clone());
        caller.set(calls.snapshot(&caller.shared.metrics, endpoints));
        let work = || {
            let work = &seen.stats()[0].work;
            (work.prompt_tokens > 0, work.streams)
        };

        let mut client = Http1::connect(caller.outbound()).await;
        let length = BODY.len();
        client
            .write(&format!(
                "POST {CHAT} HTTP/1.1\r\nhost: chat\r\ncontent-length: {length}\r\n\r\n{BODY}"
            ))
            .await;
        client.head().await;
        // What the client has, the sidecar has seen.
        let mut expected = vec![(COMMENT, (true, 0)), (ROLE, (true, 0)), (TOKEN, (false, 1))];
        if !inference {
            // The first byte of the body; the prompt's length is not known.
            expected = vec![
                (COMMENT, (false, 1)),
                (ROLE, (false, 1)),
                (TOKEN, (false, 1)),
            ];
        }
        for (event, expected) in expected {
            assert_eq!(client.chunk().await.as_deref(), Some(event.as_bytes()));
            assert_eq!(work(), expected, "{event}");
            go_on.notify_one();
        }
        assert!(client.chunk().await.is_some());
        go_on.notify_one();
        assert_eq!(client.chunk().await, None);
        caller.idle().await;
        assert_eq!(work(), (false, 0));
    }
}
