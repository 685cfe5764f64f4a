//! Leases of token budgets: asks the control plane off the path of requests, on the connection of the stream.

use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::budget::v1::budget_service_client::BudgetServiceClient;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tonic::transport::Channel;

use crate::admission::tokens::Hub;
use crate::shared::Shared;

/// The contract's limit.
const MAX_LEASES: usize = 256;
/// An answer that takes longer is given up. What it leased is told again with the next one.
const TIMEOUT: Duration = Duration::from_secs(5);
/// After a request that failed.
const PAUSE: Duration = Duration::from_millis(500);
/// Between two looks after leases: those that nobody uses, and those of the next window.
const TICK: Duration = Duration::from_millis(500);

/// Asks until the task is dropped. Costs nothing where no budget is shared.
pub(super) async fn run(shared: Arc<Shared>, hub: Arc<Hub>, instance: String, channel: Channel) {
    if !hub.has_leases() {
        hub.wake.notified().await;
    }
    // Boxed: few sidecars have budgets.
    Box::pin(ask(shared, hub, instance, channel)).await;
}

async fn ask(shared: Arc<Shared>, hub: Arc<Hub>, instance: String, channel: Channel) {
    let mut client = BudgetServiceClient::new(channel);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_tick = true;
    loop {
        let mut asked = hub.collect(is_tick, shared.drain.is_draining());
        while !asked.is_empty() {
            let rest = asked.split_off(asked.len().min(MAX_LEASES));
            let request = hub.request(&instance, &asked);
            match timeout(TIMEOUT, client.lease(request)).await {
                Ok(Ok(response)) => hub.answered(asked, response.into_inner()),
                Ok(Err(status)) => {
                    tracing::debug!(%status, "the control plane leased nothing");
                    sleep(PAUSE).await;
                }
                Err(_) => tracing::debug!("the control plane did not lease in time"),
            }
            asked = rest;
        }
        is_tick = tokio::select! {
            () = hub.wake.notified() => false,
            _ = ticks.tick(), if hub.has_leases() => true,
        };
    }
}
