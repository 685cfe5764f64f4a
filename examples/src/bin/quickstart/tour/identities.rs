//! Who is who: SPIFFE ids from the mesh's CA, seen from both ends, and nothing without them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::mesh::Mesh;
use crate::metrics::Metrics;
use crate::terminal::Terminal;

pub async fn show(mesh: &Mesh, terminal: &mut Terminal) -> anyhow::Result<()> {
    terminal.section(
        "Every hop between sidecars is mutual TLS, with identities from the mesh's own CA",
    );
    let status = mesh.ctl.json(&["status"]).await?;
    let sidecars = status["sidecars"]
        .as_array()
        .context("outriggerctl status -o json has no sidecars")?;
    let identities: Vec<&str> = sidecars
        .iter()
        .filter_map(|sidecar| sidecar["identity"].as_str())
        .collect();
    let callers: Vec<&&str> = identities
        .iter()
        .filter(|identity| identity.ends_with("/sa/frontend"))
        .collect();
    let servers = identities
        .iter()
        .filter(|identity| identity.ends_with("/sa/chat"))
        .count();
    let caller = callers.first().map_or("nobody", |identity| **identity);
    terminal.pair("the caller is", caller);
    let server = identities
        .iter()
        .find(|identity| identity.ends_with("/sa/chat"));
    terminal.pair("the replicas", server.unwrap_or(&"nobody"));

    let mut peers = BTreeSet::new();
    for replica in &mesh.replicas {
        let metrics = Metrics::scrape(replica.sidecar.metrics).await?;
        peers.extend(metrics.values(
            "outrigger_requests_total",
            &[("direction", "inbound")],
            "peer",
        ));
    }
    let seen: Vec<&str> = peers.iter().map(String::as_str).collect();
    terminal.claim(
        callers.len() == 1 && servers == mesh.replicas.len() && seen == [caller],
        "the replicas count requests by the sender's certificate",
        &format!("peer={}", seen.join(", ")),
    );

    let replica = mesh.replicas.first().context("there is a replica")?;
    let inbound = replica
        .sidecar
        .inbound
        .context("a replica's sidecar lets peers in")?;
    let answer = plaintext(inbound).await;
    let served = answer.contains(" 200 ");
    let figure = answer
        .lines()
        .next()
        .map_or("connection closed".to_owned(), |line| {
            format!("answer: {line}")
        });
    terminal.claim(
        !served,
        "a caller without a certificate gets nothing from a replica's sidecar",
        &figure,
    );
    Ok(())
}

/// What a sidecar answers to a request without TLS; empty where it just closes the connection.
async fn plaintext(inbound: SocketAddr) -> String {
    let mut answer = Vec::new();
    let exchange = async {
        let mut stream = TcpStream::connect(inbound).await?;
        stream
            .write_all(b"GET /v1/models HTTP/1.1\r\nHost: chat.models\r\nConnection: close\r\n\r\n")
            .await?;
        stream.read_to_end(&mut answer).await
    };
    // A reset is as good an answer as an end, and silence gives nothing away either.
    let _ = tokio::time::timeout(Duration::from_secs(5), exchange).await;
    String::from_utf8_lossy(&answer).into_owned()
}
