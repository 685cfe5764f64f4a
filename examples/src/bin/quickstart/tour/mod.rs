//! What the quickstart shows, one thing after the other. Each is a claim that is checked as it is shown.

mod change;
mod identities;
mod kill;
mod numbers;
mod refuse;
mod spread;
mod stream;

use serde_json::{Value, json};

use crate::mesh::Mesh;
use crate::terminal::Terminal;

/// Shows everything.
///
/// # Errors
/// Where something goes wrong that no claim is about. A claim that does not hold is no error.
pub async fn run(mesh: &mut Mesh, terminal: &mut Terminal) -> anyhow::Result<()> {
    identities::show(mesh, terminal).await?;
    stream::show(mesh, terminal).await?;
    spread::show(mesh, terminal).await?;
    kill::show(mesh, terminal).await?;
    change::show(mesh, terminal).await?;
    refuse::show(mesh, terminal).await?;
    numbers::show(mesh, terminal).await
}

const CHAT: &str = "/v1/chat/completions";

/// A chat request.
fn chat(mesh: &Mesh, prompt: &str, max_tokens: u32, stream: bool) -> Value {
    json!({
        "model": mesh.model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "stream": stream,
    })
}

/// The middle one, or the lower of the two in the middle; 0 of none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values
        .get(values.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or_default()
}
