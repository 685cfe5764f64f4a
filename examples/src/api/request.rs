//! What clients send: parsed, checked, and turned into work for the engine.

use serde::Deserialize;

use super::error::ApiError;
use crate::engine::Request;
use crate::tokens::{self, Context};

/// Stop strings in a request at most, as in the OpenAI API.
const MAX_STOPS: usize = 4;

/// Which of the two APIs for text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completion,
}

/// A request for text. What is not named here is ignored, as vLLM does; what would change the answer is refused.
#[derive(Debug, Deserialize)]
struct Body {
    model: Option<String>,
    messages: Option<Vec<Message>>,
    prompt: Option<Prompt>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    /// `None`: it is not there. `Some(None)`: it is `null`.
    #[serde(default, deserialize_with = "given")]
    max_tokens: Option<Option<i64>>,
    max_completion_tokens: Option<i64>,
    min_tokens: Option<i64>,
    n: Option<i64>,
    best_of: Option<i64>,
    echo: Option<bool>,
    stop: Option<OneOrMany>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    logprobs: Option<serde_json::Value>,
    ignore_eos: Option<bool>,
    cache_salt: Option<String>,
    return_token_ids: Option<bool>,
    add_generation_prompt: Option<bool>,
    continue_final_message: Option<bool>,
}

/// A member that is there, maybe with `null`.
fn given<'de, D: serde::Deserializer<'de>>(found: D) -> Result<Option<Option<i64>>, D::Error> {
    Option::deserialize(found).map(Some)
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Message {
    role: String,
    content: Option<Content>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// A prompt as text or as token ids, alone or in a list.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
    Texts(Vec<String>),
    TokenLists(Vec<Vec<u32>>),
}

impl Prompt {
    /// Every prompt's tokens.
    pub(super) fn tokens(self, param: &'static str) -> Result<Vec<Vec<u32>>, ApiError> {
        let prompts = match self {
            Self::Text(text) => vec![tokens::tokenize(&text)],
            Self::Tokens(ids) => vec![ids],
            Self::Texts(texts) => texts.iter().map(|text| tokens::tokenize(text)).collect(),
            Self::TokenLists(lists) => lists,
        };
        for ids in &prompts {
            if ids.is_empty() {
                return Err(ApiError::invalid(
                    param,
                    format!("{param} is empty; it needs at least one token."),
                ));
            }
            if let Some(unknown) = ids.iter().find(|id| tokens::text(**id).is_none()) {
                return Err(ApiError::invalid(
                    param,
                    format!("{unknown} is no token id of this model."),
                ));
            }
        }
        Ok(prompts)
    }
}

/// A checked request.
#[derive(Debug)]
pub struct Job {
    /// Which API.
    pub kind: Kind,
    /// The model's name as asked for.
    pub model: String,
    /// For the engine.
    pub request: Request,
    /// Stream the answer.
    pub stream: bool,
    /// End the stream with a usage chunk.
    pub include_usage: bool,
    /// Give token ids beside the text.
    pub token_ids: bool,
    /// The answer ends before the first of these.
    pub stops: Vec<String>,
}

impl Job {
    /// Reads a body. `models` are the served names, `context` the tokens that prompt and answer may have.
    ///
    /// # Errors
    /// 400 with the field's name, or 404 for an unknown model.
    pub fn parse(
        kind: Kind,
        json: &[u8],
        models: &[String],
        context: usize,
    ) -> Result<Self, ApiError> {
        let mut body: Body = serde_json::from_slice(json).map_err(|error| {
            ApiError::malformed(format!("The body is not a valid request: {error}."))
        })?;
        let model = check_model(body.model.take(), models)?;
        refuse_unsupported(&body)?;
        let prompt = match kind {
            Kind::Chat => render(&body)?,
            Kind::Completion => single_prompt(body.prompt.take())?,
        };
        let default_max = match kind {
            // All defaults are vLLM's: all that fits, and OpenAI's 16, unless `null` stands there.
            Kind::Completion if body.max_tokens.is_none() => 16,
            _ => context.saturating_sub(prompt.len()).max(1),
        };
        let asked = match body.max_completion_tokens {
            Some(_) => count("max_completion_tokens", body.max_completion_tokens, 1)?,
            None => count("max_tokens", body.max_tokens.flatten(), 1)?,
        };
        let max_tokens = asked.unwrap_or(default_max);
        let min_tokens = count("min_tokens", body.min_tokens, 0)?.unwrap_or(0);
        if min_tokens > max_tokens {
            let message =
                format!("min_tokens is {min_tokens}; it may be max_tokens, {max_tokens}, at most.");
            return Err(ApiError::invalid("min_tokens", message));
        }
        let salt = body.cache_salt.as_deref().map_or(0, |salt| {
            salt.bytes()
                .fold(Context::default(), |hash, byte| hash.with(byte.into()))
                .value()
        });
        Ok(Self {
            kind,
            model,
            request: Request {
                prompt,
                max_tokens,
                min_tokens,
                ignore_eos: body.ignore_eos.unwrap_or(false),
                cache_salt: salt,
                stall_after: None,
            },
            stream: body.stream.unwrap_or(false),
            include_usage: body
                .stream_options
                .and_then(|options| options.include_usage)
                .unwrap_or(false),
            token_ids: body.return_token_ids.unwrap_or(false),
            stops: stops(body.stop)?,
        })
    }
}

pub(super) fn check_model(asked: Option<String>, served: &[String]) -> Result<String, ApiError> {
    match asked {
        None => Err(ApiError::invalid(
            "model",
            "model is missing; it names the model that shall answer.",
        )),
        Some(asked) if !served.contains(&asked) => Err(ApiError::unknown_model(&asked, served)),
        Some(asked) => Ok(asked),
    }
}

fn refuse_unsupported(body: &Body) -> Result<(), ApiError> {
    for (param, found) in [("n", body.n), ("best_of", body.best_of)] {
        if let Some(found) = found.filter(|found| *found != 1) {
            return Err(ApiError::invalid(
                param,
                format!("{param} is {found}; this server makes 1 answer a request."),
            ));
        }
    }
    if body.echo == Some(true) {
        return Err(ApiError::invalid(
            "echo",
            "echo is true; this server does not repeat the prompt.",
        ));
    }
    if body.logprobs.as_ref().is_some_and(|wanted| {
        !matches!(
            wanted,
            serde_json::Value::Bool(false) | serde_json::Value::Null
        )
    }) {
        return Err(ApiError::invalid(
            "logprobs",
            "logprobs are asked for; this server has none.",
        ));
    }
    for (param, found, range) in [
        ("temperature", body.temperature, 0.0..=2.0),
        ("top_p", body.top_p, 0.0..=1.0),
    ] {
        if let Some(found) = found.filter(|found| !range.contains(found)) {
            let (low, high) = range.into_inner();
            return Err(ApiError::invalid(
                param,
                format!("{param} is {found}; allowed is {low} to {high}."),
            ));
        }
    }
    Ok(())
}

fn count(param: &'static str, found: Option<i64>, least: i64) -> Result<Option<usize>, ApiError> {
    match found {
        None => Ok(None),
        Some(found) if found < least => Err(ApiError::invalid(
            param,
            format!("{param} is {found}; it must be at least {least}."),
        )),
        Some(found) => Ok(Some(usize::try_from(found).unwrap_or(usize::MAX / 2))),
    }
}

fn stops(stop: Option<OneOrMany>) -> Result<Vec<String>, ApiError> {
    let stops = match stop {
        None => Vec::new(),
        Some(OneOrMany::One(stop)) => vec![stop],
        Some(OneOrMany::Many(stops)) => stops,
    };
    if stops.len() > MAX_STOPS {
        let message = format!("stop has {} strings; {MAX_STOPS} are allowed.", stops.len());
        return Err(ApiError::invalid("stop", message));
    }
    if stops.iter().any(String::is_empty) {
        return Err(ApiError::invalid("stop", "stop has an empty string."));
    }
    Ok(stops)
}

fn single_prompt(prompt: Option<Prompt>) -> Result<Vec<u32>, ApiError> {
    let prompt = prompt.ok_or_else(|| ApiError::invalid("prompt", "prompt is missing."))?;
    let mut prompts = prompt.tokens("prompt")?;
    match (prompts.pop(), prompts.len()) {
        (Some(prompt), 0) => Ok(prompt),
        (None, _) => Err(ApiError::invalid(
            "prompt",
            "prompt is empty; it needs at least one token.",
        )),
        (_, more) => Err(ApiError::invalid(
            "prompt",
            format!(
                "prompt has {} texts; this server takes 1 a request.",
                more + 1
            ),
        )),
    }
}

/// The chat template: each message is `<|role|>`, its text, and an empty line between messages.
fn render(body: &Body) -> Result<Vec<u32>, ApiError> {
    let messages = body.messages.as_deref().unwrap_or_default();
    let Some(last) = messages.last() else {
        return Err(ApiError::invalid(
            "messages",
            "messages is missing or empty; it needs at least one message.",
        ));
    };
    let continues = body.continue_final_message.unwrap_or(false);
    if continues && (last.role != "assistant" || body.add_generation_prompt.unwrap_or(true)) {
        let message = "continue_final_message needs a last message of the assistant and add_generation_prompt: false.";
        return Err(ApiError::invalid("continue_final_message", message));
    }
    let mut text = String::new();
    for (index, message) in messages.iter().enumerate() {
        if !["system", "developer", "user", "assistant", "tool"].contains(&message.role.as_str()) {
            let found = &message.role;
            let message = format!(
                "messages[{index}].role is `{found}`; allowed are `system`, `developer`, `user`, `assistant`, `tool`."
            );
            return Err(ApiError::invalid("messages", message));
        }
        text.push_str(&format!("<|{}|>\n", message.role));
        append_content(&mut text, index, message.content.as_ref())?;
        if !(continues && index + 1 == messages.len()) {
            text.push('\n');
        }
    }
    if !continues && body.add_generation_prompt.unwrap_or(true) {
        text.push_str("<|assistant|>\n");
    }
    Ok(tokens::tokenize(&text))
}

fn append_content(
    text: &mut String,
    index: usize,
    content: Option<&Content>,
) -> Result<(), ApiError> {
    match content {
        // An assistant's message that only calls tools has none.
        None => {}
        Some(Content::Text(content)) => text.push_str(content),
        Some(Content::Parts(parts)) => {
            for part in parts {
                let Some(content) = part.text.as_deref().filter(|_| part.kind == "text") else {
                    let message = format!(
                        "messages[{index}].content has a part `{}`; this model reads `text`.",
                        part.kind
                    );
                    return Err(ApiError::invalid("messages", message));
                };
                text.push_str(content);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
