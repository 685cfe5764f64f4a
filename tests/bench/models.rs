//! Balancing policies on example model servers: groups of requests whose prompts begin alike, at random times, through a
//! sidecar to replicas whose caches hold some of the beginnings. See `README.md` in this directory.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use hdrhistogram::Histogram;
use http_body_util::BodyExt;
use outrigger_tests::client::{self, Connection};
use outrigger_tests::{ControlPlane, ModelServer, Sidecar};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

/// Time to first token and throughput of balancing policies.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to compare; ratios are to the first.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "round-robin,least-request,peak-ewma,model-load,prefix-affinity"
    )]
    policies: Vec<String>,
    /// Model servers, each with a sidecar.
    #[arg(long, default_value_t = 4)]
    replicas: usize,
    /// Prompts begin in so many ways.
    #[arg(long, default_value_t = 24)]
    groups: usize,
    /// Tokens that the prompts of a group have in common, in the system message.
    #[arg(long, default_value_t = 1500)]
    prefix: usize,
    /// Tokens of a question, each another.
    #[arg(long, default_value_t = 60)]
    question: usize,
    /// Tokens of an answer.
    #[arg(long, default_value_t = 20)]
    answer: usize,
    /// Requests per second, at random times (Poisson).
    #[arg(long, default_value_t = 50.0)]
    rate: f64,
    /// Seconds in which requests are sent. All of them are waited for.
    #[arg(long, default_value_t = 20.0)]
    duration: f64,
    /// Blocks of 16 tokens in a replica's cache.
    #[arg(long, default_value_t = 1200)]
    cache_blocks: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Each is one token to the example's model.
const WORDS: [&str; 16] = [
    "sea", "boat", "mast", "sail", "oar", "hull", "wind", "wave", "tide", "star", "coast",
    "harbour", "island", "reef", "storm", "swell",
];

/// A request that is to be sent.
struct Planned {
    at: Duration,
    body: String,
}

/// What a policy did.
struct Figures {
    /// Milliseconds.
    first_token: Histogram<u64>,
    /// Of answers, by the time from the first request to the last token.
    tokens_per_second: f64,
    /// Part of the prompts' tokens that replicas had in their caches.
    hits: f64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let first = arguments
        .policies
        .first()
        .context("--policies names none")?;
    let plan = plan(&arguments);
    println!(
        "{} requests in {} s: {} replicas, {} groups, {} + {} tokens in, {} out; ratios to {first}\n",
        plan.len(),
        arguments.duration,
        arguments.replicas,
        arguments.groups,
        arguments.prefix,
        arguments.question,
        arguments.answer,
    );
    println!("| policy | TTFT p50 ms | p90 ms | ÷ | p99 ms | tokens/s | × | hits |");
    println!("|---|--:|--:|--:|--:|--:|--:|--:|");
    let mut base = None;
    for policy in &arguments.policies {
        let figures = run(policy, &arguments, &plan).await?;
        let quantile = |q| figures.first_token.value_at_quantile(q) as f64;
        let (p90, rate) = (quantile(0.9), figures.tokens_per_second);
        let (base_p90, base_rate) = *base.get_or_insert((p90, rate));
        println!(
            "| {policy} | {:.0} | {p90:.0} | {:.1} | {:.0} | {rate:.0} | {:.2} | {:.0} % |",
            quantile(0.5),
            base_p90 / p90.max(1.0),
            quantile(0.99),
            rate / base_rate,
            100.0 * figures.hits,
        );
    }
    Ok(())
}

/// The same requests for each policy.
fn plan(arguments: &Arguments) -> Vec<Planned> {
    let mut random = StdRng::seed_from_u64(arguments.seed);
    let text = |random: &mut StdRng, tokens: usize| {
        let words = (0..tokens).filter_map(|_| WORDS.choose(random).copied());
        words.collect::<Vec<_>>().join(" ")
    };
    let beginnings: Vec<String> = (0..arguments.groups)
        .map(|_| text(&mut random, arguments.prefix))
        .collect();
    let mut planned = Vec::new();
    let mut at = 0.0;
    loop {
        at -= (1.0 - random.random::<f64>()).ln() / arguments.rate;
        let Some(system) = beginnings
            .choose(&mut random)
            .filter(|_| at < arguments.duration)
        else {
            return planned;
        };
        let body = serde_json::json!({
            "model": "tiny-chat", "stream": true, "max_tokens": arguments.answer, "ignore_eos": true,
            "messages": [
                {"role": "system", "content": system},
                {"role": "user", "content": text(&mut random, arguments.question)},
            ],
        });
        planned.push(Planned {
            at: Duration::from_secs_f64(at),
            body: body.to_string(),
        });
    }
}

/// With replicas, sidecars and a control plane of its own, so that no policy finds the caches of another.
async fn run(policy: &str, arguments: &Arguments, plan: &[Planned]) -> anyhow::Result<Figures> {
    let control_plane = ControlPlane::start().await;
    control_plane.apply(&format!(
        "kind: Service\nmetadata: {{name: chat}}\nspec:\n  ports: [{{port: 80, protocol: http}}]\n  inference: {{}}\n  \
         loadBalancing: {{policy: {policy}}}\n"
    ));
    let blocks = arguments.cache_blocks.to_string();
    let flags = ["--max-queue", "100000", "--cache-blocks", &blocks];
    let (mut servers, mut sidecars) = (Vec::new(), Vec::new());
    for replica in 0..arguments.replicas {
        let server = ModelServer::start(&format!("replica-{replica}"), &flags).await;
        sidecars.push(Sidecar::serving(&control_plane, "chat:80", server.address()).await);
        servers.push(server);
    }
    let caller = Sidecar::caller(&control_plane).await;
    caller.reaches("chat").await;

    let start = Instant::now();
    let mut requests = JoinSet::new();
    for request in plan {
        tokio::time::sleep_until((start + request.at).into()).await;
        requests.spawn(ask(caller.outbound(), request.body.clone()));
    }
    let mut first_token = Histogram::new_with_bounds(1, 3_600_000, 3)?;
    while let Some(answer) = requests.join_next().await {
        let waited = answer??;
        first_token.saturating_record(u64::try_from(waited.as_millis())?);
    }
    let elapsed = start.elapsed().as_secs_f64();
    let (mut queries, mut hits) = (0.0, 0.0);
    for server in &servers {
        let page = client::get(server.address(), "metrics", "/metrics").await;
        let page = outrigger_tests::Metrics::parse(&page.text());
        queries += page.sum("vllm:prefix_cache_queries_total", &[]);
        hits += page.sum("vllm:prefix_cache_hits_total", &[]);
    }
    ensure!(queries > 0.0, "the replicas count no prompts");
    Ok(Figures {
        first_token,
        tokens_per_second: (plan.len() * arguments.answer) as f64 / elapsed,
        hits: hits / queries,
    })
}

/// Sends a request and reads the whole answer. Returns the time to the first token.
async fn ask(to: std::net::SocketAddr, body: String) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let mut connection = Connection::http1(to)
        .await
        .map_err(|error| anyhow::anyhow!("connect: {error}"))?;
    let mut request =
        connection.request("POST", "chat", "/v1/chat/completions", client::full(body));
    let json = http::HeaderValue::from_static("application/json");
    request
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, json);
    let mut response = connection.send(request).await?;
    ensure!(response.status() == 200, "{}", response.status());
    let (mut text, mut first) = (Vec::new(), None);
    while let Some(frame) = response.frame().await {
        if let Some(data) = frame?.data_ref() {
            text.extend_from_slice(data);
        }
        // The first chunk has a role and an empty text, or none.
        if first.is_none() && has_token(&text) {
            first = Some(start.elapsed());
        }
    }
    if !text.ends_with(b"data: [DONE]\n\n") {
        bail!("a stream was cut: {}", String::from_utf8_lossy(&text));
    }
    first.context("a stream without a token")
}

fn has_token(stream: &[u8]) -> bool {
    const CONTENT: &[u8] = b"\"content\":\"";
    let mut places = stream.windows(CONTENT.len() + 1);
    places.any(|place| place.starts_with(CONTENT) && !place.ends_with(b"\""))
}
