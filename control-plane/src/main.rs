//! The program `outrigger-control-plane`.

use std::process::ExitCode;

use clap::Parser as _;
use outrigger_control_plane::app::ControlPlane;
use outrigger_control_plane::config::{Config, LogFormat};
use outrigger_proxy::telemetry::logging;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Usage errors end the program with 2 in here.
    let config = Config::parse();
    let result = start_logging(&config).and_then(|()| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        runtime.block_on(run(&config))
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("outrigger-control-plane: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_logging(config: &Config) -> anyhow::Result<()> {
    let filter = logging::parse(&config.log_level)?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    match config.log_format {
        LogFormat::Text => registry.with(lines.with_ansi(false)).init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).init(),
    }
    Ok(())
}

async fn run(config: &Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut control_plane = ControlPlane::start(config).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        error = control_plane.failed() => return Err(error),
    }
    tracing::info!("stopping");
    control_plane.stop().await;
    Ok(())
}
