//! Why a store refused something.

use std::fmt;
use std::path::PathBuf;

use crate::model::{IndexedProblem, ResourceKey};

/// Why a store did not do what it was asked to. Nothing was changed, unless [`StoreError::Disk`] says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such resource.
    #[error("there is no {0}")]
    NotFound(ResourceKey),
    /// A `resourceVersion` was given and is not the stored one.
    #[error("{}", join(.0))]
    Conflict(Vec<Conflict>),
    /// The resources do not fit together or with those there are.
    #[error("{}", .0.iter().map(|found| found.problem.to_string()).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<IndexedProblem>),
    /// Users do not write this kind, or the control plane does not.
    #[error(
        "{0} cannot be written this way: workloads are written by the control plane only, from what sidecars announce"
    )]
    NotWritable(ResourceKey),
    /// The disk, or the file on it, failed. Whether the write was kept is not known; the store refuses further writes.
    #[error("the store's file failed: {0}")]
    Disk(#[from] redb::Error),
    /// A stored value cannot be read.
    #[error("the store's file holds something unreadable under {0}: {1}")]
    Unreadable(String, String),
}

fn join(conflicts: &[Conflict]) -> String {
    conflicts
        .iter()
        .map(Conflict::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

/// A resource changed since it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Which of the resources of the write.
    pub index: usize,
    /// Its key.
    pub key: ResourceKey,
    /// The `resourceVersion` of the write.
    pub given: String,
    /// The stored one; `None` where there is no such resource.
    pub stored: Option<String>,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, given, .. } = self;
        match &self.stored {
            Some(stored) => write!(
                f,
                "{key} has changed: its resourceVersion is {stored}, not {given}; read it again and repeat the change"
            ),
            None => write!(
                f,
                "{key} does not exist (any more), but the resourceVersion {given} was given; leave it out to create the resource"
            ),
        }
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{0} is in use by another process; only one control plane can use a data directory")]
    InUse(PathBuf),
    /// The file is something else.
    #[error("{0} is not a store of Outrigger; move it away to start with an empty one")]
    Foreign(PathBuf),
    /// The file was made by a newer version.
    #[error("{path} has the format {found}, from a newer version; this one reads {known}")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The newest format that this version reads.
        known: u64,
    },
    /// The file is damaged.
    #[error(
        "{path} is damaged: {reason}; restore it from a copy, or move it away to start with an empty one"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file cannot be opened, read or written.
    #[error("cannot open {path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}
