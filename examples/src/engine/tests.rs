#![allow(clippy::unwrap_used)]

use super::*;
use crate::tokens::tokenize;

fn config() -> EngineConfig {
    EngineConfig {
        max_batch: 2,
        max_queue: 2,
        prefill_tokens_per_second: 1_000.0,
        decode_base: Duration::from_millis(10),
        decode_per_sequence: Duration::from_millis(5),
        cache_blocks: 64,
        max_model_len: 1_024,
        ..EngineConfig::default()
    }
}

fn start(config: EngineConfig) -> (Engine, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new("tiny", &config));
    (Engine::start(config, Arc::clone(&metrics)), metrics)
}

fn request(prompt: &str, max_tokens: usize) -> Request {
    Request {
        prompt: tokenize(prompt),
        max_tokens,
        min_tokens: 0,
        ignore_eos: true,
        cache_salt: 0,
        stall_after: None,
    }
}

/// 100 tokens, different for every seed from the first block on.
fn long(seed: u32) -> Request {
    Request {
        prompt: (0..100).map(|token| token + 1_000 * seed).collect(),
        ..request("x", 4)
    }
}

#[derive(Debug, Default, PartialEq)]
struct Answer {
    cached: usize,
    tokens: Vec<u32>,
    first_token: Duration,
    total: Duration,
    reason: Option<FinishReason>,
}

async fn collect(mut generation: Generation) -> Answer {
    let start = Instant::now();
    let mut answer = Answer::default();
    loop {
        match generation.next().await {
            Event::Prefilled { cached_tokens } => answer.cached = cached_tokens,
            Event::Token(token) => {
                if answer.tokens.is_empty() {
                    answer.first_token = start.elapsed();
                }
                answer.tokens.push(token);
            }
            Event::Finished(reason) => {
                answer.reason = Some(reason);
                answer.total = start.elapsed();
                return answer;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_takes_the_time_that_the_formula_says() {
    let (engine, _) = start(config());
    let answer = collect(engine.submit(long(1)).unwrap()).await;
    // 100 prompt tokens at 1000/s and a step's base; then 10 ms + 1 × 5 ms for each further token.
    assert_eq!(answer.first_token, Duration::from_millis(110));
    assert_eq!(answer.total, Duration::from_millis(110 + 3 * 15));
    assert_eq!(
        (answer.tokens.len(), answer.reason),
        (4, Some(FinishReason::Length))
    );
}

#[tokio::test(start_paused = true)]
async fn sequences_in_a_batch_get_a_token_in_every_step_and_slow_each_other_down() {
    let (engine, _) = start(EngineConfig {
        prefill_tokens_per_second: 0.0,
        ..config()
    });
    let both = [request("a", 11), request("b", 11)].map(|request| engine.submit(request).unwrap());
    let [first, second] = both.map(|generation| tokio::spawn(collect(generation)));
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    // The first step computes prompts only; ten steps with two sequences follow, for both at the same time.
    assert_eq!(first.total, Duration::from_millis(10 + 10 * 20));
    assert_eq!(second.total, first.total);
}

#[tokio::test(start_paused = true)]
async fn the_batch_is_bounded_and_the_rest_waits_its_turn() {
    let (engine, _) = start(config());
    let generations: Vec<_> = (0..4)
        .map(|n| engine.submit(request(&format!("{n}"), 10)).unwrap())
        .collect();
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!((engine.load().running, engine.load().waiting), (2, 2));
    let mut ends = Vec::new();
    for task in generations
        .into_iter()
        .map(|generation| tokio::spawn(collect(generation)))
        .collect::<Vec<_>>()
    {
        ends.push(task.await.unwrap().total);
    }
    assert!(ends[2] > ends[1] && ends[3] > ends[1], "{ends:?}");
    assert_eq!((engine.load().running, engine.load().waiting), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded() {
    let (engine, metrics) = start(config());
    // Batch and queue, filled before the engine has made a single step.
    let mut accepted: Vec<_> = (0..4)
        .map(|n| engine.submit(request(&format!("{n}"), 10)).unwrap())
        .collect();
    assert_eq!(
        engine.submit(request("5", 10)).unwrap_err(),
        Rejected::QueueFull { waiting: 4 }
    );
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(
        engine.submit(request("5", 10)).unwrap_err(),
        Rejected::QueueFull { waiting: 2 }
    );
    // Who leaves the queue makes room.
    drop(accepted.pop());
    assert_eq!(engine.load().waiting, 1);
    assert!(engine.submit(request("5", 10)).is_ok());
    assert_eq!(metrics.finished_count(FinishReason::Abort), 2);
}

#[tokio::test(start_paused = true)]
async fn what_could_never_fit_is_refused() {
    let (engine, _) = start(config());
    let rejected = engine.submit(request("a", 1_024)).unwrap_err();
    assert_eq!(
        rejected,
        Rejected::TooLong {
            prompt: 1,
            max_tokens: 1_024,
            limit: 1_024
        }
    );
    assert!(engine.submit(request("a", 1_023)).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_cached_prefix_shortens_the_prefill() {
    let (engine, metrics) = start(config());
    let cold = collect(engine.submit(long(1)).unwrap()).await;
    let warm = collect(engine.submit(long(1)).unwrap()).await;
    // 6 full blocks of 16 tokens; the other 4 tokens are computed again.
    assert_eq!((cold.cached, warm.cached), (0, 96));
    assert_eq!(warm.first_token, Duration::from_millis(10 + 4));
    assert_eq!(warm.tokens, cold.tokens);
    assert_eq!((metrics.prefix_queries(), metrics.prefix_hits()), (200, 96));

    let salted = collect(
        engine
            .submit(Request {
                cache_salt: 7,
                ..long(1)
            })
            .unwrap(),
    )
    .await;
    assert_eq!(salted.cached, 0, "another salt shares nothing");
    assert_eq!(salted.tokens, cold.tokens);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_in_the_cache_for_the_next_turn() {
    let (engine, _) = start(config());
    let first = Request {
        max_tokens: 29,
        ..long(1)
    };
    let mut next_turn = first.prompt.clone();
    next_turn.extend(collect(engine.submit(first).unwrap()).await.tokens);
    let answer = collect(
        engine
            .submit(Request {
                prompt: next_turn,
                ..request("", 1)
            })
            .unwrap(),
    )
    .await;
    // 129 tokens, of which the engine has computed all but the last: 8 blocks.
    assert_eq!(answer.cached, 128);
}

#[tokio::test(start_paused = true)]
async fn the_cache_is_bounded() {
    let (engine, _) = start(EngineConfig {
        cache_blocks: 16,
        max_model_len: 256,
        ..config()
    });
    for seed in 1..=5 {
        collect(engine.submit(long(seed)).unwrap()).await;
    }
    assert_eq!(collect(engine.submit(long(5)).unwrap()).await.cached, 96);
    assert_eq!(
        collect(engine.submit(long(1)).unwrap()).await.cached,
        0,
        "the first prefix was evicted"
    );
    assert_eq!(engine.load().cache_usage, 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_full_cache_preempts_the_youngest_and_loses_no_token() {
    // Room for one sequence of 100 + 150 tokens, not for two.
    let (engine, metrics) = start(EngineConfig {
        cache_blocks: 16,
        max_model_len: 256,
        ..config()
    });
    let request = |seed| Request {
        max_tokens: 150,
        prompt: long(seed).prompt[..50].to_vec(),
        ..long(seed)
    };
    let alone = collect(engine.submit(request(2)).unwrap()).await;
    let both = [request(1), request(2)]
        .map(|request| tokio::spawn(collect(engine.submit(request).unwrap())));
    let [first, second] = both;
    assert_eq!(first.await.unwrap().tokens.len(), 150);
    assert_eq!(second.await.unwrap().tokens, alone.tokens);
    assert!(metrics.preemptions() > 0);
}

#[tokio::test(start_paused = true)]
async fn dropping_a_generation_frees_its_place_at_once() {
    let (engine, metrics) = start(config());
    let mut running =
        [request("a", 100), request("b", 100)].map(|request| engine.submit(request).unwrap());
    let waiting = engine.submit(request("c", 1)).unwrap();
    for generation in &mut running {
        while !matches!(generation.next().await, Event::Token(_)) {}
    }
    assert_eq!((engine.load().running, engine.load().waiting), (2, 1));
    let [first, _second] = running;
    drop(first);
    assert_eq!(engine.load().running, 1);
    assert_eq!(metrics.finished_count(FinishReason::Abort), 1);
    let answer = collect(waiting).await;
    assert!(
        answer.total < Duration::from_millis(60),
        "it waited {:?} for the place",
        answer.total
    );
}

#[tokio::test(start_paused = true)]
async fn the_same_prompt_gives_the_same_text_on_every_engine_and_in_every_company() {
    let (quiet, _) = start(config());
    let alone = collect(quiet.submit(request("Tell me", 50)).unwrap()).await;
    let (busy, _) = start(EngineConfig {
        max_batch: 8,
        max_queue: 8,
        prefill_chunk: 2,
        ..config()
    });
    let _others: Vec<_> = (0..5)
        .map(|n| busy.submit(request(&format!("other {n}"), 200)).unwrap())
        .collect();
    let crowded = collect(busy.submit(request("Tell me", 50)).unwrap()).await;
    assert_eq!(alone.tokens, crowded.tokens);
    let different = collect(quiet.submit(request("Tell us", 50)).unwrap()).await;
    assert_ne!(alone.tokens, different.tokens);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_sequence_keeps_its_place_and_stops_nobody_else() {
    let (engine, _) = start(config());
    let mut stalled = engine
        .submit(Request {
            stall_after: Some(3),
            ..request("a", 100)
        })
        .unwrap();
    let other = collect(engine.submit(request("b", 20)).unwrap()).await;
    assert_eq!(other.tokens.len(), 20);
    for _ in 0..4 {
        stalled.next().await;
    }
    let more = tokio::time::timeout(Duration::from_secs(60), stalled.next()).await;
    assert!(more.is_err(), "{more:?} after the stall");
    assert_eq!(engine.load().running, 1);
    drop(stalled);
    assert_eq!(engine.load().running, 0);
}

#[tokio::test(start_paused = true)]
async fn without_tokens_to_generate_only_the_prompt_is_computed() {
    let (engine, _) = start(config());
    let answer = collect(
        engine
            .submit(Request {
                max_tokens: 0,
                ..long(1)
            })
            .unwrap(),
    )
    .await;
    assert_eq!(
        (answer.tokens.len(), answer.reason),
        (0, Some(FinishReason::Stop))
    );
    assert_eq!(answer.total, Duration::from_millis(110));
}
