//! The store's file: four tables of a redb database.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `format`, `revision-limit` | a number |
//! | `resources` | `<kind>/<namespace>/<name>` | version byte, JSON |
//! | `tokens` | id | version byte, JSON |
//! | `budgets` | window's end, digest | a number, see [`budgets`](super::budgets) |

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;

use redb::{Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, StorageError};
use redb::{TableDefinition, TableError, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::plan::Resources;
use super::{Change, ChangeKind, OpenError, StoreError};
use crate::model::{Resource, ResourceKey};

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const RESOURCES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("resources");
const TOKENS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tokens");

const FORMAT_KEY: &str = "format";
const LIMIT_KEY: &str = "revision-limit";

/// Layout of the tables.
const FORMAT: u64 = 1;
/// First byte of each value: how the rest is written. 1: JSON.
const VALUE_VERSION: u8 = 1;
/// Revisions are reserved on disk in steps of this, so that none is given out twice although workloads are written
/// without waiting for the disk. A restart skips what was left of the last step.
const REVISION_STEP: u64 = 10_000;
/// All resources are in memory anyway; redb's default cache is 1 GiB.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// An open file.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) database: Database,
}

/// What an open file holds.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) disk: Disk,
    pub(super) resources: Resources,
    /// The last revision that may have been given out.
    pub(super) revision: u64,
    pub(super) limit: u64,
}

impl Disk {
    /// Opens the file, makes it if need be, and reads all resources.
    pub(super) fn open(path: &Path) -> Result<Loaded, OpenError> {
        // Where its list of free pages is damaged redb panics before one can ask it for a check.
        std::panic::catch_unwind(|| Self::open_unguarded(path)).unwrap_or_else(|_| {
            Err(OpenError::Damaged {
                path: path.to_owned(),
                reason: "its structure is broken".to_owned(),
            })
        })
    }

    fn open_unguarded(path: &Path) -> Result<Loaded, OpenError> {
        let database = create(path)?;
        let disk = Self { database };
        let revision = disk.check_format(path)?;
        let limit = revision + REVISION_STEP;
        let damaged = |error: StoreError| OpenError::Damaged {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        disk.initialise(limit).map_err(damaged)?;
        let resources = disk.load().map_err(damaged)?;
        Ok(Loaded {
            disk,
            resources,
            revision,
            limit,
        })
    }

    /// The revision limit of an existing store; 0 for an empty file.
    fn check_format(&self, path: &Path) -> Result<u64, OpenError> {
        let foreign = || OpenError::Foreign(path.to_owned());
        let damaged = |error: redb::Error| OpenError::Damaged {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        let transaction = self
            .database
            .begin_read()
            .map_err(|error| damaged(error.into()))?;
        let meta = match transaction.open_table(META) {
            Ok(meta) => meta,
            Err(TableError::TableDoesNotExist(_)) => {
                let empty = transaction
                    .list_tables()
                    .map_err(|error| damaged(error.into()))?
                    .next()
                    .is_none();
                return if empty { Ok(0) } else { Err(foreign()) };
            }
            Err(TableError::Storage(error)) => return Err(damaged(error.into())),
            Err(_) => return Err(foreign()),
        };
        let read = |key| {
            meta.get(key)
                .map(|value| value.map(|value| value.value()))
                .map_err(|error| damaged(error.into()))
        };
        match read(FORMAT_KEY)? {
            Some(FORMAT) => read(LIMIT_KEY)?.ok_or_else(foreign),
            Some(found) => Err(OpenError::Newer {
                path: path.to_owned(),
                found,
                known: FORMAT,
            }),
            None => Err(foreign()),
        }
    }

    fn initialise(&self, limit: u64) -> Result<(), StoreError> {
        self.write(Durability::Immediate, |transaction| {
            transaction.open_table(RESOURCES)?;
            transaction.open_table(TOKENS)?;
            let mut meta = transaction.open_table(META)?;
            meta.insert(FORMAT_KEY, FORMAT)?;
            meta.insert(LIMIT_KEY, limit)?;
            Ok(())
        })
    }

    fn load(&self) -> Result<Resources, StoreError> {
        let transaction = self.database.begin_read().map_err(redb::Error::from)?;
        let table = transaction
            .open_table(RESOURCES)
            .map_err(redb::Error::from)?;
        let mut resources = Resources::new();
        for entry in table.iter().map_err(redb::Error::from)? {
            let (key, value) = entry.map_err(redb::Error::from)?;
            let resource: Resource = decode(key.value(), value.value())?;
            if disk_key(&resource.key()) != key.value() {
                let reason = format!("it is {}", resource.key());
                return Err(StoreError::Unreadable(key.value().to_owned(), reason));
            }
            resources.insert(resource.key(), Arc::new(resource));
        }
        Ok(resources)
    }

    /// Writes changes in one transaction, and reserves revisions up to `limit`.
    pub(super) fn commit(
        &self,
        changes: &[Change],
        limit: u64,
        durability: Durability,
    ) -> Result<(), StoreError> {
        self.write(durability, |transaction| {
            transaction.open_table(META)?.insert(LIMIT_KEY, limit)?;
            let mut table = transaction.open_table(RESOURCES)?;
            for change in changes {
                let key = disk_key(&change.resource.key());
                match change.kind {
                    ChangeKind::Added | ChangeKind::Modified => {
                        table.insert(key.as_str(), encode(&key, &*change.resource)?.as_slice())?;
                    }
                    ChangeKind::Deleted => {
                        table.remove(key.as_str())?;
                    }
                }
            }
            Ok(())
        })
    }

    /// Makes everything durable that was committed without waiting.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        self.write(Durability::Immediate, |_| Ok(()))
    }

    pub(super) fn get_token(&self, id: &str) -> Result<Option<Value>, StoreError> {
        let transaction = self.database.begin_read().map_err(redb::Error::from)?;
        let table = transaction.open_table(TOKENS).map_err(redb::Error::from)?;
        let value = table.get(id).map_err(redb::Error::from)?;
        value.map(|value| decode(id, value.value())).transpose()
    }

    pub(super) fn list_tokens(&self) -> Result<Vec<(String, Value)>, StoreError> {
        let transaction = self.database.begin_read().map_err(redb::Error::from)?;
        let table = transaction.open_table(TOKENS).map_err(redb::Error::from)?;
        let mut tokens = Vec::new();
        for entry in table.iter().map_err(redb::Error::from)? {
            let (id, value) = entry.map_err(redb::Error::from)?;
            tokens.push((id.value().to_owned(), decode(id.value(), value.value())?));
        }
        Ok(tokens)
    }

    pub(super) fn put_token(&self, id: &str, token: &Value) -> Result<(), StoreError> {
        self.write(Durability::Immediate, |transaction| {
            let mut table = transaction.open_table(TOKENS)?;
            table.insert(id, encode(id, token)?.as_slice())?;
            Ok(())
        })
    }

    /// The caller holds the lock of all writes.
    pub(super) fn update_token(
        &self,
        id: &str,
        change: &mut dyn FnMut(&mut Value) -> bool,
    ) -> Result<Option<Value>, StoreError> {
        let Some(mut token) = self.get_token(id)? else {
            return Ok(None);
        };
        if change(&mut token) {
            self.put_token(id, &token)?;
        }
        Ok(Some(token))
    }

    pub(super) fn delete_token(&self, id: &str) -> Result<bool, StoreError> {
        self.write(Durability::Immediate, |transaction| {
            let mut table = transaction.open_table(TOKENS)?;
            let found = table.remove(id)?.is_some();
            Ok(found)
        })
    }

    pub(super) fn write<T>(
        &self,
        durability: Durability,
        work: impl FnOnce(&WriteTransaction) -> Result<T, WriteError>,
    ) -> Result<T, StoreError> {
        let mut transaction = self.database.begin_write().map_err(redb::Error::from)?;
        transaction
            .set_durability(durability)
            .map_err(redb::Error::from)?;
        let result = work(&transaction).map_err(|error| match error {
            WriteError::Disk(error) => StoreError::Disk(error),
            WriteError::Store(error) => error,
        })?;
        transaction.commit().map_err(redb::Error::from)?;
        Ok(result)
    }
}

/// The limit to reserve so that `revision` may be given out.
pub(super) fn reserve(revision: u64, limit: u64) -> u64 {
    if revision <= limit {
        limit
    } else {
        revision + REVISION_STEP
    }
}

/// Lets `?` take both redb's errors and ours within a transaction.
pub(super) enum WriteError {
    Disk(redb::Error),
    Store(StoreError),
}

impl From<TableError> for WriteError {
    fn from(error: TableError) -> Self {
        Self::Disk(error.into())
    }
}

impl From<StorageError> for WriteError {
    fn from(error: StorageError) -> Self {
        Self::Disk(error.into())
    }
}

impl From<StoreError> for WriteError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn create(path: &Path) -> Result<Database, OpenError> {
    let io = |error| OpenError::Io {
        path: path.to_owned(),
        error,
    };
    let existed = path.exists();
    let file = open_private(path).map_err(io)?;
    let result = Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create_file(file);
    let mut database = result.map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse(path.to_owned()),
        // redb says so where the file does not begin with its magic number.
        DatabaseError::Storage(StorageError::Io(error))
            if error.kind() == io::ErrorKind::InvalidData =>
        {
            OpenError::Foreign(path.to_owned())
        }
        DatabaseError::Storage(StorageError::Io(error)) => io(error),
        error => OpenError::Damaged {
            path: path.to_owned(),
            reason: error.to_string(),
        },
    })?;
    check_integrity(&mut database, path)?;
    if !existed {
        // The new file's name is durable only with its directory.
        if let Some(parent) = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            File::open(parent)
                .and_then(|directory| directory.sync_all())
                .map_err(io)?;
        }
    }
    Ok(database)
}

/// redb trusts what it reads, and dies of it where a disk or a person has changed the file. All of it is read now in any
/// case, so its checksums cost little.
fn check_integrity(database: &mut Database, path: &Path) -> Result<(), OpenError> {
    match database.check_integrity() {
        Ok(true) => Ok(()),
        Ok(false) => {
            let path = path.display();
            tracing::warn!(%path, "the store's file was damaged and has been repaired; the last writes may be lost");
            Ok(())
        }
        Err(error) => Err(OpenError::Damaged {
            path: path.to_owned(),
            reason: error.to_string(),
        }),
    }
}

/// Tokens' hashes are in the file: others shall not read it.
fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn disk_key(key: &ResourceKey) -> String {
    format!("{}/{}/{}", key.kind.lower(), key.namespace, key.name)
}

fn encode(key: &str, value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![VALUE_VERSION];
    serde_json::to_writer(&mut bytes, value)
        .map_err(|error| StoreError::Unreadable(key.to_owned(), error.to_string()))?;
    Ok(bytes)
}

fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, StoreError> {
    let unreadable = |reason: String| StoreError::Unreadable(key.to_owned(), reason);
    match bytes.split_first() {
        Some((&VALUE_VERSION, json)) => {
            serde_json::from_slice(json).map_err(|error| unreadable(error.to_string()))
        }
        Some((version, _)) => Err(unreadable(format!(
            "its version is {version}; known is {VALUE_VERSION}"
        ))),
        None => Err(unreadable("it is empty".to_owned())),
    }
}
