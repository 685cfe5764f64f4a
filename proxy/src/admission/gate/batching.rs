//! A gate in front of an engine: that it never starves continuous batching, and that who waits, waits here.
#![allow(clippy::unwrap_used)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use rand::rngs::SmallRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

use super::*;
use crate::admission::{BatchLimit, BatchSource};

const BATCH: u32 = 16;
/// From the sidecar to the engine, and back.
const WAY: Duration = Duration::from_millis(1);

/// An engine with continuous batching: in each step every running sequence gets one token, and who waits takes a place that is free.
#[derive(Default)]
struct Engine {
    waiting: RefCell<VecDeque<Sequence>>,
    running: Cell<u32>,
    tokens: Cell<u64>,
    longest_queue: Cell<usize>,
}

struct Sequence {
    left: u32,
    first_token: Option<Instant>,
    done: oneshot::Sender<Instant>,
}

impl Engine {
    async fn run(self: Rc<Self>) {
        let mut running = Vec::new();
        loop {
            while running.len() < BATCH as usize
                && let Some(next) = self.waiting.borrow_mut().pop_front()
            {
                running.push(next);
            }
            self.running.set(running.len() as u32);
            let step = Duration::from_micros(8000 + 250 * running.len() as u64);
            tokio::time::sleep(step).await;
            self.tokens.set(self.tokens.get() + running.len() as u64);
            for sequence in &mut running {
                sequence.left -= 1;
                sequence.first_token.get_or_insert_with(Instant::now);
            }
            let (more, done) = running.into_iter().partition(|it: &Sequence| it.left > 0);
            running = more;
            for sequence in done {
                let _ = sequence.done.send(sequence.first_token.unwrap());
            }
        }
    }

    /// When the first token came.
    async fn generate(&self, tokens: u32) -> Instant {
        tokio::time::sleep(WAY).await;
        let (done, ended) = oneshot::channel();
        self.waiting.borrow_mut().push_back(Sequence {
            left: tokens,
            first_token: None,
            done,
        });
        let queue = self.waiting.borrow().len();
        self.longest_queue.set(self.longest_queue.get().max(queue));
        let first_token = ended.await.unwrap();
        tokio::time::sleep(WAY).await;
        first_token
    }

    fn figures(&self) -> Figures {
        Figures {
            engine: crate::inference::Engine::Vllm,
            waiting: Some(self.waiting.borrow().len() as u32),
            running: Some(self.running.get()),
            kv_usage: None,
        }
    }
}

fn by_batch(size: Option<u32>, queue: QueueSettings) -> ServerLimits {
    ServerLimits {
        concurrency: Concurrency::Batch(BatchLimit {
            size,
            head_room: 10,
            start: 256,
            max: 1024,
        }),
        queue: Some(queue),
        priorities: None,
    }
}

fn patient() -> QueueSettings {
    QueueSettings {
        max_length: 100_000,
        max_wait: Duration::from_secs(10_000),
        target: Duration::MAX,
        interval: Duration::MAX,
    }
}

fn gate(limits: ServerLimits) -> Arc<Gate> {
    Gate::new(limits, Arc::default(), Arc::default())
}

struct Outcome {
    /// In a minute.
    tokens: u64,
    longest_queue: usize,
    limit: u32,
}

/// Requests with 20 to 400 tokens come for a minute, a third more than the engine can do.
async fn a_minute(gate: Option<Arc<Gate>>, speaks: bool) -> Outcome {
    let engine = Rc::new(Engine::default());
    let _running = Abort(tokio::task::spawn_local(Rc::clone(&engine).run()));
    let mut _looking = None;
    if let Some(gate) = gate.clone().filter(|_| speaks) {
        let engine = Rc::clone(&engine);
        _looking = Some(Abort(tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(150)).await;
                gate.engine_says(&engine.figures());
            }
        })));
    }
    let mut rng = SmallRng::seed_from_u64(7);
    let capacity = f64::from(BATCH) / (0.008 + 0.00025 * f64::from(BATCH)) / 210.0;
    let end = Instant::now() + Duration::from_secs(60);
    while Instant::now() < end {
        let gap = -(1.0 - rng.random::<f64>()).ln() / (capacity * 1.3);
        tokio::time::sleep(Duration::from_secs_f64(gap)).await;
        let (tokens, caller) = (rng.random_range(20..400), rng.next_u64() % 5);
        let (gate, engine) = (gate.clone(), Rc::clone(&engine));
        tokio::task::spawn_local(async move {
            let share = Some((caller, tokens));
            let mut place = match &gate {
                Some(gate) => Some(
                    gate.enter(Ask {
                        share,
                        ..Ask::default()
                    })
                    .await
                    .unwrap(),
                ),
                None => None,
            };
            let first_token = engine.generate(tokens).await;
            if let Some(served) = &mut place {
                served.first_byte();
                served.answered(first_token, 100);
            }
        });
    }
    Outcome {
        tokens: engine.tokens.get(),
        longest_queue: engine.longest_queue.get(),
        limit: gate.map_or(0, |gate| gate.settings().limit()),
    }
}

struct Abort(tokio::task::JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn minute(gate: Option<Arc<Gate>>, speaks: bool) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, a_minute(gate, speaks))
}

#[test]
fn an_engine_behind_it_does_as_much_as_without_and_its_own_queue_is_short() {
    let without = minute(None, false);
    assert!(without.longest_queue > 50, "there was no overload");
    let declared = minute(Some(gate(by_batch(Some(BATCH), patient()))), true);
    let learnt = minute(Some(gate(by_batch(None, patient()))), true);
    let share = |outcome: &Outcome| outcome.tokens as f64 / without.tokens as f64;
    assert!(share(&declared) > 0.98, "declared: {:.4}", share(&declared));
    assert!(share(&learnt) > 0.98, "learnt: {:.4}", share(&learnt));
    // The head room of 16 is 2: no more than that ever wait in the engine, once its batch is known.
    assert!(declared.longest_queue <= 2, "{}", declared.longest_queue);
    assert_eq!((declared.limit, learnt.limit), (18, 18));
    // What it is for: with as many as the batch, each place stays empty for the way back and forth.
    let mut exact = by_batch(None, patient());
    exact.concurrency = Concurrency::Fixed(BATCH);
    let exact = minute(Some(gate(exact)), true);
    assert!(
        exact.tokens < declared.tokens,
        "{} {}",
        exact.tokens,
        declared.tokens
    );
    println!(
        "of {} tokens: declared {:.4}, learnt {:.4}, without head room {:.4}; engine's queue {} of {}",
        without.tokens,
        share(&declared),
        share(&learnt),
        share(&exact),
        declared.longest_queue,
        without.longest_queue
    );
}

#[test]
fn a_batch_is_learnt_of_a_server_that_says_nothing() {
    let without = minute(None, false);
    let gate = gate(by_batch(None, patient()));
    let learnt = minute(Some(Arc::clone(&gate)), false);
    let share = learnt.tokens as f64 / without.tokens as f64;
    let settings = gate.settings();
    let (batch, limit) = settings.batch().unwrap();
    let (size, source) = batch.size(limit);
    assert_eq!(source, BatchSource::FirstTokens);
    println!("{share:.4} of the tokens with a batch of {size}");
    assert!((BATCH..3 * BATCH).contains(&size), "{size}");
    assert!(share > 0.98, "{share:.4}");
}

/// A gate of one place of which it is known that answers take two seconds.
async fn known(queue: QueueSettings) -> Arc<Gate> {
    let gate = gate(by_batch(Some(1), queue));
    for _ in 0..2 {
        let mut served = gate.enter(Ask::default()).await.unwrap();
        served.first_byte();
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    gate
}

fn of(caller: u64) -> Ask {
    Ask {
        share: Some((caller, 100)),
        ..Ask::default()
    }
}

#[tokio::test(start_paused = true)]
async fn who_would_wait_for_too_long_is_told_at_once() {
    let queue = QueueSettings {
        max_wait: Duration::from_secs(5),
        ..patient()
    };
    let gate = known(queue).await;
    let _places = [
        gate.enter(of(1)).await.unwrap(),
        gate.enter(of(1)).await.unwrap(),
    ];
    // Two places, two seconds each: one gets free each second.
    let mut waiting: Vec<_> = (0..5).map(|_| Box::pin(gate.enter(of(1)))).collect();
    for one in &mut waiting {
        let pending =
            std::future::poll_fn(|cx| std::task::Poll::Ready(one.as_mut().poll(cx).is_pending()));
        assert!(pending.await);
    }
    let begun = Instant::now();
    let refused = gate.enter(of(1)).await.unwrap_err();
    let expected = Refused {
        limit: Limit::ExpectedWait,
        wait: Some(Duration::from_secs(6)),
    };
    assert_eq!((refused, begun.elapsed()), (expected, Duration::ZERO));
    assert_eq!(gate.refusals.get(Limit::ExpectedWait), 1);
    // Another caller's first one has its turn after the first of those.
    let mut other = Box::pin(gate.enter(of(2)));
    let pending =
        std::future::poll_fn(|cx| std::task::Poll::Ready(other.as_mut().poll(cx).is_pending()));
    assert!(pending.await);
    // Nor does anybody wait who could not be answered in time.
    let deadline = Some(Instant::now() + Duration::from_millis(1500));
    let refused = gate.enter(Ask { deadline, ..of(3) }).await.unwrap_err();
    assert_eq!(refused.limit, Limit::ExpectedWait);
    assert_eq!(refused.wait, Some(Duration::from_secs(3)));
    let patience = Some(Duration::from_millis(2900));
    let refused = gate.enter(Ask { patience, ..of(3) }).await.unwrap_err();
    assert_eq!(refused.limit, Limit::ExpectedWait);
    assert_eq!(gate.waiting(), 6);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_refused_for_a_wait_that_is_not_known() {
    let queue = QueueSettings {
        max_wait: Duration::from_millis(10),
        ..patient()
    };
    let gate = gate(by_batch(Some(1), queue));
    let _places = [
        gate.enter(of(1)).await.unwrap(),
        gate.enter(of(1)).await.unwrap(),
    ];
    let refused = gate.enter(of(1)).await.unwrap_err();
    assert_eq!(refused, Limit::QueueWait.into());
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_makes_room_for_who_has_none_of_it() {
    let queue = QueueSettings {
        max_length: 3,
        ..patient()
    };
    let gate = gate(by_batch(Some(1), queue));
    let _places = [
        gate.enter(of(1)).await.unwrap(),
        gate.enter(of(1)).await.unwrap(),
    ];
    let mut waiting = tokio::task::JoinSet::new();
    for caller in [1, 1, 1, 2] {
        let gate = Arc::clone(&gate);
        waiting.spawn(async move { gate.enter(of(caller)).await.map(|_| caller) });
        tokio::task::yield_now().await;
    }
    let first = waiting.join_next().await.unwrap().unwrap();
    assert_eq!(first.unwrap_err().limit, Limit::Shed);
    assert_eq!(gate.enter(of(1)).await.unwrap_err().limit, Limit::QueueFull);
}

#[tokio::test(start_paused = true)]
async fn what_was_learnt_outlives_a_change_of_the_limits() {
    let gate = gate(by_batch(None, patient()));
    let full = Figures {
        engine: crate::inference::Engine::Vllm,
        waiting: Some(3),
        running: Some(20),
        kv_usage: None,
    };
    gate.engine_says(&full);
    gate.engine_says(&full);
    assert_eq!(gate.settings().limit(), 22);
    let queue = QueueSettings {
        max_length: 9,
        ..patient()
    };
    gate.set(by_batch(None, queue));
    assert_eq!(gate.settings().limit(), 22);
}
