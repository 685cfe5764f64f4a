#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use redb::{Database, TableDefinition};

use super::{TRUST_DOMAIN, apply, service, store};
use crate::store::{OpenError, RedbStore};

fn refused(path: &Path) -> OpenError {
    RedbStore::open(path, TRUST_DOMAIN).unwrap_err()
}

#[test]
fn other_files_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    for content in [&b"#!/bin/sh\necho hello\n"[..], &[0; 8192], &[0xff; 100]] {
        fs::write(&path, content).unwrap();
        let error = refused(&path);
        assert!(matches!(error, OpenError::Foreign(_)), "{error}");
        assert_eq!(fs::read(&path).unwrap(), content, "it is left as it is");
    }
    fs::remove_file(&path).unwrap();
    let other = Database::create(&path).unwrap();
    let transaction = other.begin_write().unwrap();
    transaction
        .open_table(TableDefinition::<&str, u64>::new("things"))
        .unwrap();
    transaction.commit().unwrap();
    drop(other);
    let error = refused(&path);
    assert_eq!(
        error.to_string(),
        format!(
            "{} is not a store of Outrigger; move it away to start with an empty one",
            path.display()
        )
    );
}

#[test]
fn a_file_in_use_is_refused() {
    let (directory, _store) = store();
    let error = refused(&directory.path().join("store.redb"));
    assert!(matches!(error, OpenError::InUse(_)), "{error}");
    assert!(
        error.to_string().contains("is in use by another process"),
        "{error}"
    );
}

#[test]
fn a_file_that_cannot_be_opened_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let error = refused(&directory.path().join("missing/store.redb"));
    assert!(
        error
            .to_string()
            .ends_with("No such file or directory (os error 2)"),
        "{error}"
    );
    assert!(matches!(refused(directory.path()), OpenError::Io { .. }));
}

#[test]
fn a_damaged_file_is_refused_and_nothing_panics() {
    let (directory, store) = store();
    for index in 0..200 {
        apply(&store, service(&format!("s{index}"), 80));
    }
    drop(store);
    let path = directory.path().join("store.redb");
    let good = fs::read(&path).unwrap();
    // Cut short.
    for length in [1, 100, 4096, good.len() / 2, good.len() - 1] {
        fs::write(&path, &good[..length]).unwrap();
        let error = refused(&path);
        assert!(
            matches!(
                error,
                OpenError::Damaged { .. } | OpenError::Foreign(_) | OpenError::Io { .. }
            ),
            "{length}: {error}"
        );
    }
    // A stored value changed underneath.
    let position = good
        .windows(8)
        .position(|window| window == b"s7.model")
        .unwrap();
    let mut bad = good;
    bad[position] = 0xff;
    fs::write(&path, &bad).unwrap();
    if let Err(error) = RedbStore::open(&path, TRUST_DOMAIN) {
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    }
}

/// Wherever a byte is wrong: the file can be used, or is refused.
#[test]
fn no_wrong_byte_makes_a_panic() {
    let (directory, store) = store();
    for index in 0..20 {
        apply(&store, service(&format!("s{index}"), 80));
    }
    drop(store);
    let path = directory.path().join("store.redb");
    let good = fs::read(&path).unwrap();
    let used: Vec<usize> = (0..good.len())
        .filter(|position| good[*position] != 0)
        .collect();
    for position in used.iter().step_by(used.len() / 60) {
        let mut bad = good.clone();
        bad[*position] ^= 0x55;
        fs::write(&path, &bad).unwrap();
        match RedbStore::open(&path, TRUST_DOMAIN) {
            Ok(store) => {
                apply(&store, service("s0", 81));
            }
            Err(error) => assert!(!matches!(error, OpenError::InUse(_)), "{error}"),
        }
    }
}

#[test]
fn values_and_files_of_newer_versions_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let edit = |work: &dyn Fn(&redb::WriteTransaction)| {
        let database = Database::create(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        work(&transaction);
        transaction.commit().unwrap();
    };
    drop(RedbStore::open(&path, TRUST_DOMAIN).unwrap());
    let resources = TableDefinition::<&str, &[u8]>::new("resources");
    edit(&|transaction| {
        transaction
            .open_table(resources)
            .unwrap()
            .insert("service/default/a", &b"\x02{}"[..])
            .unwrap();
    });
    let error = refused(&path).to_string();
    assert!(
        error.contains("service/default/a: its version is 2; known is 1"),
        "{error}"
    );
    edit(&|transaction| {
        transaction
            .open_table(resources)
            .unwrap()
            .remove("service/default/a")
            .unwrap();
        transaction
            .open_table(TableDefinition::<&str, u64>::new("meta"))
            .unwrap()
            .insert("format", 9)
            .unwrap();
    });
    let error = refused(&path).to_string();
    assert!(
        error.ends_with("has the format 9, from a newer version; this one reads 1"),
        "{error}"
    );
}

#[cfg(unix)]
#[test]
fn others_cannot_read_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let (directory, _store) = store();
    let mode = fs::metadata(directory.path().join("store.redb"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}
