//! Models that gRPC calls name.

use bytes::Bytes;
use http::Request;

use super::http2::{connect, echo};
use super::mesh::{Calls, Sidecar, plain};
use crate::policy::{Inference, Model, Protocol};

/// `ModelInferRequest` with this name, as it is framed.
fn message(model: &str) -> Vec<u8> {
    let mut message = vec![0, 0, 0, 0, model.len() as u8 + 5, 0x12, 1, b'1', 0x0a];
    message.push(model.len() as u8);
    message.extend_from_slice(model.as_bytes());
    message
}

/// Sends pieces of a stream, and waits for the answer that an echo has to each; then the answer's head.
async fn converse(caller: &Sidecar, pieces: &[&[u8]]) -> (u16, String, Vec<u8>) {
    let mut client = connect(caller.outbound()).await;
    let request = Request::builder()
        .method("POST")
        .uri("http://chat/inference.GRPCInferenceService/ModelStreamInfer")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (response, mut send) = client.send_request(request, false).unwrap();
    let (first, rest) = pieces.split_first().unwrap();
    // A message in two frames.
    let (begin, end) = first.split_at(first.len() / 2);
    for piece in [begin, end] {
        let _ = send.send_data(Bytes::copy_from_slice(piece), false);
    }
    let response = response.await.unwrap();
    let status = response.status().as_u16();
    let reason = response.headers().get("x-outrigger-reason");
    let reason = reason
        .map_or("", |reason| reason.to_str().unwrap())
        .to_owned();
    let mut body = response.into_body();
    let mut echoed = Vec::new();
    let mut sent = first.len();
    let mut rest = rest.iter();
    while reason.is_empty() {
        while echoed.len() < sent {
            let chunk = body.data().await.unwrap().unwrap();
            body.flow_control().release_capacity(chunk.len()).unwrap();
            echoed.extend_from_slice(&chunk);
        }
        // The next one is sent when the one before was answered.
        match rest.next() {
            Some(piece) => {
                sent += piece.len();
                send.send_data(Bytes::copy_from_slice(piece), false)
                    .unwrap();
            }
            None => break,
        }
    }
    let _ = send.send_data(Bytes::new(), true);
    (status, reason, echoed)
}

async fn caller(refuse_unknown: bool) -> Sidecar {
    let model = Model {
        name: "resnet".into(),
        aliases: Vec::new(),
        served_as: None,
        subset: Default::default(),
    };
    let calls = Calls {
        protocol: Protocol::Grpc,
        inference: Some(Inference {
            max_body_bytes: 1 << 10,
            models: vec![model],
            refuse_unknown,
            ..Inference::default()
        }),
        ..Calls::default()
    };
    plain(calls, &[echo(Protocol::Grpc).await])
}

#[tokio::test]
async fn a_stream_is_for_the_model_that_its_first_message_names() {
    let caller = caller(true).await;
    let (known, unknown) = (message("resnet"), message("other"));
    let (status, reason, echoed) = converse(&caller, &[&known, &unknown, &known]).await;
    assert_eq!((status, reason.as_str()), (200, ""));
    assert_eq!(echoed, [&known[..], &unknown, &known].concat());
    let (_, reason, _) = converse(&caller, &[&unknown]).await;
    assert_eq!(reason, "unknown-model");
    // Longer than what is read.
    let long = [&[0, 0, 0, 255, 255][..], &known].concat();
    let (_, reason, _) = converse(&caller, &[&long]).await;
    assert_eq!(reason, "unknown-model");
    for result in ["result=\"read\"", "result=\"too-large\""] {
        caller
            .expect_metric(&["outrigger_model_requests_read_total", result])
            .await;
    }
}

#[tokio::test]
async fn a_stream_that_is_silent_at_first_is_passed_on() {
    let caller = caller(false).await;
    // A message that does not end: its beginning goes to the server all the same.
    let half = &message("resnet")[..8];
    let (status, reason, echoed) = converse(&caller, &[half]).await;
    assert_eq!((status, reason.as_str(), &echoed[..]), (200, "", half));
    caller
        .expect_metric(&[
            "outrigger_model_requests_read_total",
            "result=\"late\"",
            "} 1",
        ])
        .await;
}
