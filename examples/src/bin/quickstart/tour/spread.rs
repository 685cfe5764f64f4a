//! Requests spread over the replicas.

use std::time::Duration;

use futures_util::future::join_all;

use super::{CHAT, chat};
use crate::mesh::Mesh;
use crate::terminal::Terminal;

/// Callers at the same time, and requests of each.
const CALLERS: usize = 6;
const REQUESTS: usize = 15;

pub async fn show(mesh: &Mesh, terminal: &mut Terminal) -> anyhow::Result<()> {
    let total = CALLERS * REQUESTS;
    terminal.section(&format!(
        "{total} requests, {CALLERS} at a time, spread over the replicas"
    ));
    let before = mesh.served().await?;
    let callers = (0..CALLERS).map(|caller| async move {
        let mut client = mesh.client();
        let mut answered = 0;
        for number in 0..REQUESTS {
            let request = chat(
                mesh,
                &format!("Request {number} of caller {caller}."),
                8,
                false,
            );
            answered += usize::from(
                client
                    .post(CHAT, &request)
                    .await
                    .is_ok_and(|answer| answer.status.is_success()),
            );
        }
        answered
    });
    let answered: usize = join_all(callers).await.into_iter().sum();

    // A request is counted at its very end, which the client may see a moment earlier.
    let mut served: Vec<u64> = Vec::new();
    for _ in 0..50 {
        served = mesh
            .served()
            .await?
            .iter()
            .zip(&before)
            .map(|(after, before)| after - before)
            .collect();
        if served.iter().sum::<u64>() >= total as u64 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let largest = served.iter().copied().max().unwrap_or_default();
    for (replica, count) in mesh.replicas.iter().zip(&served) {
        terminal.bar(&replica.name, *count, largest);
    }
    let least = served.iter().copied().min().unwrap_or_default();
    // Real servers may differ much in speed, and then the slow one rightly gets little.
    let fair = if mesh.real {
        1
    } else {
        total as u64 / mesh.replicas.len() as u64 / 3
    };
    terminal.claim(
        answered == total && least >= fair,
        "all were answered, and every replica did its part",
        &format!("{answered} of {total}; the least busy replica had {least}"),
    );
    Ok(())
}
