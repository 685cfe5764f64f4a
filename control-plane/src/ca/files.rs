//! Files that must not be torn by a crash and must not be readable by others.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Mode of files that hold secrets.
pub const SECRET: u32 = 0o600;
/// Mode of files that anyone may read.
pub const PUBLIC: u32 = 0o644;
/// Mode of directories that hold secrets.
pub const SECRET_DIR: u32 = 0o700;

/// Makes a directory and its parents with mode 0700. One that exists keeps its mode.
pub fn create_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(SECRET_DIR)
        .create(path)
}

/// Replaces a file in one step: after a crash at any moment the old content is there, or the new one.
pub fn write_atomic(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no file name"))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{:016x}", rand::random::<u64>()));
    let temporary = path.with_file_name(temporary);
    let written = write_new(&temporary, content, mode).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        // The write's error is what matters; a left-over temporary file does no harm.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sync_parent(path)
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Makes a rename in the parent directory of `path` survive a power cut.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// The permission bits of a file that others than its owner have and should not, e.g. `0o040`. 0: none.
pub fn excess_permission(path: &Path) -> io::Result<u32> {
    Ok(fs::metadata(path)?.mode() & 0o077)
}
