use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The path of one of the workspace's programs, built from the sources as they are.
///
/// Cargo gives an integration test only the binaries of its own package. So the first call builds those of the workspace
/// with the profile and the target directory that the test itself was built with. Where `OUTRIGGER_BIN_DIR` is set, that
/// directory is taken as it is, e.g. to test a release.
pub fn binary(name: &str) -> PathBuf {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| match std::env::var_os("OUTRIGGER_BIN_DIR") {
        Some(directory) => workspace().join(directory),
        None => build(),
    });
    let path = directory.join(name);
    assert!(path.is_file(), "there is no {}", path.display());
    path
}

/// The workspace's root.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate is a member of the workspace")
}

/// `<target directory>/<profile>`, which holds the running test in `deps`, or the running benchmark.
pub(crate) fn profile_directory() -> PathBuf {
    let exe = std::env::current_exe().expect("Linux knows the running program");
    let directory = exe.parent().expect("a program is in a directory");
    let directory = if directory.ends_with("deps") {
        directory.parent().unwrap_or(directory)
    } else {
        directory
    };
    directory.to_path_buf()
}

fn build() -> PathBuf {
    let directory = profile_directory();
    let target = directory
        .parent()
        .expect("the profile's directory is in the target directory");
    let profile = match directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    // Several test processes may come here at once. Cargo has a lock of its own; this one keeps its "Blocking waiting
    // for file lock" out of the output.
    let lock = File::create(target.join("outrigger-tests.lock"))
        .expect("the target directory is writable");
    lock.lock().expect("a file on a local disk can be locked");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args([
            "build",
            "--quiet",
            "--workspace",
            "--bins",
            "--profile",
            profile,
        ])
        .arg("--target-dir")
        .arg(target)
        .current_dir(workspace());
    // What `cargo test` says about the tests' package is not true of the packages to build.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_BIN_",
            "CARGO_CRATE_",
        ]
        .iter()
        .any(|start| text.starts_with(start))
        {
            cargo.env_remove(&name);
        }
    }
    let output = cargo
        .output()
        .expect("cargo, which runs the tests, can be run again");
    assert!(
        output.status.success(),
        "the programs to test do not build:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    directory
}
