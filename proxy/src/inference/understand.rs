//! Reads a request before it is decided where it goes.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use tokio::time::Instant;

use super::account::Account;
use super::api::{self, Api};
use super::probe::Duplicate;
use super::request::{ModelRequest, Unread};
use super::{form, grpc, probe};
use crate::error::Reason;
use crate::http::arrival::Arrived;
use crate::http::clock::Deadline;
use crate::http::errors::Style;
use crate::http::exchange::Exchange;
use crate::http::headers;
use crate::http::replay::Filled;
use crate::policy::Inference;
use crate::telemetry::metrics::{ModelMetrics, Probe};

/// For the part of a body that is read before the request is sent on. A client that is slower would hold memory for nothing.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// For the first message of a stream. It mostly comes with the head; a client that opens a stream before it has something to ask is
/// let through, for its server may have to say something first.
const FIRST_MESSAGE: Duration = Duration::from_secs(1);

/// Why a request is not sent on.
pub(crate) type Refusal = (Reason, String);

/// Finds out which model a request is for, and leaves that in `arrived.model`. Waits for the body, up to its cap and for a
/// minute. A request that is none for a model stays as it is.
pub(crate) async fn understand(
    inference: &Arc<Inference>,
    metrics: &ModelMetrics,
    arrived: &mut Arrived,
    exchange: &mut Exchange,
) -> Result<(), Refusal> {
    let head = &arrived.head;
    let Some(api) = Api::of(&head.method, head.uri.path(), &head.headers) else {
        return Ok(());
    };
    if exchange.style() != Style::Grpc {
        exchange.set_style(match api {
            Api::Messages => Style::Anthropic,
            _ => Style::OpenAi,
        });
    }
    let mut request = ModelRequest::new(api);
    match body_kind(api, head.uri.path(), &head.headers) {
        Ok(None) => {}
        Ok(Some(kind)) => read_body(inference, kind, arrived, &mut request)
            .await
            .inspect_err(|(reason, _)| {
                if *reason == Reason::BadRequest {
                    metrics.probed(Probe::Ambiguous);
                }
            })?,
        Err(why) => request.unread = Some(why),
    }
    // Last: the path's name counts where there is one.
    if let Some(name) = api::kserve_model(arrived.head.uri.path()) {
        request.name = Some(name.into());
        request.stream |= arrived.head.uri.path().ends_with("/generate_stream");
    }
    if api != Api::ListModels {
        metrics.probed(request.unread.map_or(Probe::Read, Probe::from));
    }
    if api != Api::ListModels {
        exchange.set_model(Account::new(&request, inference));
    }
    arrived.model = Some(Box::new(request));
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Json,
    Form,
    Grpc(grpc::Call),
}

/// What the body is, by the head alone. `None`: there is nothing in it to read.
fn body_kind(api: Api, path: &str, headers: &HeaderMap) -> Result<Option<Kind>, Unread> {
    if api == Api::ListModels {
        return Ok(None);
    }
    if api == Api::KserveGrpc {
        return Ok(grpc::call(path).map(Kind::Grpc));
    }
    let coding = headers.get(CONTENT_ENCODING);
    if coding.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Unread::Compressed);
    }
    let text = |value: &http::HeaderValue| Some(value.to_str().ok()?.to_ascii_lowercase());
    let Some(content_type) = headers.get(CONTENT_TYPE).and_then(text) else {
        // `curl -d` and others say nothing, or something else; servers read it as JSON all the same.
        return Ok(Some(Kind::Json));
    };
    if content_type.starts_with("multipart/") {
        return Ok(Some(Kind::Form));
    }
    let is_binary = ["audio/", "image/", "video/", "application/octet-stream"];
    if is_binary.iter().any(|kind| content_type.starts_with(kind)) {
        return Err(Unread::OtherType);
    }
    Ok(Some(Kind::Json))
}

async fn read_body(
    inference: &Inference,
    kind: Kind,
    arrived: &Arrived,
    request: &mut ModelRequest,
) -> Result<(), Refusal> {
    let cap = inference.max_body_bytes;
    let length = headers::content_length(&arrived.head.headers);
    if length.is_some_and(|length| length > cap as u64) {
        request.unread = Some(Unread::TooLarge);
        return Ok(());
    }
    let is_stream = kind == Kind::Grpc(grpc::Call::Stream);
    let filled = {
        let body = &arrived.body;
        let filling = pin!(std::future::poll_fn(|cx| if is_stream {
            body.poll_message(cap, grpc::framed_length, cx)
        } else {
            body.poll_fill(cap, cx)
        }));
        let limit = if is_stream {
            FIRST_MESSAGE
        } else {
            BODY_TIMEOUT
        };
        let deadline = Deadline::after(Instant::now(), Some(limit), Reason::BodyTimeout);
        Deadline::limit(deadline, filling).await
    };
    match filled {
        Err(_) if is_stream => {
            request.unread = Some(Unread::Late);
            Ok(())
        }
        Ok(Filled::Whole(body)) => read(kind, &arrived.head.headers, request, &body),
        Ok(Filled::Longer) => {
            request.unread = Some(Unread::TooLarge);
            Ok(())
        }
        Ok(Filled::Broken) => Err((Reason::ClientGone, "the client went away".into())),
        Err(reason) => Err((reason, "the request's body did not arrive in time".into())),
    }
}

fn read(
    kind: Kind,
    headers: &HeaderMap,
    request: &mut ModelRequest,
    body: &Bytes,
) -> Result<(), Refusal> {
    match kind {
        Kind::Json => probe::read(request, body).map_err(|Duplicate(key)| twice(key)),
        Kind::Form => {
            let content_type = headers.get(CONTENT_TYPE);
            let content_type = content_type.and_then(|value| value.to_str().ok());
            match content_type.and_then(form::boundary) {
                None => request.unread = Some(Unread::OtherType),
                Some(boundary) => {
                    let name = form::field(body, boundary, "model").map_err(|()| twice("model"))?;
                    request.name = name.map(Box::from);
                }
            }
            Ok(())
        }
        Kind::Grpc(_) => {
            request.name = grpc::model_name(body).map(Box::from);
            Ok(())
        }
    }
}

fn twice(key: &str) -> Refusal {
    let detail = format!(
        "{key:?} stands more than once in the body; which of the values counts is not clear"
    );
    (Reason::BadRequest, detail)
}
