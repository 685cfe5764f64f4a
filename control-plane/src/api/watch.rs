//! The stream of `Watch`.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::stream::{self, Stream};
use outrigger_proto::api::v1::WatchEvent;
use outrigger_proto::api::v1::watch_event::Type;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::convert;
use super::resources::StatusSource;
use crate::model::Resource;
use crate::store::{Change, ChangeKind, Changes, FeedError, Selector, Subscription};

/// What there is, then SYNCED, then what changes. Nothing is sent ahead of the caller: who does not read falls behind in
/// the store's feed, and is ended there.
pub(super) fn events(
    subscription: Subscription,
    selector: Selector,
    statuses: Arc<dyn StatusSource>,
    shutdown: CancellationToken,
) -> impl Stream<Item = Result<WatchEvent, Status>> + Send + 'static {
    let Subscription {
        resources, changes, ..
    } = subscription;
    let there = resources
        .into_iter()
        .filter(|resource| selector.matches(resource));
    let mut pending: VecDeque<_> = there
        .map(|resource| (Type::Added, Some(resource)))
        .collect();
    pending.push_back((Type::Synced, None));
    let watch = Watch {
        pending,
        changes,
        selector,
        statuses,
        shutdown,
    };
    stream::unfold(Some(watch), |watch| async {
        let mut watch = watch?;
        match watch.next().await {
            Ok(event) => Some((Ok(event), Some(watch))),
            Err(status) => Some((Err(status), None)),
        }
    })
}

struct Watch {
    pending: VecDeque<(Type, Option<Arc<Resource>>)>,
    changes: Changes,
    selector: Selector,
    statuses: Arc<dyn StatusSource>,
    shutdown: CancellationToken,
}

impl Watch {
    async fn next(&mut self) -> Result<WatchEvent, Status> {
        loop {
            if let Some((kind, resource)) = self.pending.pop_front() {
                return Ok(self.event(kind, resource.as_deref()));
            }
            let set = tokio::select! {
                set = self.changes.recv() => set.map_err(ended)?,
                () = self.shutdown.cancelled() => return Err(Status::unavailable("the control plane is stopping")),
            };
            self.pending.extend(
                set.changes
                    .iter()
                    .filter_map(|change| select(change, &self.selector)),
            );
        }
    }

    fn event(&self, kind: Type, resource: Option<&Resource>) -> WatchEvent {
        let message = |resource: &Resource| {
            let status = self.statuses.status(&resource.key());
            convert::to_message(resource, status.as_ref())
        };
        WatchEvent {
            r#type: kind.into(),
            resource: resource.map(message),
        }
    }
}

/// Kind and namespace of a resource never change, and a watch does not select by labels: what is selected stays so.
fn select(change: &Change, selector: &Selector) -> Option<(Type, Option<Arc<Resource>>)> {
    let kind = match change.kind {
        ChangeKind::Added => Type::Added,
        ChangeKind::Modified => Type::Modified,
        ChangeKind::Deleted => Type::Deleted,
    };
    selector
        .matches(&change.resource)
        .then(|| (kind, Some(Arc::clone(&change.resource))))
}

fn ended(error: FeedError) -> Status {
    match error {
        FeedError::Lagged(missed) => Status::resource_exhausted(format!(
            "this watch was too slow and missed {missed} writes; start it again"
        )),
        FeedError::Closed => Status::unavailable("the store was closed"),
    }
}
