//! The feed of changes.

use std::sync::Arc;

use tokio::sync::broadcast;

use crate::model::Resource;

/// How many writes a consumer may be behind before it is told to start again. Each entry is one pointer per consumer's
/// backlog and the write's own changes, which the store holds anyway.
const BACKLOG: usize = 4096;

/// What one write changed, in the order of the write.
#[derive(Clone, Debug)]
pub struct ChangeSet {
    /// The revision that the write made.
    pub revision: u64,
    /// Never empty.
    pub changes: Vec<Change>,
}

/// What happened to one resource.
#[derive(Clone, Debug)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// As it is now; for [`ChangeKind::Deleted`], as it was.
    pub resource: Arc<Resource>,
    /// As it was before; `None` for [`ChangeKind::Added`].
    pub previous: Option<Arc<Resource>>,
}

/// What happened to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It changed.
    Modified,
    /// It is gone.
    Deleted,
}

/// A point in the store's history: what there was, and what came after.
#[derive(Debug)]
pub struct Subscription {
    /// Revision of `resources`; the first change has a greater one.
    pub revision: u64,
    /// All resources, ordered by kind, namespace and name.
    pub resources: Vec<Arc<Resource>>,
    /// What changed since.
    pub changes: Changes,
}

/// The changes after a [`Subscription`].
#[derive(Debug)]
pub struct Changes {
    receiver: broadcast::Receiver<Arc<ChangeSet>>,
}

/// Why there are no more changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// The consumer was too slow and missed this many writes. It has to subscribe again.
    #[error("too slow: {0} writes were missed; subscribe again")]
    Lagged(u64),
    /// The store is gone.
    #[error("the store was closed")]
    Closed,
}

impl Changes {
    /// Waits for the next write. Cancel safe.
    ///
    /// # Errors
    /// After an error, subscribe again: the following changes are not complete.
    pub async fn recv(&mut self) -> Result<Arc<ChangeSet>, FeedError> {
        self.receiver.recv().await.map_err(|error| match error {
            broadcast::error::RecvError::Lagged(missed) => FeedError::Lagged(missed),
            broadcast::error::RecvError::Closed => FeedError::Closed,
        })
    }

    /// The next write, if there is one already: for taking several together.
    ///
    /// # Errors
    /// As [`Changes::recv`].
    pub fn try_recv(&mut self) -> Result<Option<Arc<ChangeSet>>, FeedError> {
        match self.receiver.try_recv() {
            Ok(changes) => Ok(Some(changes)),
            Err(broadcast::error::TryRecvError::Empty) => Ok(None),
            Err(broadcast::error::TryRecvError::Lagged(missed)) => Err(FeedError::Lagged(missed)),
            Err(broadcast::error::TryRecvError::Closed) => Err(FeedError::Closed),
        }
    }
}

/// The store's end of the feed.
#[derive(Debug)]
pub(super) struct Feed {
    sender: broadcast::Sender<Arc<ChangeSet>>,
}

impl Feed {
    pub(super) fn new() -> Self {
        Self {
            sender: broadcast::Sender::new(BACKLOG),
        }
    }

    pub(super) fn subscribe(&self) -> Changes {
        Changes {
            receiver: self.sender.subscribe(),
        }
    }

    pub(super) fn send(&self, changes: ChangeSet) {
        // An error says that nobody listens.
        let _ = self.sender.send(Arc::new(changes));
    }
}
