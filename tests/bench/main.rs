//! Outrigger beside its peers: a client, a pair of proxies with mutual TLS between them, an application; the proxies on
//! one core, client and application on another. See `README.md` in this directory.

mod load;
mod peers;
mod report;
mod upstream;
mod wire;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;

use crate::load::{Meter, Outcome, Shape};
use crate::peers::{Peer, Running};
use crate::report::{Column, Row, Series, Table};
use crate::wire::Version;

/// Measures Outrigger, Envoy, HAProxy and no proxy in alternating rounds.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "direct,outrigger,envoy,haproxy"
    )]
    peers: Vec<Peer>,
    /// Which loads to put on them.
    #[arg(
        long,
        value_delimiter = ',',
        value_enum,
        default_value = "http1,http2,latency1,latency2,sse1,sse2"
    )]
    scenarios: Vec<Scenario>,
    /// How often each of them is measured.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Measured seconds of each load in each round.
    #[arg(long, default_value_t = 5.0)]
    duration: f64,
    /// Seconds of the same load before that.
    #[arg(long, default_value_t = 1.5)]
    warmup: f64,
    /// Callers of plain requests; with HTTP/2 sixteen share a connection.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Requests per second of the latency scenarios.
    #[arg(long, default_value_t = 4000.0)]
    rate: f64,
    /// Token streams at once.
    #[arg(long, default_value_t = 1000)]
    streams: usize,
    /// Tokens per second of each stream.
    #[arg(long, default_value_t = 20.0)]
    token_rate: f64,
    /// The core that the proxies share.
    #[arg(long, default_value_t = 0)]
    proxy_core: usize,
    /// The core of client and application.
    #[arg(long, default_value_t = 1)]
    load_core: usize,
    /// Where to write all figures as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// After a start, before memory is looked at: what a proxy does once is over.
const SETTLED: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Scenario {
    /// Plain HTTP/1.1 requests, as many as go through.
    Http1,
    /// The same with HTTP/2 from the client.
    Http2,
    /// HTTP/1.1 requests at a fixed rate.
    Latency1,
    /// HTTP/2 requests at a fixed rate.
    Latency2,
    /// Token streams over HTTP/1.1.
    Sse1,
    /// Token streams over HTTP/2.
    Sse2,
}

impl Scenario {
    fn version(self) -> Version {
        match self {
            Self::Http1 | Self::Latency1 | Self::Sse1 => Version::Http1,
            Self::Http2 | Self::Latency2 | Self::Sse2 => Version::Http2,
        }
    }

    fn table(self, arguments: &Arguments) -> Table {
        let column = |title, key, digits, ratio, added| Column {
            title,
            key,
            digits,
            ratio,
            added,
        };
        let memory = column("resident MiB", "rss_mib", 1, false, false);
        let load_core = column("load core %", "load_core_percent", 0, false, false);
        let version = if self.version() == Version::Http1 {
            "HTTP/1.1"
        } else {
            "HTTP/2"
        };
        let (key, title, columns) = match self {
            Self::Http1 | Self::Http2 => (
                if self == Self::Http1 {
                    "http1"
                } else {
                    "http2"
                },
                format!(
                    "{version}, 1 KiB responses, {} callers, as fast as it goes",
                    arguments.connections
                ),
                vec![
                    column("requests/s", "requests_per_second", 0, true, false),
                    column("CPU µs/request", "cpu_us_per_request", 1, true, false),
                    memory,
                    load_core,
                ],
            ),
            Self::Latency1 | Self::Latency2 => (
                if self == Self::Latency1 {
                    "latency1"
                } else {
                    "latency2"
                },
                format!(
                    "{version}, 1 KiB responses, {:.0} requests/s: latency, µs",
                    arguments.rate
                ),
                vec![
                    column("p50", "p50_us", 0, false, true),
                    column("p99", "p99_us", 0, false, true),
                    column("CPU µs/request", "cpu_us_per_request", 1, true, false),
                ],
            ),
            Self::Sse1 | Self::Sse2 => (
                if self == Self::Sse1 { "sse1" } else { "sse2" },
                format!(
                    "{version}, {} streams of {} tokens/s",
                    arguments.streams, arguments.token_rate
                ),
                vec![
                    column("CPU µs/token", "cpu_us_per_token", 1, true, false),
                    column("p50 µs", "p50_us", 0, false, true),
                    column("p99 µs", "p99_us", 0, false, true),
                    memory,
                ],
            ),
        };
        Table {
            key,
            title,
            columns,
            rows: Vec::new(),
        }
    }
}

/// CPU time of the proxies and of this process in the measured time, and the proxies' memory at its end.
struct Gauge<'a> {
    running: &'a mut Running,
    proxies: Duration,
    own: Duration,
    rss_kib: u64,
}

impl Meter for Gauge<'_> {
    fn start(&mut self) {
        (self.proxies, self.own) = (self.running.cpu(), own_cpu());
    }

    fn stop(&mut self) {
        self.proxies = self.running.cpu() - self.proxies;
        self.own = own_cpu() - self.own;
        self.rss_kib = self.running.rss_kib();
    }
}

/// Of the only thread that does something.
fn own_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text
        .split_whitespace()
        .next()
        .and_then(|field| field.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or_default())
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    ensure!(
        arguments.rounds > 0,
        "--rounds is 0: nothing would be measured"
    );
    let mut peers = Vec::new();
    for &peer in &arguments.peers {
        match peer.version() {
            Ok(version) => {
                println!("{}: {version}", peer.name());
                peers.push(peer);
            }
            Err(reason) => println!("{}: skipped: {reason}", peer.name()),
        }
    }
    // After the programs were built and before any thread is made. Proxies get a core of their own as they start.
    let pinned = Command::new("taskset")
        .args([
            "-cp",
            &arguments.load_core.to_string(),
            &std::process::id().to_string(),
        ])
        .output()
        .context("taskset (of util-linux) is needed to give proxies and load a core each")?;
    ensure!(
        pinned.status.success(),
        "taskset: {}",
        String::from_utf8_lossy(&pinned.stderr).trim()
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio::task::LocalSet::new().block_on(&runtime, run(arguments, &peers))
}

async fn run(arguments: Arguments, peers: &[Peer]) -> anyhow::Result<()> {
    let epoch = Instant::now();
    let application = upstream::start(arguments.token_rate, epoch).await?;
    let mut idle = Table {
        key: "idle",
        title: "Both proxies after their start and one request".to_string(),
        columns: vec![Column {
            title: "resident MiB",
            key: "rss_mib",
            digits: 1,
            ratio: true,
            added: false,
        }],
        rows: peers
            .iter()
            .map(|&peer| Row {
                peer,
                figures: vec![Series::default()],
            })
            .collect(),
    };
    let mut tables: Vec<Table> = arguments
        .scenarios
        .iter()
        .map(|scenario| scenario.table(&arguments))
        .collect();
    for table in &mut tables {
        let figures = vec![Series::default(); table.columns.len()];
        table.rows = peers
            .iter()
            .map(|&peer| Row {
                peer,
                figures: figures.clone(),
            })
            .collect();
    }
    for round in 0..arguments.rounds {
        // Each peer is first in some round: what a machine does over time hits all of them.
        for turn in 0..peers.len() {
            let index = (turn + round) % peers.len();
            let peer = peers[index];
            eprintln!(
                "round {} of {}: {}",
                round + 1,
                arguments.rounds,
                peer.name()
            );
            let mut running = peer.start(application, arguments.proxy_core).await;
            tokio::time::sleep(SETTLED).await;
            idle.rows[index].figures[0].push(mib(running.rss_kib()));
            for (scenario, table) in arguments.scenarios.iter().zip(&mut tables) {
                let figures = measure(*scenario, &mut running, &arguments, epoch).await;
                let figures =
                    figures.with_context(|| format!("{}, {}", peer.name(), table.title))?;
                for (series, figure) in table.rows[index].figures.iter_mut().zip(figures) {
                    series.push(figure);
                }
            }
        }
    }
    tables.push(idle);
    for table in &tables {
        print!("{}", table.text());
    }
    if let Some(path) = &arguments.json {
        let scenarios: Vec<_> = tables.iter().map(Table::json).collect();
        let versions = peers
            .iter()
            .filter_map(|peer| Some((peer.name().to_lowercase(), peer.version().ok()?)));
        let versions: std::collections::BTreeMap<_, _> = versions.collect();
        let json = serde_json::json!({"versions": versions, "rounds": arguments.rounds, "scenarios": scenarios});
        std::fs::write(path, serde_json::to_string_pretty(&json)?)
            .with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// One load on one running peer; the figures in the order of the table's columns, none where they would say nothing.
async fn measure(
    scenario: Scenario,
    running: &mut Running,
    arguments: &Arguments,
    epoch: Instant,
) -> anyhow::Result<Vec<f64>> {
    let streams = matches!(scenario, Scenario::Sse1 | Scenario::Sse2);
    let shape = Shape {
        warmup: Duration::from_secs_f64(arguments.warmup),
        duration: Duration::from_secs_f64(arguments.duration),
        connections: if streams {
            arguments.streams
        } else {
            arguments.connections
        },
    };
    let (target, version) = (running.target(scenario.version()), scenario.version());
    let mut gauge = Gauge {
        running,
        proxies: Duration::ZERO,
        own: Duration::ZERO,
        rss_kib: 0,
    };
    let outcome = match scenario {
        Scenario::Http1 | Scenario::Http2 => {
            load::closed_loop(&target, version, shape, &mut gauge).await?
        }
        Scenario::Latency1 | Scenario::Latency2 => {
            load::open_loop(&target, version, shape, arguments.rate, &mut gauge).await?
        }
        Scenario::Sse1 | Scenario::Sse2 => {
            load::token_streams(&target, version, shape, epoch, &mut gauge).await?
        }
    };
    let Outcome {
        count,
        elapsed,
        latency,
    } = outcome;
    ensure!(count > 0, "nothing came back");
    let cpu_each = gauge.proxies.as_secs_f64() * 1e6 / count as f64;
    let (p50, p99) = (
        latency.value_at_quantile(0.5) as f64,
        latency.value_at_quantile(0.99) as f64,
    );
    let memory = mib(gauge.rss_kib);
    Ok(match scenario {
        Scenario::Http1 | Scenario::Http2 => {
            let load_core = 100.0 * gauge.own.as_secs_f64() / elapsed.as_secs_f64();
            vec![
                count as f64 / elapsed.as_secs_f64(),
                cpu_each,
                memory,
                load_core,
            ]
        }
        Scenario::Latency1 | Scenario::Latency2 => {
            let rate = count as f64 / elapsed.as_secs_f64();
            if rate < 0.95 * arguments.rate {
                // The queue grows as long as one measures: its length is no property of the proxy.
                eprintln!(
                    "  only {rate:.0} of {:.0} requests/s were answered: no latency",
                    arguments.rate
                );
                return Ok(Vec::new());
            }
            vec![p50, p99, cpu_each]
        }
        Scenario::Sse1 | Scenario::Sse2 => vec![cpu_each, p50, p99, memory],
    })
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
