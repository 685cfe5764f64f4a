//! `model-server`: an OpenAI-compatible server that behaves like an inference engine. See `examples/model-server.md`.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use http::HeaderValue;
use outrigger_examples::api::App;
use outrigger_examples::engine::{BLOCK_TOKENS, Engine, EngineConfig};
use outrigger_examples::faults::{FaultBoard, Faults};
use outrigger_examples::metrics::Metrics;
use outrigger_examples::server::serve;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A model server that behaves like an inference engine: it batches, queues, caches prefixes and takes its time.
#[derive(Debug, Parser)]
#[command(name = "model-server", version)]
struct Flags {
    /// Address to listen on. Port 0 takes a free one; the address is printed.
    #[arg(long, default_value = "127.0.0.1:9001")]
    listen: SocketAddr,
    /// Name of this replica, in the response header x-model-server.
    #[arg(long, default_value = "model-server", value_parser = header_value)]
    name: HeaderValue,
    /// Name under which the model is served; may be given several times.
    #[arg(long = "model", default_value = "tiny-chat")]
    models: Vec<String>,
    /// Sequences that run at the same time.
    #[arg(long, default_value_t = 8, value_parser = positive)]
    max_batch: usize,
    /// Requests that wait at most; beyond it 429.
    #[arg(long, default_value_t = 64)]
    max_queue: usize,
    /// Prompt tokens computed per second; 0: at once.
    #[arg(long, default_value_t = 20_000.0, value_parser = not_negative)]
    prefill_tokens_per_second: f64,
    /// Prompt tokens computed in one step at most.
    #[arg(long, default_value_t = 8_192, value_parser = positive)]
    prefill_chunk: usize,
    /// Time of a step, in ms.
    #[arg(long, default_value_t = 8.0, value_parser = not_negative)]
    decode_base_ms: f64,
    /// Time that each sequence in the batch adds to a step, in ms.
    #[arg(long, default_value_t = 0.25, value_parser = not_negative)]
    decode_per_sequence_ms: f64,
    /// Blocks of 16 tokens in the KV cache.
    #[arg(long, default_value_t = 4_096, value_parser = positive)]
    cache_blocks: usize,
    /// Tokens that prompt and answer may have together.
    #[arg(long, default_value_t = 8_192, value_parser = positive)]
    max_model_len: usize,
    /// Mean length of an answer that no limit cuts off, in tokens; 0: only limits end it.
    #[arg(long, default_value_t = 120)]
    mean_length: u32,
    /// Bytes that a request's body may have.
    #[arg(long, default_value_t = 4 << 20)]
    max_body_bytes: usize,
    /// Faults from the start on, as key=value,…: see POST /faults for the keys.
    #[arg(long, default_value = "", hide_default_value = true, value_parser = Faults::from_pairs)]
    fault: Faults,
    /// Let requests ask for faults with the header x-fault: key=value,…
    #[arg(long)]
    allow_header_faults: bool,
    /// Seconds that requests under way have after SIGTERM.
    #[arg(long, default_value_t = 30)]
    drain_seconds: u64,
}

fn header_value(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text)
        .map_err(|_| "it goes into a header: visible ASCII characters only".to_owned())
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| "a whole number from 1".to_owned())
}

fn not_negative(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|number: &f64| number.is_finite() && *number >= 0.0)
        .ok_or_else(|| "a number from 0".into())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    match run(flags).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("model-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(flags: Flags) -> anyhow::Result<()> {
    let config = EngineConfig {
        max_batch: flags.max_batch,
        max_queue: flags.max_queue,
        prefill_tokens_per_second: flags.prefill_tokens_per_second,
        prefill_chunk: flags.prefill_chunk,
        decode_base: Duration::from_secs_f64(flags.decode_base_ms / 1e3),
        decode_per_sequence: Duration::from_secs_f64(flags.decode_per_sequence_ms / 1e3),
        cache_blocks: flags.cache_blocks,
        max_model_len: flags.max_model_len,
        mean_length: flags.mean_length,
    };
    anyhow::ensure!(
        config.max_model_len <= config.cache_blocks * BLOCK_TOKENS,
        "--max-model-len is {}; with --cache-blocks {} of {BLOCK_TOKENS} tokens it may be {} at most",
        config.max_model_len,
        config.cache_blocks,
        config.cache_blocks * BLOCK_TOKENS,
    );
    let stop = CancellationToken::new();
    stop_on_signal(stop.clone())?;
    let listener = TcpListener::bind(flags.listen)
        .await
        .map_err(|error| anyhow::anyhow!("cannot listen on {}: {error}", flags.listen))?;
    let address = listener.local_addr()?;

    let metrics = Arc::new(Metrics::new(&flags.models[0], &config));
    let app = Arc::new(App {
        name: flags.name,
        max_model_len: config.max_model_len,
        max_body_bytes: flags.max_body_bytes,
        allow_header_faults: flags.allow_header_faults,
        engine: Engine::start(config, Arc::clone(&metrics)),
        metrics,
        faults: FaultBoard::new(flags.fault),
        models: flags.models,
    });
    eprintln!(
        "model-server: {} serves {} on http://{address}",
        app.name.to_str()?,
        app.models.join(", ")
    );
    serve(
        listener,
        app,
        stop,
        Duration::from_secs(flags.drain_seconds),
    )
    .await;
    Ok(())
}

/// The first SIGTERM or SIGINT lets requests under way end; the second does not.
fn stop_on_signal(stop: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        for last in [false, true] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if last {
                std::process::exit(1);
            }
            stop.cancel();
        }
    });
    Ok(())
}
