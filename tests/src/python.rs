//! Virtual environments for tests against software from Python's package index.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::binaries::{profile_directory, workspace};

/// The interpreter of an environment that has what `tests/<name>/requirements.txt` asks for. Made on first use in
/// `target/<name>-venv`; `OUTRIGGER_<NAME>_PYTHON` names another interpreter that has it all.
///
/// # Errors
/// Why there is none: a reason to skip.
pub fn environment(name: &str) -> Result<PathBuf, String> {
    if let Some(python) = std::env::var_os(format!("OUTRIGGER_{}_PYTHON", name.to_uppercase())) {
        return Ok(python.into());
    }
    let target = profile_directory()
        .parent()
        .map(Path::to_path_buf)
        .ok_or("there is no target directory")?;
    let venv = target.join(format!("{name}-venv"));
    // Several test processes may want it at once.
    let lock = File::create(target.join(format!("{name}-venv.lock")))
        .map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    let requirements = directory(name).join("requirements.txt");
    let wanted = std::fs::read_to_string(&requirements).map_err(|error| error.to_string())?;
    // Written last: a directory without it is one whose making was interrupted.
    let done = venv.join("requirements.txt");
    let python = venv.join("bin/python");
    if std::fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&venv))?;
    run(Command::new(&python)
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-r",
        ])
        .arg(&requirements))?;
    std::fs::write(&done, wanted).map_err(|error| error.to_string())?;
    Ok(python)
}

/// `tests/<name>`, where the scripts are.
pub fn directory(name: &str) -> PathBuf {
    workspace().join("tests").join(name)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let last = text
        .lines()
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or_default();
    Err(format!(
        "{:?} {}: {last}",
        command.get_program(),
        output.status
    ))
}
