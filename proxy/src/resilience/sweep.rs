//! The clock of outlier detection, on the control thread.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::health::Health;
use super::outlier::Outliers;
use crate::policy::Snapshot;
use crate::shared::Shared;

/// How late an ejection may end. Far below the shortest that makes sense, and nothing to be felt on the control thread.
const TICK: Duration = Duration::from_millis(100);

/// A service that is watched, and each of its endpoints once.
struct Watched {
    outliers: Arc<Outliers>,
    members: Vec<Arc<Health>>,
}

/// Runs until the task is dropped.
pub async fn run(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut snapshot = shared.snapshot.load_full();
    let mut services = watched(&snapshot);
    loop {
        ticks.tick().await;
        let current = shared.snapshot.load();
        if !Arc::ptr_eq(&snapshot, &current) {
            snapshot = Arc::clone(&current);
            services = watched(&snapshot);
        }
        drop(current);
        for service in &services {
            service.outliers.sweep(&service.members);
        }
    }
}

fn watched(snapshot: &Snapshot) -> Vec<Watched> {
    let services = snapshot
        .upstreams()
        .into_iter()
        .filter(|upstream| upstream.health.outliers.policy().is_some());
    services
        .map(|upstream| Watched {
            outliers: upstream.health.outliers.clone(),
            members: members(upstream.endpoints.endpoints()),
        })
        .collect()
}

/// The healths of these endpoints, each once.
pub(crate) fn members(endpoints: &[Arc<crate::balance::Endpoint>]) -> Vec<Arc<Health>> {
    let mut known = std::collections::HashSet::new();
    endpoints
        .iter()
        .map(|endpoint| &endpoint.health)
        .filter(|health| known.insert(Arc::as_ptr(health)))
        .cloned()
        .collect()
}
