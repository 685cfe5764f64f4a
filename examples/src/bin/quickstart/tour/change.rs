//! A route is changed while traffic flows: how long until the first response obeys.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::median;
use crate::http::Answer;
use crate::mesh::Mesh;
use crate::terminal::Terminal;

/// Changes that are measured.
const CHANGES: usize = 5;
/// Goal for the time from the start of `outriggerctl apply` to its effect, in ms.
const GOAL_MS: f64 = 100.0;
/// Between a response and the next request, so that asking does not take the processor from what is measured.
const PAUSE: Duration = Duration::from_millis(1);
/// Goes on for so long after the acknowledgment, to see that every later response obeys.
const SETTLE: Duration = Duration::from_millis(300);

/// What one change came to.
struct Measured {
    /// From the start of `outriggerctl apply`, ms.
    since_start: f64,
    /// From its end, i.e. after the acknowledgment, ms; below zero where the effect came first.
    since_ack: f64,
    failed: usize,
    polls: usize,
}

pub async fn show(mesh: &Mesh, terminal: &mut Terminal) -> anyhow::Result<()> {
    terminal.section("A route is changed while traffic flows");
    let file = mesh.resources.join("live").join(if mesh.real {
        "closed.yaml"
    } else {
        "gold.yaml"
    });
    let changed = std::fs::read_to_string(&file)
        .with_context(|| format!("cannot read {}", file.display()))?;
    // There and back: the other direction is the same file for the other replicas.
    let back = mesh.directory.join("gold-v1.yaml");
    let back_text = if mesh.real {
        changed.replace("version: none", "version: v1")
    } else {
        changed.replace("version: v2", "version: v1")
    };
    std::fs::write(&back, back_text).with_context(|| format!("cannot write {}", back.display()))?;
    let what = if mesh.real {
        "to no replica"
    } else {
        "to version=v2"
    };
    terminal.line(format!(
        "outriggerctl apply -f {}: x-tier: gold {what}, and back, {CHANGES} times",
        short(&file)
    ));

    let forth = |answer: &Answer| {
        if mesh.real {
            answer.header("x-outrigger-reason") == "no-endpoints"
        } else {
            version(mesh, answer) == "v2"
        }
    };
    let mut measured = Vec::with_capacity(CHANGES);
    for number in 0..CHANGES {
        let apply = if number % 2 == 0 { &file } else { &back };
        let obeys = |answer: &Answer| forth(answer) == (number % 2 == 0);
        measured.push(measure(mesh, &apply.to_string_lossy(), obeys).await?);
    }
    let start: Vec<f64> = measured.iter().map(|one| one.since_start).collect();
    let worst = start.iter().copied().fold(0.0, f64::max);
    let middle = median(start);
    let acknowledged = median(measured.iter().map(|one| one.since_ack).collect());
    let acknowledged = if acknowledged < 0.0 {
        format!("{:.0} ms before the command had returned", -acknowledged)
    } else {
        format!("{acknowledged:.0} ms after the command had returned")
    };
    terminal.claim(
        middle < GOAL_MS,
        &format!("a change acts within {GOAL_MS:.0} ms of calling apply"),
        &format!("median {middle:.0} ms, worst {worst:.0} ms; {acknowledged}"),
    );
    let polls: usize = measured.iter().map(|one| one.polls).sum();
    let failed: usize = measured.iter().map(|one| one.failed).sum();
    terminal.claim(
        failed == 0,
        "no request failed meanwhile",
        &format!("{polls} requests, {failed} failed"),
    );
    Ok(())
}

/// Applies a file while requests follow each other closely on one connection, and finds the first response after which
/// all obey.
async fn measure(
    mesh: &Mesh,
    file: &str,
    obeys: impl Fn(&Answer) -> bool,
) -> anyhow::Result<Measured> {
    let mut client = mesh.client().with_header("x-tier", "gold");
    // The connection, so that the first response does not wait for it.
    client.get("/v1/models").await?;
    let stop = AtomicBool::new(false);
    let polling = async {
        let mut seen: Vec<(Instant, bool)> = Vec::new();
        let mut failed = 0;
        while !stop.load(Ordering::Relaxed) {
            let answer = client.get("/v1/models").await?;
            // With real servers, the refusal is what the change is about.
            let refused = mesh.real && answer.header("x-outrigger-reason") == "no-endpoints";
            failed += usize::from(!answer.status.is_success() && !refused);
            seen.push((Instant::now(), obeys(&answer)));
            tokio::time::sleep(PAUSE).await;
        }
        anyhow::Ok((seen, failed))
    };
    let applying = async {
        let applied = mesh.ctl.succeed(&["apply", "-f", file]).await;
        tokio::time::sleep(SETTLE).await;
        stop.store(true, Ordering::Relaxed);
        applied
    };
    let (polled, applied) = tokio::join!(polling, applying);
    let ((seen, failed), applied) = (polled?, applied?);
    let first = seen
        .iter()
        .rposition(|(_, obeyed)| !obeyed)
        .map_or(0, |last| last + 1);
    let (effect, _) = seen.get(first).with_context(|| {
        format!(
            "{file} had no effect on {} requests, {SETTLE:?} after it was acknowledged",
            seen.len()
        )
    })?;
    let ms = |from: Instant| {
        let later = effect.saturating_duration_since(from).as_secs_f64();
        let earlier = from.saturating_duration_since(*effect).as_secs_f64();
        (later - earlier) * 1e3
    };
    Ok(Measured {
        since_start: ms(applied.started),
        since_ack: ms(applied.ended),
        failed,
        polls: seen.len(),
    })
}

/// Version of the replica that answered.
fn version<'a>(mesh: &'a Mesh, answer: &Answer) -> &'a str {
    let name = answer.header("x-model-server");
    mesh.replicas
        .iter()
        .find(|replica| replica.name == name)
        .map_or("", |replica| replica.version)
}

/// The path within the sources, where it is one.
fn short(path: &std::path::Path) -> String {
    let text = path.display().to_string();
    match text.find("examples/quickstart") {
        Some(at) => text[at..].to_owned(),
        None => text,
    }
}
