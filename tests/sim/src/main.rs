//! Compares policies on a workload: `cargo run --bin simulate -- shared-prefix`.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use outrigger_proxy::balance::Settings;
use outrigger_simulator::policy::{Policy, Reports};
use outrigger_simulator::replica::Model;
use outrigger_simulator::report::table;
use outrigger_simulator::run::{World, run};
use outrigger_simulator::traces::{self, Format};
use outrigger_simulator::workload::{self, Load, Request, SharedPrefix};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// Groups of users whose prompts begin with the same 6,000 tokens (llm-d's).
    SharedPrefix,
    /// Prompts that have nothing in common.
    PrefixFree,
    /// Conversations of several turns.
    Chat,
    /// Many LoRA adapters.
    Lora,
    /// A file in the format of `--trace-format`.
    Trace,
}

/// Compares policies of balancing on modelled replicas, in virtual time.
#[derive(Debug, Parser)]
struct Arguments {
    workload: Workload,
    /// Policies to compare; all if there is none.
    #[arg(long = "policy")]
    policies: Vec<Policy>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Requests (chat: conversations) each second at first. Default by workload.
    #[arg(long)]
    from: Option<f64>,
    /// Requests each second in the end.
    #[arg(long)]
    to: Option<f64>,
    /// Seconds in which they come.
    #[arg(long, default_value_t = 150.0)]
    duration: f64,
    #[arg(long, default_value_t = 8)]
    replicas: usize,
    #[arg(long, default_value_t = 32)]
    sidecars: usize,
    /// What sidecars are told of replicas.
    #[arg(long, value_enum, default_value = "engine")]
    reports: Reports,
    /// Seconds between reports out of band; 0: only with responses.
    #[arg(long, default_value_t = 1.0)]
    report_interval: f64,
    /// Per cent of its share that an endpoint takes (prefix-affinity). Default: by work.
    #[arg(long)]
    bounded_load: Option<u32>,
    /// prefix-affinity by the client's session instead of the prompt.
    #[arg(long)]
    by_session: bool,
    /// Speeds of the first replicas, as parts of the others'.
    #[arg(long, value_delimiter = ',')]
    slow: Vec<f64>,
    /// Tokens of a prompt (prefix-free, lora).
    #[arg(long)]
    prompt: Option<u32>,
    /// Tokens of an answer.
    #[arg(long)]
    output: Option<u32>,
    /// shared-prefix: groups.
    #[arg(long, default_value_t = 150)]
    groups: u64,
    /// shared-prefix: no question comes again.
    #[arg(long)]
    fresh: bool,
    /// shared-prefix: how uneven groups are, the exponent of Zipf's law.
    #[arg(long, default_value_t = 0.0)]
    skew: f64,
    /// Prompt tokens that a replica reads each second.
    #[arg(long)]
    prefill: Option<f64>,
    /// Seconds that each stream adds to a step.
    #[arg(long)]
    per_stream: Option<f64>,
    /// Requests in a batch.
    #[arg(long)]
    batch: Option<usize>,
    /// Tokens in the KV cache of a replica.
    #[arg(long)]
    cache: Option<u32>,
    /// The file of a trace.
    #[arg(long, required_if_eq("workload", "trace"))]
    trace: Option<PathBuf>,
    #[arg(long, value_enum, default_value = "mooncake")]
    trace_format: Format,
    /// Requests of a trace, at most.
    #[arg(long, default_value_t = 5000)]
    limit: usize,
    /// How many times faster a trace is played.
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// JSON, a line for each policy.
    #[arg(long)]
    json: bool,
}

fn requests(it: &Arguments) -> anyhow::Result<Vec<Request>> {
    let load = |from, to| Load {
        from: it.from.unwrap_or(from),
        to: it.to.unwrap_or(to),
        duration: it.duration,
        seed: it.seed,
    };
    let output = |default| it.output.unwrap_or(default);
    Ok(match it.workload {
        Workload::SharedPrefix => {
            let shape = SharedPrefix {
                groups: it.groups,
                output: output(1000),
                fresh: it.fresh,
                skew: it.skew,
                ..SharedPrefix::default()
            };
            workload::shared_prefix(&load(3.0, 60.0), &shape)
        }
        Workload::PrefixFree => {
            let prompt = it.prompt.unwrap_or(2000);
            workload::prefix_free(&load(10.0, 40.0), prompt, output(400))
        }
        Workload::Chat => workload::chat(&load(2.0, 12.0), 4),
        Workload::Lora => {
            workload::lora(&load(5.0, 40.0), 60, it.prompt.unwrap_or(500), output(200))
        }
        Workload::Trace => match &it.trace {
            Some(path) => traces::read(path, it.trace_format, it.limit, it.speed)?,
            None => Vec::new(),
        },
    })
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let requests = requests(&arguments)?;
    anyhow::ensure!(!requests.is_empty(), "the workload has no request");
    let defaults = Model::default();
    let world = World {
        replicas: arguments.replicas,
        sidecars: arguments.sidecars,
        reports: arguments.reports,
        report_interval: arguments.report_interval,
        by_session: arguments.by_session,
        slow: arguments.slow.clone(),
        seed: arguments.seed,
        model: Model {
            prefill: arguments.prefill.unwrap_or(defaults.prefill),
            per_stream: arguments.per_stream.unwrap_or(defaults.per_stream),
            batch: arguments.batch.unwrap_or(defaults.batch),
            cache: arguments.cache.unwrap_or(defaults.cache),
            ..defaults
        },
        settings: Settings {
            bounded_load: arguments.bounded_load,
            ..Settings::default()
        },
        ..World::default()
    };
    let policies = match arguments.policies.as_slice() {
        [] => Policy::ALL.to_vec(),
        some => some.to_vec(),
    };
    let mut all = Vec::new();
    for policy in policies {
        let figures = run(&world, policy, &requests);
        if arguments.json {
            println!("{}", serde_json::to_string(&figures)?);
        }
        all.push(figures);
    }
    if !arguments.json {
        println!(
            "{} requests, {} replicas, {} sidecars, seed {}\n",
            requests.len(),
            world.replicas,
            world.sidecars,
            world.seed
        );
        println!("{}", table(&all));
    }
    Ok(())
}
