//! The programs that the quickstart starts: built by cargo where it runs us, otherwise those beside our own file.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

/// Paths of the programs.
#[derive(Debug, Clone)]
pub struct Binaries {
    pub control_plane: PathBuf,
    pub ctl: PathBuf,
    pub proxy: PathBuf,
    pub model_server: PathBuf,
}

const NAMES: [&str; 4] = [
    "outrigger-control-plane",
    "outriggerctl",
    "outrigger-proxy",
    "model-server",
];

impl Binaries {
    /// Builds them where cargo runs us, and finds them beside our own file.
    ///
    /// # Errors
    /// Where the build fails, or a program is missing.
    pub fn find() -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("cannot tell where this program is")?;
        let directory = own.parent().context("this program is in no directory")?;
        if let Some(cargo) = std::env::var_os("CARGO") {
            build(&cargo, directory)?;
        }
        let missing: Vec<&str> = NAMES
            .into_iter()
            .filter(|name| !directory.join(name).is_file())
            .collect();
        anyhow::ensure!(
            missing.is_empty(),
            "{} is not in {}; run `cargo run --release --bin quickstart`, which builds what it needs",
            missing.join(", "),
            directory.display(),
        );
        let [control_plane, ctl, proxy, model_server] = NAMES.map(|name| directory.join(name));
        Ok(Self {
            control_plane,
            ctl,
            proxy,
            model_server,
        })
    }
}

/// Builds into the directory that our own file is in.
///
/// The whole workspace is selected, as it was for `cargo run --bin quickstart`: with another selection, cargo would unify
/// the dependencies' features differently and compile them a second time.
fn build(cargo: &OsStr, directory: &Path) -> anyhow::Result<()> {
    let profile = match directory.file_name().and_then(OsStr::to_str) {
        Some("debug") => "dev",
        Some(profile) => profile,
        None => anyhow::bail!("{} is no directory of a cargo profile", directory.display()),
    };
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the examples are in no workspace")?;
    let mut command = Command::new(cargo);
    command
        .current_dir(workspace)
        .args(["build", "--profile", profile]);
    command.arg("--target-dir").arg(
        directory
            .parent()
            .context("the profile's directory has no parent")?,
    );
    for name in NAMES {
        command.args(["--bin", name]);
    }
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", cargo.display()))?;
    anyhow::ensure!(
        status.success(),
        "the programs could not be built: {} ended with {status}",
        cargo.display()
    );
    Ok(())
}
