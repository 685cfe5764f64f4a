//! `quickstart`: a whole mesh on this machine's loopback, real traffic through it, and what happens, shown as it goes.
//!
//! ```text
//! binaries   builds and finds the programs       mesh       control plane, replicas with sidecars, the caller
//! children   processes that never outlive us     ctl        outriggerctl, as a user runs it
//! settings   resources, the form of --backend    tour/      one file for each thing that is shown
//! http       a client and token streams          metrics    reads what Prometheus would read
//! ports      free ones                           terminal   what is printed, and the verdict on each claim
//! ```

mod binaries;
mod children;
mod ctl;
mod http;
mod mesh;
mod metrics;
mod ports;
mod settings;
mod terminal;
mod tour;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use binaries::Binaries;
use children::Children;
use mesh::Mesh;
use settings::Backend;
use terminal::Terminal;

/// Starts an Outrigger mesh on loopback, sends real traffic through it and shows what happens; then stays up until Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "quickstart", version)]
pub struct Flags {
    /// Verify every claim, end everything, and exit with 0 where all hold, otherwise with 1
    #[arg(long)]
    check: bool,
    /// Real model servers (OpenAI API, plain HTTP) behind the sidecars instead of the example's
    #[arg(long = "backend", value_name = "URL", num_args = 1.., value_parser = settings::backend)]
    backends: Vec<Backend>,
    /// Keep logs, identities and the control plane's data in this directory
    #[arg(long, value_name = "DIR")]
    keep_data: Option<PathBuf>,
    /// Show every command that is run
    #[arg(long)]
    verbose: bool,
}

/// Programs get so long to end by themselves before they are killed.
const STOP_LIMIT: Duration = Duration::from_secs(5);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    match run(&flags).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("\nquickstart: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(flags: &Flags) -> anyhow::Result<bool> {
    let mut terminal = Terminal::new();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let binaries = Binaries::find()?;

    // Dropped last: the directory must outlive the programs that write to it.
    let (directory, _temporary) = data_directory(flags)?;
    let children = Arc::new(Children::new(&directory, flags.verbose)?);
    terminal.heading("Outrigger: a service mesh for model serving, on this machine's loopback");

    let everything = async {
        let started = Instant::now();
        let mut mesh = Mesh::start(
            &children,
            &binaries,
            &directory,
            flags.backends.clone(),
            &mut terminal,
        )
        .await?;
        terminal.note(format!(
            "all up after {:.1} s",
            started.elapsed().as_secs_f64()
        ));
        tour::run(&mut mesh, &mut terminal).await?;
        if !flags.check {
            mesh.print_invitation(&mut terminal);
            std::future::pending::<()>().await;
        }
        anyhow::Ok(mesh)
    };
    let ended = tokio::select! {
        ended = everything => Some(ended),
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
    };
    match ended {
        // Interrupted: the mesh was dropped in the middle of what it did, and its programs are told to end here.
        None => {
            let unclean = children.stop_all(STOP_LIMIT).await;
            terminal.subject(if unclean.is_empty() {
                "Everything has ended."
            } else {
                "Everything was ended."
            });
            Ok(!flags.check)
        }
        Some(Err(error)) => {
            let tails = children.tails();
            children.stop_all(STOP_LIMIT).await;
            anyhow::bail!("{error:#}{tails}")
        }
        Some(Ok(mesh)) => {
            let started = Instant::now();
            drop(mesh);
            let unclean = children.stop_all(STOP_LIMIT).await;
            let text = "everything ended cleanly, and no process is left";
            let figure = match unclean.as_slice() {
                [] => format!("after {:.1} s", started.elapsed().as_secs_f64()),
                names => format!("these did not: {}", names.join(", ")),
            };
            terminal.claim(unclean.is_empty(), text, &figure);
            Ok(terminal.verdict())
        }
    }
}

fn data_directory(flags: &Flags) -> anyhow::Result<(PathBuf, Option<tempfile::TempDir>)> {
    if let Some(directory) = &flags.keep_data {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let directory = directory
            .canonicalize()
            .with_context(|| format!("cannot use {}", directory.display()))?;
        return Ok((directory, None));
    }
    let temporary = tempfile::Builder::new()
        .prefix("outrigger-quickstart-")
        .tempdir();
    let temporary = temporary.context("cannot create a temporary directory")?;
    Ok((temporary.path().to_owned(), Some(temporary)))
}
