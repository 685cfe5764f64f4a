//! An inference engine without a GPU: it schedules like one and takes the time that one would take.
//!
//! Continuous batching as in vLLM: in every step each running sequence gets one token, and prompts are computed along
//! with it in chunks. A step takes `base + per_sequence × sequences that decode + prompt tokens / rate`. Only prompt
//! tokens that are not in the prefix cache are computed.

mod cache;
mod scheduler;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

pub use cache::BLOCK_TOKENS;
use scheduler::Scheduler;

use crate::metrics::Metrics;

/// How large and how fast the engine is.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Sequences that run at the same time.
    pub max_batch: usize,
    /// Sequences that wait for a place in the batch; one more is refused.
    pub max_queue: usize,
    /// Prompt tokens computed per second. 0 computes them in no time.
    pub prefill_tokens_per_second: f64,
    /// Prompt tokens computed in one step at most.
    pub prefill_chunk: usize,
    /// Time of a step, whatever its batch.
    pub decode_base: Duration,
    /// Time that every decoding sequence adds to a step.
    pub decode_per_sequence: Duration,
    /// Blocks of [`BLOCK_TOKENS`] tokens in the KV cache.
    pub cache_blocks: usize,
    /// Tokens of prompt and answer together.
    pub max_model_len: usize,
    /// Mean length of an answer that nothing cuts off, in tokens. 0: only limits end it.
    pub mean_length: u32,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            max_batch: 8,
            max_queue: 64,
            prefill_tokens_per_second: 20_000.0,
            prefill_chunk: 8_192,
            decode_base: Duration::from_millis(8),
            decode_per_sequence: Duration::from_micros(250),
            cache_blocks: 4_096,
            max_model_len: 8_192,
            mean_length: 120,
        }
    }
}

/// What to generate.
#[derive(Clone, Debug)]
pub struct Request {
    /// The prompt; must not be empty.
    pub prompt: Vec<u32>,
    /// Tokens to generate at most. 0 only computes the prompt, as embeddings do.
    pub max_tokens: usize,
    /// The end of the text is not accepted before so many tokens.
    pub min_tokens: usize,
    /// The end of the text is never accepted.
    pub ignore_eos: bool,
    /// Sequences share cached prefixes only with those of the same salt.
    pub cache_salt: u64,
    /// Fault: after so many tokens the sequence keeps its place and gets no more.
    pub stall_after: Option<usize>,
}

/// Why a generation ended. The words are those of the OpenAI API and of vLLM's metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The text ended, or a stop string came.
    Stop,
    /// `max_tokens` or the context's length was reached.
    Length,
    /// The client left.
    Abort,
    /// A fault on demand broke it off.
    Error,
}

impl FinishReason {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Stop, Self::Length, Self::Abort, Self::Error];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Abort => "abort",
            Self::Error => "error",
        }
    }
}

/// What happens to a generation, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The prompt is computed; so many of its tokens came from the cache. Once.
    Prefilled {
        /// Prompt tokens that were in the prefix cache.
        cached_tokens: usize,
    },
    /// The next token.
    Token(u32),
    /// The end. Nothing follows.
    Finished(FinishReason),
}

/// Why a request is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The queue is full: try again later, or elsewhere.
    #[error("{waiting} requests wait already, the most that may")]
    QueueFull {
        /// Length of the queue.
        waiting: usize,
    },
    /// Prompt and answer do not fit.
    #[error(
        "the prompt has {prompt} tokens and {max_tokens} are asked for; prompt and answer may have {limit} together"
    )]
    TooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens asked for.
        max_tokens: usize,
        /// Tokens that prompt and answer may have.
        limit: usize,
    },
}

/// The load of an engine at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Sequences in the batch.
    pub running: usize,
    /// Sequences in the queue.
    pub waiting: usize,
    /// Part of the KV cache that is in use, 0 to 1.
    pub cache_usage: f64,
}

/// The engine. Dropping it stops it.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<Shared>,
    task: tokio::task::AbortHandle,
}

#[derive(Debug)]
struct Shared {
    scheduler: Mutex<Scheduler>,
    wake: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Scheduler> {
        // A panic inside the scheduler has failed a test or a request already; its state is only counters.
        self.scheduler
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Starts the engine's loop on the current runtime.
    pub fn start(config: EngineConfig, metrics: Arc<Metrics>) -> Self {
        let scheduler = Mutex::new(Scheduler::new(config, metrics));
        let shared = Arc::new(Shared {
            scheduler,
            wake: Notify::new(),
        });
        let task = tokio::spawn(run(Arc::clone(&shared))).abort_handle();
        Self { shared, task }
    }

    /// Queues a request. Dropping the [`Generation`] ends it and frees its place at once.
    ///
    /// # Errors
    /// [`Rejected`] where the queue is full, or the request could never be served.
    pub fn submit(&self, request: Request) -> Result<Generation, Rejected> {
        let (events, receiver) = mpsc::unbounded_channel();
        let id = self.shared.lock().submit(request, events)?;
        self.shared.wake.notify_one();
        Ok(Generation {
            id,
            events: receiver,
            shared: Arc::clone(&self.shared),
            over: false,
        })
    }

    /// The load now.
    pub fn load(&self) -> Load {
        self.shared.lock().load()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A request's answer as it is made.
#[derive(Debug)]
pub struct Generation {
    id: u64,
    /// Not bounded by itself, but by `max_model_len`: an engine does not wait for its slowest client.
    events: mpsc::UnboundedReceiver<Event>,
    shared: Arc<Shared>,
    over: bool,
}

impl Generation {
    /// The next event. After [`Event::Finished`] there is none; asking again is a bug and waits forever.
    pub async fn next(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => {
                self.over = matches!(event, Event::Finished(_));
                event
            }
            None => std::future::pending().await,
        }
    }

    /// Ends the generation early for another reason than the client's leaving.
    pub fn finish(mut self, reason: FinishReason) {
        self.end(reason);
    }

    fn end(&mut self, reason: FinishReason) {
        if !self.over {
            self.over = true;
            self.shared.lock().remove(self.id, reason);
            self.shared.wake.notify_one();
        }
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.end(FinishReason::Abort);
    }
}

async fn run(shared: Arc<Shared>) {
    let mut clock = Instant::now();
    loop {
        let step = shared.lock().plan();
        let Some(step) = step else {
            shared.wake.notified().await;
            clock = clock.max(Instant::now());
            continue;
        };
        // The timer's grain is a millisecond. Adding steps up, instead of sleeping for each, keeps their mean right.
        clock += step;
        if clock > Instant::now() {
            tokio::time::sleep_until(clock).await;
        } else {
            tokio::task::yield_now().await;
        }
        shared.lock().complete();
    }
}

#[cfg(test)]
mod tests;
