//! What Prometheus gets.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::mesh::Mesh;
use crate::metrics::Metrics;
use crate::terminal::Terminal;

const OUTBOUND: (&str, &str) = ("direction", "outbound");
/// A request is counted at its very end, which the client may see a moment earlier: scrapes until all are counted.
const PATIENCE: usize = 50;

pub async fn show(mesh: &Mesh, terminal: &mut Terminal) -> anyhow::Result<()> {
    terminal.section(&format!(
        "Prometheus can scrape it all; some lines of http://{}/metrics",
        mesh.caller.metrics
    ));
    let sent = mesh.responses.load(Ordering::Relaxed);
    let mut metrics = Metrics::scrape(mesh.caller.metrics).await?;
    for _ in 0..PATIENCE {
        if counted(&metrics) == sent as f64 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        metrics = Metrics::scrape(mesh.caller.metrics).await?;
    }
    let outbound = [OUTBOUND];
    let wanted = [
        ("outrigger_requests_total", &outbound[..]),
        ("outrigger_retries_total", &[]),
        ("outrigger_endpoints", &[]),
        ("outrigger_config_version", &[]),
        ("outrigger_certificate_expiry_timestamp_seconds", &[]),
    ];
    for (name, labels) in wanted {
        for line in metrics
            .series(name, labels)
            .filter(|line| !line.ends_with(" 0"))
            .take(2)
        {
            terminal.line(line);
        }
    }
    let counted = counted(&metrics);
    let memory = metrics.sum("process_resident_memory_bytes", &[]) / f64::from(1 << 20);
    terminal.claim(
        counted == sent as f64,
        "the caller's sidecar has counted every request",
        &format!("{sent} sent, {counted} counted; its memory now: {memory:.1} MiB"),
    );
    Ok(())
}

/// Requests that applications have sent through this sidecar.
fn counted(metrics: &Metrics) -> f64 {
    metrics.sum("outrigger_requests_total", &[OUTBOUND])
}
