#![allow(clippy::unwrap_used)]
use std::os::unix::fs::PermissionsExt as _;

use super::{FILE, LoadError, load, save};
use crate::tls::test_ca::TestCa;

#[test]
fn what_is_saved_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("new/data");
    assert!(load(&data_dir).unwrap().is_none());
    let identity = TestCa::new().identity("spiffe://outrigger.local/ns/default/sa/chat");
    save(&data_dir, &identity).unwrap();
    let loaded = load(&data_dir).unwrap().unwrap();
    assert_eq!(loaded.id, identity.id);
    assert_eq!(loaded.key, identity.key);
    assert_eq!(loaded.chain, identity.chain);
    assert_eq!(loaded.roots, identity.roots);
    let difference = identity.issued_at.duration_since(loaded.issued_at).unwrap();
    assert!(difference.as_secs() == 0, "whole seconds are kept");
    assert!(!loaded.is_expired());
    crate::tls::check(&loaded).unwrap();

    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data_dir.join(FILE)), 0o600);
    assert_eq!(mode(&data_dir), 0o700);
    save(&data_dir, &identity).unwrap();
    assert_eq!(std::fs::read_dir(&data_dir).unwrap().count(), 1);
}

#[test]
fn a_damaged_file_is_an_error_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let identity = TestCa::new().identity("spiffe://outrigger.local/ns/default/sa/chat");
    save(dir.path(), &identity).unwrap();
    let path = dir.path().join(FILE);
    let good = std::fs::read_to_string(&path).unwrap();
    let issued = format!("\"issued_at\": {}", super::seconds(identity.issued_at));
    for bad in [
        String::new(),
        good[..good.len() / 2].to_owned(),
        good.replace("\"version\": 1", "\"version\": 2"),
        good.replace(&issued, "\"issued_at\": 18446744073709551615"),
        good.replace("\"chain\": [", "\"chain\": [\"AAAA\","),
    ] {
        assert_ne!(bad, good);
        std::fs::write(&path, bad).unwrap();
        assert!(matches!(load(dir.path()), Err(LoadError::Damaged { .. })));
    }
}
