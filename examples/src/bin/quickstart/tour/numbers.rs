//! What Prometheus gets.

use std::sync::atomic::Ordering;

use crate::mesh::Mesh;
use crate::metrics::Metrics;
use crate::terminal::Terminal;

pub async fn show(mesh: &Mesh, terminal: &mut Terminal) -> anyhow::Result<()> {
    terminal.section(&format!(
        "Prometheus can scrape it all; some lines of http://{}/metrics",
        mesh.caller.metrics
    ));
    let metrics = Metrics::scrape(mesh.caller.metrics).await?;
    let outbound = [("direction", "outbound")];
    let wanted = [
        ("outrigger_requests_total", &outbound[..]),
        ("outrigger_time_to_first_byte_seconds_count", &outbound[..]),
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
    let counted = metrics.sum("outrigger_requests_total", &outbound);
    let sent = mesh.responses.load(Ordering::Relaxed);
    let memory = metrics.sum("process_resident_memory_bytes", &[]) / f64::from(1 << 20);
    terminal.claim(
        counted == sent as f64,
        "the caller's sidecar has counted every request",
        &format!("{sent} sent, {counted} counted; its memory now: {memory:.1} MiB"),
    );
    Ok(())
}
