//! What every resource has.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Labels and annotations.
pub type Labels = BTreeMap<String, String>;

/// Name and bookkeeping of a resource. What the control plane sets is ignored on the way in, except `resource_version`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectMeta {
    /// DNS label, at most 63 characters.
    pub name: String,
    /// Empty for kinds that have none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// For selecting resources.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// For notes of people and programs.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub annotations: Labels,
    /// The store's revision at the last change. Given on a write: the write is refused where the stored one differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// Counts changes of the spec, from 1. 0: not stored yet.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generation: u64,
    /// When it was first stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<jiff::Timestamp>,
    /// Another one for each resource that ever had this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Whether a value need not be written.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
