//! What a write would do: computed without touching anything, so that a dry run and a real one cannot differ.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::{Applied, Change, ChangeKind, Conflict, Outcome};
use crate::model::relate::View;
use crate::model::{Kind, Resource, ResourceKey, ServiceSpec};

/// Resources by key.
pub(super) type Resources = BTreeMap<ResourceKey, Arc<Resource>>;

/// The effects of a write.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// One for each resource of the write.
    pub(super) results: Vec<Applied>,
    /// Only what changes.
    pub(super) changes: Vec<Change>,
}

/// Plans to write `resources`, which have different keys.
pub(super) fn apply(
    stored: &Resources,
    resources: Vec<Resource>,
    revision: u64,
    now: Timestamp,
) -> Result<Plan, Vec<Conflict>> {
    let mut plan = Plan::default();
    let mut conflicts = Vec::new();
    for (index, resource) in resources.into_iter().enumerate() {
        let key = resource.key();
        let before = stored.get(&key);
        let given = resource.metadata.resource_version.as_deref();
        match check_version(index, &key, given, before) {
            Some(conflict) => conflicts.push(conflict),
            None => plan.add(write(resource, before, revision, now), before),
        }
    }
    if conflicts.is_empty() {
        Ok(plan)
    } else {
        Err(conflicts)
    }
}

/// The conflict, where a `resourceVersion` is given and is not the stored one.
pub(super) fn check_version(
    index: usize,
    key: &ResourceKey,
    given: Option<&str>,
    stored: Option<&Arc<Resource>>,
) -> Option<Conflict> {
    let given = given?;
    let stored = stored.and_then(|resource| resource.metadata.resource_version.as_deref());
    (stored != Some(given)).then(|| Conflict {
        index,
        key: key.clone(),
        given: given.to_owned(),
        stored: stored.map(str::to_owned),
    })
}

impl Plan {
    fn add(&mut self, applied: Applied, before: Option<&Arc<Resource>>) {
        let kind = match applied.outcome {
            Outcome::Created => Some(ChangeKind::Added),
            Outcome::Configured => Some(ChangeKind::Modified),
            Outcome::Unchanged => None,
        };
        if let Some(kind) = kind {
            self.changes.push(Change {
                kind,
                resource: Arc::clone(&applied.resource),
                previous: before.cloned(),
            });
        }
        self.results.push(applied);
    }
}

fn write(
    mut resource: Resource,
    before: Option<&Arc<Resource>>,
    revision: u64,
    now: Timestamp,
) -> Applied {
    resource.status = None;
    let metadata = &mut resource.metadata;
    let outcome = match before {
        None => {
            metadata.generation = 1;
            metadata.creation_timestamp = Some(now);
            metadata.uid = Some(uuid::Uuid::new_v4().to_string());
            Outcome::Created
        }
        Some(before) => {
            let same_spec = before.spec == resource.spec;
            if same_spec
                && before.metadata.labels == metadata.labels
                && before.metadata.annotations == metadata.annotations
            {
                return Applied {
                    resource: Arc::clone(before),
                    outcome: Outcome::Unchanged,
                    warnings: Vec::new(),
                };
            }
            metadata.generation = before.metadata.generation + u64::from(!same_spec);
            metadata.creation_timestamp = before.metadata.creation_timestamp;
            metadata.uid.clone_from(&before.metadata.uid);
            Outcome::Configured
        }
    };
    metadata.resource_version = Some(revision.to_string());
    Applied {
        resource: Arc::new(resource),
        outcome,
        warnings: Vec::new(),
    }
}

/// What there would be after a write: the stored services under those of the write.
#[derive(Debug)]
pub(super) struct After<'a> {
    written: BTreeMap<ResourceKey, &'a Resource>,
    stored: &'a Resources,
    trust_domain: &'a str,
}

impl<'a> After<'a> {
    pub(super) fn new(
        stored: &'a Resources,
        written: &'a [Resource],
        trust_domain: &'a str,
    ) -> Self {
        let written = written
            .iter()
            .map(|resource| (resource.key(), resource))
            .collect();
        Self {
            written,
            stored,
            trust_domain,
        }
    }
}

impl View for After<'_> {
    fn services(&self) -> Box<dyn Iterator<Item = &Resource> + '_> {
        let first = ResourceKey::service("", "");
        let stored = self
            .stored
            .range(first..)
            .take_while(|(key, _)| key.kind == Kind::Service)
            .filter(|(key, _)| !self.written.contains_key(*key))
            .map(|(_, resource)| resource.as_ref());
        let written = self.written.values().copied();
        Box::new(stored.chain(written.filter(|resource| resource.kind() == Kind::Service)))
    }

    fn service(&self, key: &ResourceKey) -> Option<&ServiceSpec> {
        let stored = || self.stored.get(key).map(AsRef::as_ref);
        self.written.get(key).copied().or_else(stored)?.as_service()
    }

    fn trust_domain(&self) -> Option<&str> {
        Some(self.trust_domain)
    }
}
