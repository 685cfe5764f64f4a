//! `/v1/embeddings`: texts that share words get vectors that point in similar directions.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::request::{Prompt, check_model};
use super::{App, Reply, json_reply};
use crate::engine::{Event, Request};
use crate::tokens::Context;

/// Texts in a request at most, as in the OpenAI API.
const MAX_INPUTS: usize = 2_048;
/// Size of a vector where the request does not say.
const DEFAULT_DIMENSIONS: usize = 64;
/// Size of a vector at most: what the largest hosted models give.
const MAX_DIMENSIONS: usize = 4_096;

#[derive(Debug, Deserialize)]
struct Body {
    model: Option<String>,
    input: Option<Prompt>,
    dimensions: Option<usize>,
    encoding_format: Option<String>,
}

/// Answers a request.
///
/// # Errors
/// 400, 404 or 429 as for text.
pub async fn embeddings(app: &App, json: &[u8]) -> Result<Reply, ApiError> {
    let body: Body = serde_json::from_slice(json).map_err(|error| {
        ApiError::malformed(format!("The body is not a valid request: {error}."))
    })?;
    let model = check_model(body.model, &app.models)?;
    let dimensions = body.dimensions.unwrap_or(DEFAULT_DIMENSIONS);
    if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
        let message = format!("dimensions is {dimensions}; allowed is 1 to {MAX_DIMENSIONS}.");
        return Err(ApiError::invalid("dimensions", message));
    }
    let base64 = match body.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(other) => {
            let message =
                format!("encoding_format is `{other}`; allowed are `float` and `base64`.");
            return Err(ApiError::invalid("encoding_format", message));
        }
    };
    let input = body
        .input
        .ok_or_else(|| ApiError::invalid("input", "input is missing."))?;
    let inputs = input.tokens("input")?;
    if !(1..=MAX_INPUTS).contains(&inputs.len()) {
        let message = format!(
            "input has {} texts; allowed is 1 to {MAX_INPUTS}.",
            inputs.len()
        );
        return Err(ApiError::invalid("input", message));
    }

    let mut data = Vec::with_capacity(inputs.len());
    let mut prompt_tokens = 0;
    for (index, tokens) in inputs.into_iter().enumerate() {
        prompt_tokens += tokens.len();
        let vector = embed(&tokens, dimensions);
        compute(app, tokens).await?;
        let embedding = if base64 {
            encode(&vector)
        } else {
            json!(vector)
        };
        data.push(json!({"object": "embedding", "index": index, "embedding": embedding}));
    }
    let usage = json!({"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens});
    Ok(json_reply(
        StatusCode::OK,
        &json!({"object": "list", "data": data, "model": model, "usage": usage}),
    ))
}

/// Takes the engine's time for one text. One after the other, so that a long list does not fill the queue.
async fn compute(app: &App, prompt: Vec<u32>) -> Result<(), ApiError> {
    let request = Request {
        prompt,
        max_tokens: 0,
        min_tokens: 0,
        ignore_eos: false,
        cache_salt: 0,
        stall_after: None,
    };
    let mut generation = app.engine.submit(request)?;
    while !matches!(generation.next().await, Event::Finished(_)) {}
    Ok(())
}

/// The sum of one pseudo-random direction per token, at length 1.
fn embed(tokens: &[u32], dimensions: usize) -> Vec<f32> {
    let mut sum = vec![0.0f32; dimensions];
    for token in tokens {
        let mut random = Context::seeded(u64::from(*token));
        for value in &mut sum {
            random = random.with(1);
            // The upper 24 bits fill a float's mantissa: -1 to 1.
            *value += (random.value() >> 40) as f32 / (1u32 << 23) as f32 - 1.0;
        }
    }
    let length = sum
        .iter()
        .map(|value| value * value)
        .sum::<f32>()
        .sqrt()
        .max(f32::MIN_POSITIVE);
    sum.iter().map(|value| value / length).collect()
}

fn encode(vector: &[f32]) -> Value {
    let bytes: Vec<u8> = vector
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    BASE64_STANDARD.encode(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::tokenize;

    fn likeness(one: &str, other: &str) -> f32 {
        let [one, other] = [one, other].map(|text| embed(&tokenize(text), 64));
        one.iter().zip(&other).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn vectors_have_length_one_and_similar_texts_are_near() {
        assert!((likeness("the sea", "the sea") - 1.0).abs() < 1e-5);
        assert!(
            likeness("the cold sea", "the wide sea")
                > likeness("the cold sea", "quick brown foxes")
        );
    }
}
