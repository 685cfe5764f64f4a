use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use super::ca;
use crate::ca::init::{CaMode, Source, init};
use crate::ca::load::load;
use crate::ca::{CaError, files};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn secrets_are_readable_by_the_owner_alone() {
    let (directory, _) = ca(CaMode::Intermediate);
    let path = directory.path().join("ca");
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join("ca.key")), 0o600);
    assert_eq!(mode(&path.join("root.key")), 0o600);
}

#[test]
fn a_root_that_signs_has_no_second_key() {
    let (directory, ca) = ca(CaMode::Root);
    assert!(!directory.path().join("ca/root.key").exists());
    assert!(ca.intermediates.is_empty());
    let root = std::fs::read(directory.path().join("ca/root.crt")).unwrap();
    assert_eq!(
        root,
        std::fs::read(directory.path().join("ca/ca.crt")).unwrap()
    );
}

#[test]
fn loads_the_same_ca_again() {
    let (directory, ca) = ca(CaMode::Intermediate);
    let again = load(&directory.path().join("ca"), Some("outrigger.local"), DAY).unwrap();
    assert_eq!(again.fingerprint(), ca.fingerprint());
    assert_eq!(again.intermediates.len(), 1);
    assert_eq!(again.trust_domain(), "outrigger.local");
}

#[test]
fn another_trust_domain_is_refused() {
    let (directory, _) = ca(CaMode::Root);
    let error = load(&directory.path().join("ca"), Some("elsewhere.local"), DAY).unwrap_err();
    assert!(matches!(error, CaError::TrustDomain { .. }), "{error}");
    assert!(error.to_string().contains("outrigger.local"), "{error}");
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let (one, _) = ca(CaMode::Root);
    let (other, _) = ca(CaMode::Root);
    std::fs::copy(one.path().join("ca/ca.key"), other.path().join("ca/ca.key")).unwrap();
    let error = load(&other.path().join("ca"), None, DAY).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("is not that of the first certificate"),
        "{error}"
    );
}

#[test]
fn a_chain_to_another_root_is_refused() {
    let (one, _) = ca(CaMode::Intermediate);
    let (other, _) = ca(CaMode::Intermediate);
    std::fs::copy(
        one.path().join("ca/root.crt"),
        other.path().join("ca/root.crt"),
    )
    .unwrap();
    let error = load(&other.path().join("ca"), None, DAY).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("does not verify against root.crt"),
        "{error}"
    );
}

#[test]
fn damaged_and_missing_files_are_named() {
    let (directory, _) = ca(CaMode::Root);
    let path = directory.path().join("ca");
    std::fs::write(path.join("ca.key"), "no key").unwrap();
    let error = load(&path, None, DAY).unwrap_err().to_string();
    assert!(error.contains("ca.key: there is no private key"), "{error}");
    std::fs::remove_file(path.join("ca.crt")).unwrap();
    let error = load(&path, None, DAY).unwrap_err().to_string();
    assert!(
        error.contains("cannot read") && error.contains("ca.crt"),
        "{error}"
    );
    assert!(!error.contains('\n'));
}

#[test]
fn brings_its_own_certificate_and_key() {
    let (given, theirs) = ca(CaMode::Intermediate);
    let given = given.path().join("ca");
    let directory = tempfile::tempdir().unwrap();
    let source = Source::Given {
        certificate: given.join("ca.crt"),
        key: given.join("ca.key"),
        root: Some(given.join("root.crt")),
    };
    let path = directory.path().join("ca");
    init(&path, "outrigger.local", &source).unwrap();
    let ours = load(&path, None, DAY).unwrap();
    assert_eq!(ours.fingerprint(), theirs.fingerprint());
    assert_eq!(mode(&path.join("ca.key")), 0o600);
}

#[test]
fn given_files_that_do_not_fit_leave_no_ca_behind() {
    let (given, _) = ca(CaMode::Intermediate);
    let given = given.path().join("ca");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca");
    // Without the root, the intermediate would have to be one.
    let source = Source::Given {
        certificate: given.join("ca.crt"),
        key: given.join("root.key"),
        root: None,
    };
    init(&path, "outrigger.local", &source).unwrap_err();
    assert!(!path.exists());
}

#[test]
fn a_half_made_ca_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let building = directory.path().join("ca.new");
    files::create_dir(&building).unwrap();
    std::fs::write(building.join("ca.key"), "torn").unwrap();
    let path = directory.path().join("ca");
    init(&path, "outrigger.local", &Source::Generate(CaMode::Root)).unwrap();
    load(&path, None, DAY).unwrap();
    assert!(!building.exists());
}
