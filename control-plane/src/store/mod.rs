//! Where resources are kept, with optimistic concurrency and an ordered feed of changes.
//!
//! All methods are blocking: a write returns when it is on disk. Call them from `spawn_blocking`, except [`Store::get`],
//! [`Store::list`], [`Store::revision`] and [`Store::subscribe`], which answer from memory.

mod budgets;
mod disk;
mod error;
mod feed;
mod plan;
mod redb;

use std::sync::Arc;

use serde_json::Value;

use crate::model::{Kind, Labels, Resource, ResourceKey};

pub use error::{Conflict, OpenError, StoreError};
pub use feed::{Change, ChangeKind, ChangeSet, Changes, FeedError, Subscription};
pub use redb::RedbStore;

/// A store of resources, and of join tokens.
///
/// Every write that changes something gets a revision, one number for the whole store that only grows, across restarts
/// too; it is the `resourceVersion` of what was written.
pub trait Store: Send + Sync + std::fmt::Debug {
    /// The revision of the last change.
    fn revision(&self) -> u64;

    /// One resource.
    fn get(&self, key: &ResourceKey) -> Option<Arc<Resource>>;

    /// What the selector selects, ordered by kind, namespace and name.
    fn list(&self, selector: &Selector) -> Vec<Arc<Resource>>;

    /// The resources there are, and every change after them, without a gap in between.
    fn subscribe(&self) -> Subscription;

    /// Creates or changes resources, all or none of them; with `dry_run` says what would happen. The results are in the
    /// order of `resources`.
    ///
    /// Of the metadata, name, namespace, labels and annotations are taken over; a `resource_version` must be that of the
    /// stored resource. The caller has validated each resource by itself ([`crate::model::validate`]); resources are
    /// checked against each other here ([`crate::model::validate_against`]), under the lock of the write.
    ///
    /// # Errors
    /// [`StoreError::Invalid`], [`StoreError::Conflict`], [`StoreError::NotWritable`] for a `Workload`, and
    /// [`StoreError::Disk`].
    fn apply(&self, resources: Vec<Resource>, dry_run: bool) -> Result<Vec<Applied>, StoreError>;

    /// Deletes a resource and returns its last state. `resource_version` must be that of the stored resource, if given.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Conflict`], [`StoreError::NotWritable`] for a `Workload`, and
    /// [`StoreError::Disk`].
    fn delete(
        &self,
        key: &ResourceKey,
        resource_version: Option<&str>,
        dry_run: bool,
    ) -> Result<Arc<Resource>, StoreError>;

    /// Creates or changes a workload. On disk with the next [`Store::flush`], or with the next write of another kind.
    ///
    /// # Errors
    /// [`StoreError::NotWritable`] for another kind than `Workload`, and [`StoreError::Disk`].
    fn put_workload(&self, workload: Resource) -> Result<Applied, StoreError>;

    /// Deletes a workload and returns its last state; `None` where there was none.
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    fn delete_workload(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Resource>>, StoreError>;

    /// Returns when all workloads are on disk. Apart from the writes, so that a thousand of them cost one wait for the disk.
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    fn flush(&self) -> Result<(), StoreError>;

    /// Stores a join token under its id, in place of an earlier one.
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    fn put_token(&self, id: &str, token: &Value) -> Result<(), StoreError>;

    /// One join token.
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    fn get_token(&self, id: &str) -> Result<Option<Value>, StoreError>;

    /// Changes a join token in one transaction: no other change can come between reading and writing. `change` returns
    /// whether to store what it made of the token. Returns what `change` left behind; `None` where there is no such token.
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    fn update_token(
        &self,
        id: &str,
        change: &mut dyn FnMut(&mut Value) -> bool,
    ) -> Result<Option<Value>, StoreError>;

    /// All join tokens with their ids, ordered by id.
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    fn list_tokens(&self) -> Result<Vec<(String, Value)>, StoreError>;

    /// Deletes a join token; says whether there was one.
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    fn delete_token(&self, id: &str) -> Result<bool, StoreError>;

    /// What is leased of budgets, by row.
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    fn list_budgets(&self) -> Result<Vec<(String, u64)>, StoreError>;

    /// Raises rows of budgets to these numbers, and takes out all rows before `oldest`. Returns when that is on disk.
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    fn raise_budgets(&self, rows: &[(&str, u64)], oldest: &str) -> Result<(), StoreError>;

    /// Sets rows of budgets. Returns when that is on disk.
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    fn set_budgets(&self, rows: &[(&str, u64)]) -> Result<(), StoreError>;
}

/// Which resources to list. The default selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Only this kind.
    pub kind: Option<Kind>,
    /// Only this namespace. Kinds without a namespace are then left out, unless `kind` asks for one.
    pub namespace: Option<String>,
    /// Only with all of these labels.
    pub labels: Labels,
}

impl Selector {
    /// All resources of a kind.
    pub fn kind(kind: Kind) -> Self {
        Self {
            kind: Some(kind),
            ..Self::default()
        }
    }

    /// Whether it selects the resource.
    pub fn matches(&self, resource: &Resource) -> bool {
        let kind = resource.kind();
        self.kind.is_none_or(|wanted| wanted == kind)
            && (self.kind.is_some() && !kind.is_namespaced()
                || self
                    .namespace
                    .as_ref()
                    .is_none_or(|wanted| *wanted == resource.metadata.namespace))
            && self
                .labels
                .iter()
                .all(|(name, value)| resource.metadata.labels.get(name) == Some(value))
    }
}

/// What a write did, or would do.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// As stored, or as it would be.
    pub resource: Arc<Resource>,
    /// What changed.
    pub outcome: Outcome,
    /// What is allowed and probably not meant.
    pub warnings: Vec<String>,
}

/// What a write changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The resource is new.
    Created,
    /// Its spec, labels or annotations changed.
    Configured,
    /// Nothing; it keeps its `resourceVersion`.
    Unchanged,
}

#[cfg(test)]
mod tests;
