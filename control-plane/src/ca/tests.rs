#![allow(clippy::unwrap_used)]

mod disk;
mod issue;
mod token;

use super::*;

/// A CA in a fresh directory.
pub(crate) fn ca(mode: init::CaMode) -> (tempfile::TempDir, Ca) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca");
    init::init(&path, "outrigger.local", &init::Source::Generate(mode)).unwrap();
    let ca = load::load(&path, None, Duration::from_secs(24 * 3600)).unwrap();
    (directory, ca)
}
