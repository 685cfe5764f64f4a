//! `outriggerctl`, run as a user runs it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use serde_json::Value;

use crate::children::Children;

/// The program and its context.
#[derive(Debug, Clone)]
pub struct Ctl {
    pub children: Arc<Children>,
    pub binary: PathBuf,
    pub context: PathBuf,
    /// Where it runs: file names are relative to this.
    pub directory: PathBuf,
}

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    /// When it was started, and when it had ended: for `apply`, when the control plane had acknowledged.
    pub started: Instant,
    pub ended: Instant,
}

impl Ctl {
    /// Runs it, whatever it comes to.
    ///
    /// # Errors
    /// Where it cannot be run.
    pub async fn run(&self, arguments: &[&str]) -> anyhow::Result<Outcome> {
        let mut command = std::process::Command::new(&self.binary);
        command
            .arg("--context")
            .arg(&self.context)
            .args(arguments)
            .current_dir(&self.directory);
        self.children.show(&command);
        let started = Instant::now();
        let output = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .output()
            .await;
        let output = output.with_context(|| format!("cannot run {}", self.binary.display()))?;
        Ok(Outcome {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            started,
            ended: Instant::now(),
        })
    }

    /// Runs it.
    ///
    /// # Errors
    /// Where it does not end with 0, with what it said.
    pub async fn succeed(&self, arguments: &[&str]) -> anyhow::Result<Outcome> {
        let outcome = self.run(arguments).await?;
        anyhow::ensure!(
            outcome.code == Some(0),
            "outriggerctl {} failed: {}",
            arguments.join(" "),
            outcome.stderr.trim(),
        );
        Ok(outcome)
    }

    /// Runs it with `-o json`.
    ///
    /// # Errors
    /// Where it fails, or prints no JSON.
    pub async fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let outcome = self.succeed(&[arguments, &["-o", "json"]].concat()).await?;
        serde_json::from_str(&outcome.stdout)
            .with_context(|| format!("outriggerctl {} printed no JSON", arguments.join(" ")))
    }
}
