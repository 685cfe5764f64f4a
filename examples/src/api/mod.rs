//! The HTTP API: OpenAI's paths, vLLM's `/health` and `/metrics`, and `/faults`.

mod answer;
mod embeddings;
mod error;
mod output;
mod request;

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::faults::{FaultBoard, Faults, Verdict, verdict};
use crate::metrics::Metrics;
use answer::{Answer, unix_seconds};
use error::ApiError;
use output::Output;
use request::{Job, Kind};

/// A response's body.
pub type ReplyBody = UnsyncBoxBody<Bytes, Infallible>;
/// A response.
pub type Reply = Response<ReplyBody>;

/// Names the replica that answered.
const SERVER_NAME_HEADER: &str = "x-model-server";
/// Faults for one request, where `--allow-header-faults` is given.
const FAULT_HEADER: &str = "x-fault";
/// Longest `x-request-id` that becomes part of an answer's id.
const MAX_REQUEST_ID: usize = 64;

/// One model server.
#[derive(Debug)]
pub struct App {
    /// Value of the response header `x-model-server`.
    pub name: HeaderValue,
    /// Names under which the model is served.
    pub models: Vec<String>,
    /// Tokens that prompt and answer may have together.
    pub max_model_len: usize,
    /// Bytes that a request's body may have.
    pub max_body_bytes: usize,
    /// Whether the header `x-fault` counts.
    pub allow_header_faults: bool,
    /// The engine.
    pub engine: Engine,
    /// Its metrics.
    pub metrics: Arc<Metrics>,
    /// Faults in force.
    pub faults: FaultBoard,
}

impl App {
    /// Answers a request. Cancelling `connection` must close the connection at once.
    pub async fn handle<B>(&self, request: Request<B>, connection: &CancellationToken) -> Reply
    where
        B: Body<Data: Send, Error: std::error::Error + Send + Sync + 'static>,
    {
        let mut reply = match self.route(request, connection).await {
            Ok(reply) => reply,
            Err(error) => error.reply(),
        };
        reply
            .headers_mut()
            .insert(SERVER_NAME_HEADER, self.name.clone());
        reply
    }

    async fn route<B>(
        &self,
        request: Request<B>,
        connection: &CancellationToken,
    ) -> Result<Reply, ApiError>
    where
        B: Body<Data: Send, Error: std::error::Error + Send + Sync + 'static>,
    {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let allow = match path {
            "/health" | "/metrics" | "/v1/models" => "GET, HEAD",
            "/faults" => "GET, HEAD, POST, DELETE",
            "/v1/chat/completions" | "/v1/completions" | "/v1/embeddings" => "POST",
            _ if path.starts_with("/v1/models/") => "GET, HEAD",
            _ => return Err(ApiError::unknown_path(path)),
        };
        if !allow
            .split(", ")
            .any(|allowed| allowed == head.method.as_str())
        {
            return Err(ApiError::wrong_method(&head.method, allow));
        }
        match path {
            "/faults" => return self.change_faults(&head.method, body).await,
            "/metrics" => return self.render_metrics(),
            _ => {}
        }
        if let Some(left) = self.faults.unready() {
            let message = format!("The model is being loaded; {} ms to go.", left.as_millis());
            return Err(ApiError::unavailable(message, left.as_secs() + 1));
        }
        match path {
            "/health" => return Ok(reply(StatusCode::OK, "text/plain", Bytes::new())),
            "/v1/models" => {
                let models: Vec<_> = self
                    .models
                    .iter()
                    .map(|model| self.describe(model))
                    .collect();
                return Ok(json_reply(
                    StatusCode::OK,
                    &json!({"object": "list", "data": models}),
                ));
            }
            _ => {}
        }
        if let Some(model) = path.strip_prefix("/v1/models/") {
            request::check_model(Some(model.to_owned()), &self.models)?;
            return Ok(json_reply(StatusCode::OK, &self.describe(model)));
        }

        let verdict = self.judge(&head.headers)?;
        tokio::time::sleep(verdict.latency).await;
        match verdict.refuse {
            Some(429) => {
                return Err(ApiError::too_many(
                    "Refused, as it was asked to.".into(),
                    verdict.retry_after,
                ));
            }
            Some(_) => {
                return Err(ApiError::unavailable(
                    "Refused, as it was asked to.",
                    verdict.retry_after,
                ));
            }
            None => {}
        }
        let json = self.read(body).await?;
        let kind = match path {
            "/v1/embeddings" => return embeddings::embeddings(self, &json).await,
            "/v1/chat/completions" => Kind::Chat,
            _ => Kind::Completion,
        };
        let mut job = Job::parse(kind, &json, &self.models, self.max_model_len)?;
        job.request.stall_after = verdict.stall_after;
        let answer = Answer::new(&job, request_id(&head.headers));
        let prompt_tokens = job.request.prompt.len();
        let generation = self.engine.submit(job.request)?;
        let output = Output::new(
            generation,
            prompt_tokens,
            job.stops,
            verdict,
            connection.clone(),
        );
        if job.stream {
            Ok(answer.stream(output))
        } else {
            Ok(answer.whole(output).await)
        }
    }

    fn judge(&self, headers: &HeaderMap) -> Result<Verdict, ApiError> {
        match headers
            .get(FAULT_HEADER)
            .filter(|_| self.allow_header_faults)
        {
            None => Ok(self.faults.judge()),
            Some(value) => {
                let pairs = value
                    .to_str()
                    .map_err(|_| ApiError::invalid(FAULT_HEADER, "x-fault is not ASCII."))?;
                let faults = Faults::from_pairs(pairs).map_err(|error| {
                    ApiError::invalid(FAULT_HEADER, format!("x-fault: {error}."))
                })?;
                Ok(verdict(&faults))
            }
        }
    }

    async fn change_faults<B>(&self, method: &Method, body: B) -> Result<Reply, ApiError>
    where
        B: Body<Data: Send, Error: std::error::Error + Send + Sync + 'static>,
    {
        if method == Method::POST {
            let json = self.read(body).await?;
            let faults = Faults::from_json(&json)
                .map_err(|error| ApiError::malformed(format!("These are no faults: {error}.")))?;
            self.faults.set(faults);
        } else if method == Method::DELETE {
            self.faults.set(Faults::default());
        }
        let faults = serde_json::to_value(self.faults.get())
            .map_err(|error| ApiError::internal(error.to_string()))?;
        Ok(json_reply(StatusCode::OK, &faults))
    }

    async fn read<B>(&self, body: B) -> Result<Bytes, ApiError>
    where
        B: Body<Data: Send, Error: std::error::Error + Send + Sync + 'static>,
    {
        match Limited::new(body, self.max_body_bytes).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => {
                Err(ApiError::body_too_large(self.max_body_bytes))
            }
            Err(error) => Err(ApiError::malformed(format!(
                "The body could not be read: {error}."
            ))),
        }
    }

    fn render_metrics(&self) -> Result<Reply, ApiError> {
        let text = self
            .metrics
            .render(self.engine.load())
            .map_err(|error| ApiError::internal(error.to_string()))?;
        Ok(reply(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            text.into(),
        ))
    }

    fn describe(&self, model: &str) -> serde_json::Value {
        json!({
            "id": model,
            "object": "model",
            "created": unix_seconds(),
            "owned_by": "outrigger",
            "max_model_len": self.max_model_len,
        })
    }
}

fn request_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get("x-request-id")?.to_str().ok()?;
    (1..=MAX_REQUEST_ID).contains(&id.len()).then_some(id)
}

fn reply(status: StatusCode, content_type: &'static str, body: Bytes) -> Reply {
    let mut reply = Response::new(ReplyBody::new(Full::new(body)));
    *reply.status_mut() = status;
    reply
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

fn json_reply(status: StatusCode, body: &serde_json::Value) -> Reply {
    reply(status, "application/json", body.to_string().into())
}
