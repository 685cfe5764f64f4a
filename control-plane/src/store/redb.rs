//! The store on one file.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{Timestamp, Unit};
use redb::Durability;
use serde_json::Value;

use super::disk::{self, Disk, Loaded};
use super::feed::Feed;
use super::plan::{self, After, Resources};
use super::{
    Applied, Change, ChangeKind, ChangeSet, Conflict, OpenError, Selector, Store, StoreError,
    Subscription,
};
use crate::model::{self, IndexedProblem, Kind, Resource, ResourceKey};

/// A [`Store`] on one redb file. Reads are answered from memory; one write goes on at a time.
#[derive(Debug)]
pub struct RedbStore {
    trust_domain: String,
    /// Held for the whole of a write, the disk included.
    writer: Mutex<Writer>,
    /// Held for moments only. Taken after `writer`.
    state: Mutex<State>,
}

#[derive(Debug)]
struct Writer {
    disk: Disk,
    /// Up to here revisions are reserved on disk.
    limit: u64,
}

#[derive(Debug)]
struct State {
    revision: u64,
    resources: Resources,
    feed: Feed,
}

impl RedbStore {
    /// Opens the store, makes it if there is none. `trust_domain` is the CA's; a `Mesh` must have the same.
    ///
    /// # Errors
    /// Each variant of [`OpenError`] says what to do.
    pub fn open(path: &Path, trust_domain: &str) -> Result<Self, OpenError> {
        let Loaded {
            disk,
            resources,
            revision,
            limit,
        } = Disk::open(path)?;
        Ok(Self {
            trust_domain: trust_domain.to_owned(),
            writer: Mutex::new(Writer { disk, limit }),
            state: Mutex::new(State {
                revision,
                resources,
                feed: Feed::new(),
            }),
        })
    }

    // A panic while one of the locks is held cannot leave half a change behind: the state changes only in `publish`,
    // which does not panic. So a poisoned lock is used on.

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes changes to disk, then shows them to readers.
    fn commit(
        &self,
        writer: &mut Writer,
        changes: Vec<Change>,
        durability: Durability,
    ) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        let revision = self.revision() + 1;
        let limit = disk::reserve(revision, writer.limit);
        let durability = if limit == writer.limit {
            durability
        } else {
            Durability::Immediate
        };
        writer.disk.commit(&changes, limit, durability)?;
        writer.limit = limit;
        self.publish(ChangeSet { revision, changes });
        Ok(())
    }

    fn publish(&self, set: ChangeSet) {
        let mut state = self.state();
        for Change { kind, resource, .. } in &set.changes {
            match kind {
                ChangeKind::Added | ChangeKind::Modified => {
                    state.resources.insert(resource.key(), Arc::clone(resource));
                }
                ChangeKind::Deleted => {
                    state.resources.remove(&resource.key());
                }
            }
        }
        state.revision = set.revision;
        // Under the lock: who subscribes sees each change once, in its snapshot or in its feed.
        state.feed.send(set);
    }

    /// A copy of all resources that users write: what a write is checked against. The writer's lock keeps it current.
    fn written_by_users(&self) -> (u64, Resources) {
        let state = self.state();
        let first_workload = ResourceKey::workload("", "");
        let resources = state.resources.range(..first_workload);
        let resources = resources.map(|(key, resource)| (key.clone(), Arc::clone(resource)));
        (state.revision, resources.collect())
    }

    fn remove(
        &self,
        writer: &mut Writer,
        resource: &Arc<Resource>,
        durability: Durability,
    ) -> Result<(), StoreError> {
        let change = Change {
            kind: ChangeKind::Deleted,
            resource: Arc::clone(resource),
            previous: Some(Arc::clone(resource)),
        };
        self.commit(writer, vec![change], durability)
    }
}

impl Store for RedbStore {
    fn revision(&self) -> u64 {
        self.state().revision
    }

    fn get(&self, key: &ResourceKey) -> Option<Arc<Resource>> {
        self.state().resources.get(key).cloned()
    }

    fn list(&self, selector: &Selector) -> Vec<Arc<Resource>> {
        let state = self.state();
        let selected = state
            .resources
            .values()
            .filter(|resource| selector.matches(resource));
        selected.cloned().collect()
    }

    fn subscribe(&self) -> Subscription {
        let state = self.state();
        Subscription {
            revision: state.revision,
            resources: state.resources.values().cloned().collect(),
            changes: state.feed.subscribe(),
        }
    }

    fn apply(&self, resources: Vec<Resource>, dry_run: bool) -> Result<Vec<Applied>, StoreError> {
        if let Some(workload) = resources
            .iter()
            .find(|resource| !resource.kind().is_user_written())
        {
            return Err(StoreError::NotWritable(workload.key()));
        }
        let mut writer = self.writer();
        let (revision, stored) = self.written_by_users();
        let after = After::new(&stored, &resources, &self.trust_domain);
        let findings = model::validate_against(&resources, &after);
        if !findings.errors.is_empty() {
            return Err(StoreError::Invalid(findings.errors));
        }
        let mut plan =
            plan::apply(&stored, resources, revision + 1, now()).map_err(StoreError::Conflict)?;
        for IndexedProblem { index, problem } in findings.warnings {
            plan.results[index].warnings.push(problem.to_string());
        }
        if !dry_run {
            self.commit(&mut writer, plan.changes, Durability::Immediate)?;
        }
        Ok(plan.results)
    }

    fn delete(
        &self,
        key: &ResourceKey,
        resource_version: Option<&str>,
        dry_run: bool,
    ) -> Result<Arc<Resource>, StoreError> {
        if !key.kind.is_user_written() {
            return Err(StoreError::NotWritable(key.clone()));
        }
        let mut writer = self.writer();
        let stored = self
            .get(key)
            .ok_or_else(|| StoreError::NotFound(key.clone()))?;
        if let Some(conflict) = plan::check_version(0, key, resource_version, Some(&stored)) {
            return Err(StoreError::Conflict(Vec::<Conflict>::from([conflict])));
        }
        if !dry_run {
            self.remove(&mut writer, &stored, Durability::Immediate)?;
        }
        Ok(stored)
    }

    fn put_workload(&self, mut workload: Resource) -> Result<Applied, StoreError> {
        let key = workload.key();
        if key.kind != Kind::Workload {
            return Err(StoreError::NotWritable(key));
        }
        workload.metadata.resource_version = None;
        let mut writer = self.writer();
        let stored = self
            .get(&key)
            .map(|stored| (key, stored))
            .into_iter()
            .collect();
        let plan = plan::apply(&stored, vec![workload], self.revision() + 1, now())
            .map_err(StoreError::Conflict)?;
        let plan::Plan {
            mut results,
            changes,
        } = plan;
        self.commit(&mut writer, changes, Durability::None)?;
        Ok(results.remove(0))
    }

    fn delete_workload(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Resource>>, StoreError> {
        let mut writer = self.writer();
        let stored = self.get(&ResourceKey::workload(namespace, name));
        if let Some(stored) = &stored {
            self.remove(&mut writer, stored, Durability::None)?;
        }
        Ok(stored)
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.writer().disk.flush()
    }

    fn put_token(&self, id: &str, token: &Value) -> Result<(), StoreError> {
        self.writer().disk.put_token(id, token)
    }

    fn get_token(&self, id: &str) -> Result<Option<Value>, StoreError> {
        self.writer().disk.get_token(id)
    }

    fn update_token(
        &self,
        id: &str,
        change: &mut dyn FnMut(&mut Value) -> bool,
    ) -> Result<Option<Value>, StoreError> {
        self.writer().disk.update_token(id, change)
    }

    fn list_tokens(&self) -> Result<Vec<(String, Value)>, StoreError> {
        self.writer().disk.list_tokens()
    }

    fn delete_token(&self, id: &str) -> Result<bool, StoreError> {
        self.writer().disk.delete_token(id)
    }

    fn list_budgets(&self) -> Result<Vec<(String, u64)>, StoreError> {
        self.writer().disk.list_budgets()
    }

    fn raise_budgets(&self, rows: &[(&str, u64)], oldest: &str) -> Result<(), StoreError> {
        self.writer().disk.raise_budgets(rows, oldest)
    }

    fn set_budgets(&self, rows: &[(&str, u64)]) -> Result<(), StoreError> {
        self.writer().disk.set_budgets(rows)
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        // Best effort: what is lost is announced again.
        let _ = self.flush();
    }
}

/// In whole milliseconds: enough to order routes by age, and short to read.
fn now() -> Timestamp {
    let now = Timestamp::now();
    now.round(Unit::Millisecond).unwrap_or(now)
}
