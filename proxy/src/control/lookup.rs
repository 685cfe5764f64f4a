//! Hosts and services that a request names for the first time: asked of the control plane while the request waits.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};

use crate::policy::{HostEntry, Service, Snapshot};
use crate::shared::Shared;

/// How long a request waits for the control plane's answer. An answer takes one round trip; a control plane that is away
/// shall not hold requests for longer than a client's patience.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Lookups under way that were not yet taken by the control thread. A request that finds it full waits its turn.
const QUEUE: usize = 256;

/// Longest authority that is asked for: a DNS name (255), a colon and a port.
const MAX_AUTHORITY: usize = 255 + 6;

/// The data path's side: asks, and waits for the snapshot that has the answer.
#[derive(Debug)]
pub struct Lookups {
    /// Names of resources.
    wanted: mpsc::Sender<Box<str>>,
    changed: watch::Receiver<u64>,
}

/// The control thread's side.
#[derive(Debug)]
pub struct LookupQueue {
    pub(super) wanted: mpsc::Receiver<Box<str>>,
    pub(super) changed: watch::Sender<u64>,
    /// Woken when a DNS name has another standing.
    pub(super) resolved: Arc<Notify>,
}

impl Lookups {
    /// Both ends.
    pub fn new() -> (Lookups, LookupQueue) {
        let (wanted_sender, wanted) = mpsc::channel(QUEUE);
        let (changed, changed_receiver) = watch::channel(0);
        let lookups = Lookups {
            wanted: wanted_sender,
            changed: changed_receiver,
        };
        let queue = LookupQueue {
            wanted,
            changed,
            resolved: Arc::default(),
        };
        (lookups, queue)
    }

    /// What the authority (`name` or `name:port`) means: from the snapshot, else from the control plane. `None`: there
    /// was no answer within [`PATIENCE`], or it cannot be used.
    pub async fn host(&self, shared: &Shared, authority: &str) -> Option<HostEntry> {
        let find = |snapshot: &Snapshot, name: &str| snapshot.hosts.get(name).cloned();
        if let Some(entry) = find(&shared.snapshot.load(), authority) {
            return Some(entry);
        }
        if authority.is_empty() || authority.len() > MAX_AUTHORITY {
            return Some(HostEntry::Absent);
        }
        let name = authority.to_ascii_lowercase();
        let resource = format!("host/{name}");
        self.wait(shared, &resource, |snapshot| find(snapshot, &name))
            .await
    }

    /// The service `<namespace>/<name>`. `None`: it does not exist, or there was no answer within [`PATIENCE`].
    pub async fn service(&self, shared: &Shared, name: &str) -> Option<Arc<Service>> {
        let find = |snapshot: &Snapshot| snapshot.services.get(name).cloned();
        if let Some(service) = find(&shared.snapshot.load()) {
            return Some(service);
        }
        let resource = format!("service/{name}");
        self.wait(shared, &resource, find).await
    }

    async fn wait<T>(
        &self,
        shared: &Shared,
        resource: &str,
        find: impl Fn(&Snapshot) -> Option<T>,
    ) -> Option<T> {
        if shared.snapshot.load().unusable.contains(resource) {
            return None;
        }
        let mut changed = self.changed.clone();
        let answer = async {
            self.wanted.send(resource.into()).await.ok()?;
            loop {
                // Marked as seen before the look, so that a snapshot that comes in between is not missed.
                changed.borrow_and_update();
                let snapshot = shared.snapshot.load();
                if let Some(found) = find(&snapshot) {
                    return Some(found);
                }
                if snapshot.unusable.contains(resource) {
                    return None;
                }
                drop(snapshot);
                changed.changed().await.ok()?;
            }
        };
        tokio::time::timeout(PATIENCE, answer).await.ok().flatten()
    }
}
