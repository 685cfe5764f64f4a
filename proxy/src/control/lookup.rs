//! Hosts and services that a request names for the first time: asked of the control plane while the request waits.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::policy::{HostEntry, Service};
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
    wanted: mpsc::Sender<Wanted>,
    changed: watch::Receiver<u64>,
}

/// The control thread's side.
#[derive(Debug)]
pub struct LookupQueue {
    pub(super) wanted: mpsc::Receiver<Wanted>,
    pub(super) changed: watch::Sender<u64>,
}

/// What a request needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Wanted {
    /// By authority, lower case.
    Host(Box<str>),
    /// By `<namespace>/<name>`.
    Service(Box<str>),
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
        (lookups, LookupQueue { wanted, changed })
    }

    /// What the authority (`name` or `name:port`) means: from the snapshot, else from the control plane. `None`: there
    /// was no answer within [`PATIENCE`].
    pub async fn host(&self, shared: &Shared, authority: &str) -> Option<HostEntry> {
        let find =
            |snapshot: &crate::policy::Snapshot, name: &str| snapshot.hosts.get(name).cloned();
        if let Some(entry) = find(&shared.snapshot.load(), authority) {
            return Some(entry);
        }
        if authority.is_empty() || authority.len() > MAX_AUTHORITY {
            return Some(HostEntry::Absent);
        }
        let name = authority.to_ascii_lowercase();
        self.wait(shared, Wanted::Host(name.as_str().into()), |snapshot| {
            find(snapshot, &name)
        })
        .await
    }

    /// The service `<namespace>/<name>`. `None`: it does not exist, or there was no answer within [`PATIENCE`].
    pub async fn service(&self, shared: &Shared, name: &str) -> Option<Arc<Service>> {
        let find = |snapshot: &crate::policy::Snapshot| snapshot.services.get(name).cloned();
        if let Some(service) = find(&shared.snapshot.load()) {
            return Some(service);
        }
        self.wait(shared, Wanted::Service(name.into()), find).await
    }

    async fn wait<T>(
        &self,
        shared: &Shared,
        wanted: Wanted,
        find: impl Fn(&crate::policy::Snapshot) -> Option<T>,
    ) -> Option<T> {
        let mut changed = self.changed.clone();
        let answer = async {
            self.wanted.send(wanted).await.ok()?;
            loop {
                // Marked as seen before the look, so that a snapshot that comes in between is not missed.
                changed.borrow_and_update();
                if let Some(found) = find(&shared.snapshot.load()) {
                    return Some(found);
                }
                changed.changed().await.ok()?;
            }
        };
        tokio::time::timeout(PATIENCE, answer).await.ok().flatten()
    }
}
