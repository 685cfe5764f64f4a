//! A replica and its sidecar die by SIGKILL in the middle of their work, and no caller notices.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::{CHAT, chat};
use crate::mesh::Mesh;
use crate::metrics::Metrics;
use crate::terminal::Terminal;

/// Callers at the same time.
const CALLERS: usize = 12;
/// Load before and after the kill.
const BEFORE: Duration = Duration::from_millis(1_000);
const AFTER: Duration = Duration::from_millis(2_500);

pub async fn show(mesh: &Mesh, terminal: &mut Terminal) -> anyhow::Result<()> {
    // The second: it is of the same version as the first, so that both versions stay.
    let Some(victim) = mesh
        .replicas
        .get(1)
        .or(mesh.replicas.first())
        .filter(|_| mesh.replicas.len() > 1)
    else {
        terminal.note("\nwith a single --backend, none is killed: give several URLs to see it");
        return Ok(());
    };
    terminal.section(&format!(
        "{} is killed (kill -9) while {CALLERS} callers send requests",
        victim.name
    ));
    let mut names = vec![victim.sidecar.name.clone()];
    if !mesh.real {
        names.push(victim.name.clone());
    }
    let retries = async || {
        anyhow::Ok(
            Metrics::scrape(mesh.caller.metrics)
                .await?
                .sum("outrigger_retries_total", &[]),
        )
    };
    let retries_before = retries().await?;
    let stop = AtomicBool::new(false);
    let load = join_all((0..CALLERS).map(|caller| call(mesh, caller, &stop)));
    let killing = async {
        tokio::time::sleep(BEFORE).await;
        let killed = Instant::now();
        mesh.children.kill(&names);
        tokio::time::sleep(AFTER).await;
        stop.store(true, Ordering::Relaxed);
        killed
    };
    let (outcomes, killed) = tokio::join!(load, killing);
    let mut slowest = Duration::ZERO;
    let (mut answered, mut failures) = (0, Vec::new());
    for (finished, took, failure) in outcomes.into_iter().flatten() {
        match failure {
            None => answered += 1,
            Some(failure) => failures.push(failure),
        }
        if finished > killed {
            slowest = slowest.max(took);
        }
    }
    for failure in failures.iter().take(3) {
        terminal.line(failure);
    }
    let retried = retries().await? - retries_before;
    terminal.claim(
        failures.is_empty() && answered > CALLERS,
        "no request failed",
        &format!(
            "{answered} answered, {} failed; the caller's sidecar repeated {retried}; slowest since {:.0} ms",
            failures.len(),
            slowest.as_secs_f64() * 1e3,
        ),
    );

    let started = Instant::now();
    mesh.start_replica(victim)?;
    mesh.wait_ready(&victim.sidecar).await?;
    mesh.wait_for_replicas().await?;
    terminal.line(format!(
        "{} started again: requests reach it after {:.1} s",
        victim.name,
        started.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// Sends requests until told to stop. For each: when it was over, how long it took, and what was wrong.
async fn call(
    mesh: &Mesh,
    caller: usize,
    stop: &AtomicBool,
) -> Vec<(Instant, Duration, Option<String>)> {
    let mut client = mesh.client();
    let mut outcomes = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let request = chat(
            mesh,
            &format!("Request {} of caller {caller}.", outcomes.len()),
            12,
            false,
        );
        let started = Instant::now();
        let failure = match client.post(CHAT, &request).await {
            Ok(answer) if answer.status.is_success() => None,
            Ok(answer) => Some(format!(
                "{} {}",
                answer.status,
                answer.header("x-outrigger-reason")
            )),
            Err(error) => Some(format!("{error:#}")),
        };
        outcomes.push((Instant::now(), started.elapsed(), failure));
    }
    outcomes
}
