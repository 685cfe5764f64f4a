//! A chat completion, streamed through both sidecars and printed as it comes.

use std::time::Instant;

use super::{CHAT, chat, median};
use crate::mesh::Mesh;
use crate::terminal::Terminal;

pub async fn show(mesh: &Mesh, terminal: &mut Terminal) -> anyhow::Result<()> {
    terminal.section("A chat completion is streamed through both sidecars, token by token");
    let mut client = mesh.client();
    let request = chat(mesh, "Tell me about the sea.", 64, true);
    let started = Instant::now();
    let mut arrivals = Vec::new();
    let (status, done) = client
        .stream(CHAT, &request, |event| {
            let text = event["choices"][0]["delta"]["content"]
                .as_str()
                .unwrap_or_default();
            if !text.is_empty() {
                arrivals.push(started.elapsed().as_secs_f64() * 1e3);
                terminal.stream(text);
            }
        })
        .await?;
    terminal.stream_end();
    let gaps: Vec<f64> = arrivals.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // A buffer on the way would deliver all pieces at once. A busy machine may deliver some of them so.
    let flowing = gaps.iter().filter(|gap| **gap > 0.5).count() >= 3;
    let first = arrivals.first().copied().unwrap_or_default();
    terminal.claim(
        status.is_success() && done && arrivals.len() > 1 && flowing,
        "tokens come one by one, and the stream ends with [DONE]",
        &format!(
            "{} pieces, first after {first:.0} ms, then one every {:.1} ms",
            arrivals.len(),
            median(gaps)
        ),
    );
    Ok(())
}
