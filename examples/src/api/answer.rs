//! Answers as JSON and as server-sent events, in the shapes of the OpenAI API.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, StatusCode, header};
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::{Value, json};

use super::error::ApiError;
use super::output::{Output, Piece};
use super::request::{Job, Kind};
use super::{Reply, ReplyBody, json_reply};
use crate::engine::FinishReason;

/// What the events of one answer have in common.
#[derive(Debug)]
pub struct Answer {
    kind: Kind,
    id: String,
    created: u64,
    model: String,
    include_usage: bool,
    /// The prompt's tokens, where the client asked for token ids.
    prompt_ids: Option<Vec<u32>>,
}

impl Answer {
    /// For a job, before it goes to the engine. `request_id` is the client's, if it sent one.
    pub fn new(job: &Job, request_id: Option<&str>) -> Self {
        let unique =
            request_id.map_or_else(|| format!("{:032x}", rand::random::<u128>()), str::to_owned);
        let prefix = if job.kind == Kind::Chat {
            "chatcmpl"
        } else {
            "cmpl"
        };
        Self {
            kind: job.kind,
            id: format!("{prefix}-{unique}"),
            created: unix_seconds(),
            model: job.model.clone(),
            include_usage: job.include_usage,
            prompt_ids: job.token_ids.then(|| job.request.prompt.clone()),
        }
    }

    /// Waits for the whole answer.
    pub async fn whole(self, mut output: Output) -> Reply {
        let mut text = String::new();
        let mut ids = Vec::new();
        let reason = loop {
            match output.next().await {
                Piece::Text { text: more, tokens } => {
                    text.push_str(&more);
                    ids.extend(tokens);
                }
                Piece::End(reason) => break reason,
                Piece::Broken => return broken().reply(),
            }
        };
        let mut choice = json!({"index": 0, "logprobs": null, "finish_reason": reason.as_str()});
        match self.kind {
            Kind::Chat => {
                choice["message"] = json!({"role": "assistant", "content": text, "refusal": null})
            }
            Kind::Completion => choice["text"] = text.into(),
        }
        let mut body = self.envelope("chat.completion");
        self.add_prompt_ids(&mut body, &mut choice);
        if self.prompt_ids.is_some() {
            choice["token_ids"] = ids.into();
        }
        body["choices"] = json!([choice]);
        body["usage"] = output.usage().json();
        json_reply(StatusCode::OK, &body)
    }

    /// Streams the answer as it is made.
    pub fn stream(self, output: Output) -> Reply {
        let state = Stream {
            answer: self,
            output,
            events: VecDeque::new(),
            started: false,
            over: false,
        };
        let frames = stream::unfold(state, |mut state| async move {
            let event = state.next().await?;
            Some((Ok::<_, Infallible>(Frame::data(event)), state))
        });
        let mut reply = Reply::new(ReplyBody::new(StreamBody::new(frames)));
        let headers = reply.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream; charset=utf-8"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        reply
    }

    fn envelope(&self, chat_object: &str) -> Value {
        let object = if self.kind == Kind::Chat {
            chat_object
        } else {
            "text_completion"
        };
        json!({"id": self.id, "object": object, "created": self.created, "model": self.model})
    }

    /// vLLM has them beside the choices of a chat and within the choice of a completion.
    fn add_prompt_ids(&self, body: &mut Value, choice: &mut Value) {
        if let Some(ids) = &self.prompt_ids {
            let place = if self.kind == Kind::Chat {
                body
            } else {
                choice
            };
            place["prompt_token_ids"] = json!(ids);
        }
    }

    fn chunk(
        &self,
        first: bool,
        delta: Value,
        tokens: Option<Vec<u32>>,
        reason: Option<FinishReason>,
    ) -> Bytes {
        let mut body = self.envelope("chat.completion.chunk");
        let mut choice = json!({"index": 0, "logprobs": null, "finish_reason": reason.map(FinishReason::as_str)});
        match self.kind {
            Kind::Chat => choice["delta"] = delta,
            Kind::Completion => {
                choice["text"] = delta.get("content").cloned().unwrap_or_else(|| "".into())
            }
        }
        if first {
            self.add_prompt_ids(&mut body, &mut choice);
        }
        if let (Some(_), Some(tokens)) = (&self.prompt_ids, tokens) {
            choice["token_ids"] = tokens.into();
        }
        body["choices"] = json!([choice]);
        if self.include_usage {
            body["usage"] = Value::Null;
        }
        event(&body)
    }
}

struct Stream {
    answer: Answer,
    output: Output,
    events: VecDeque<Bytes>,
    started: bool,
    over: bool,
}

impl Stream {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if self.over {
                return None;
            }
            match self.output.next().await {
                Piece::Text { text, tokens } => {
                    self.start();
                    let first = !self.started && self.answer.kind == Kind::Completion;
                    self.started = true;
                    let delta = json!({"content": text});
                    self.events
                        .push_back(self.answer.chunk(first, delta, Some(tokens), None));
                }
                Piece::End(reason) => {
                    self.start();
                    self.events
                        .push_back(self.answer.chunk(false, json!({}), None, Some(reason)));
                    if self.answer.include_usage {
                        let mut body = self.answer.envelope("chat.completion.chunk");
                        body["choices"] = json!([]);
                        body["usage"] = self.output.usage().json();
                        self.events.push_back(event(&body));
                    }
                    self.end();
                }
                Piece::Broken => {
                    self.events.push_back(event(&broken().body()));
                    self.end();
                }
            }
        }
    }

    /// A chat begins with a chunk that has the role alone; it comes with the first token, as vLLM's does.
    fn start(&mut self) {
        if !self.started && self.answer.kind == Kind::Chat {
            self.started = true;
            let delta = json!({"role": "assistant", "content": ""});
            self.events
                .push_back(self.answer.chunk(true, delta, None, None));
        }
    }

    fn end(&mut self) {
        self.events
            .push_back(Bytes::from_static(b"data: [DONE]\n\n"));
        self.over = true;
    }
}

fn broken() -> ApiError {
    ApiError::internal("The engine failed, as it was asked to.")
}

fn event(body: &Value) -> Bytes {
    Bytes::from(format!("data: {body}\n\n"))
}

/// Seconds since 1970. A clock before that gives 0.
pub fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
