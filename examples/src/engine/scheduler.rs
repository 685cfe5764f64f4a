//! Which sequences run in a step, and what a step does to them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::cache::{BLOCK_TOKENS, BlockHash, BlockPool, Lease};
use super::{EngineConfig, Event, FinishReason, Load, Rejected, Request};
use crate::metrics::Metrics;
use crate::tokens::{self, Context};

#[derive(Debug)]
pub(super) struct Sequence {
    id: u64,
    request: Request,
    events: UnboundedSender<Event>,
    /// Prompt, then what was generated.
    tokens: Vec<u32>,
    context: Context,
    /// Hashes of the full blocks of `tokens`.
    hashes: Vec<BlockHash>,
    /// Hash of all tokens with the salt: the next block's, once it is full.
    salted: Context,
    /// Tokens whose keys and values are in the cache.
    computed: usize,
    /// Tokens that the step under way computes.
    planned: usize,
    lease: Lease,
    prefilled: bool,
    arrived: Instant,
    last_token: Option<Instant>,
}

impl Sequence {
    fn new(id: u64, mut request: Request, events: UnboundedSender<Event>) -> Self {
        let prompt = std::mem::take(&mut request.prompt);
        let mut sequence = Self {
            id,
            events,
            tokens: Vec::with_capacity(prompt.len()),
            context: Context::default(),
            hashes: Vec::new(),
            salted: Context::seeded(request.cache_salt),
            computed: 0,
            planned: 0,
            lease: Lease::default(),
            prefilled: false,
            arrived: Instant::now(),
            last_token: None,
            request,
        };
        for token in &prompt {
            sequence.push(*token);
        }
        sequence.request.prompt = prompt;
        sequence
    }

    fn push(&mut self, token: u32) {
        self.tokens.push(token);
        self.context = self.context.with(token);
        self.salted = self.salted.with(token);
        if self.tokens.len().is_multiple_of(BLOCK_TOKENS) {
            self.hashes.push(self.salted);
        }
    }

    fn prompt_len(&self) -> usize {
        self.request.prompt.len()
    }

    fn generated(&self) -> usize {
        self.tokens.len() - self.prompt_len()
    }

    fn stalled(&self) -> bool {
        self.request
            .stall_after
            .is_some_and(|after| self.generated() >= after)
    }

    /// One token left to compute means that the step decodes; the first computation of the prompt never counts as that.
    fn decodes(&self) -> bool {
        self.computed > 0 && self.computed + 1 == self.tokens.len() && self.generated() > 0
    }

    fn send(&self, event: Event) {
        // Without a receiver the generation has been dropped, and its drop removes the sequence.
        let _ = self.events.send(event);
    }
}

#[derive(Debug)]
pub(super) struct Scheduler {
    config: EngineConfig,
    metrics: Arc<Metrics>,
    cache: BlockPool,
    waiting: VecDeque<Sequence>,
    running: Vec<Sequence>,
    next_id: u64,
}

impl Scheduler {
    pub(super) fn new(config: EngineConfig, metrics: Arc<Metrics>) -> Self {
        let cache = BlockPool::new(config.cache_blocks);
        Self {
            config,
            metrics,
            cache,
            waiting: VecDeque::new(),
            running: Vec::new(),
            next_id: 0,
        }
    }

    pub(super) fn load(&self) -> Load {
        Load {
            running: self.running.len(),
            waiting: self.waiting.len(),
            cache_usage: self.cache.usage(),
        }
    }

    pub(super) fn submit(
        &mut self,
        request: Request,
        events: UnboundedSender<Event>,
    ) -> Result<u64, Rejected> {
        let limit = self
            .config
            .max_model_len
            .min(self.config.cache_blocks * BLOCK_TOKENS);
        let prompt = request.prompt.len();
        if prompt + request.max_tokens > limit {
            return Err(Rejected::TooLong {
                prompt,
                max_tokens: request.max_tokens,
                limit,
            });
        }
        // A free place in the batch is taken at the next step, so those that will take it do not count as waiting.
        let free = self.config.max_batch.saturating_sub(self.running.len());
        if self.waiting.len() >= self.config.max_queue + free {
            return Err(Rejected::QueueFull {
                waiting: self.waiting.len(),
            });
        }
        self.next_id += 1;
        self.waiting
            .push_back(Sequence::new(self.next_id, request, events));
        Ok(self.next_id)
    }

    /// Takes a sequence out, wherever it is.
    pub(super) fn remove(&mut self, id: u64, reason: FinishReason) {
        let sequence = if let Some(at) = self.running.iter().position(|sequence| sequence.id == id)
        {
            self.running.remove(at)
        } else if let Some(at) = self.waiting.iter().position(|sequence| sequence.id == id) {
            let Some(sequence) = self.waiting.remove(at) else {
                return;
            };
            sequence
        } else {
            return;
        };
        self.retire(sequence, reason);
    }

    fn retire(&mut self, mut sequence: Sequence, reason: FinishReason) {
        self.cache.release(std::mem::take(&mut sequence.lease));
        self.metrics.finished(reason, sequence.arrived.elapsed());
        sequence.send(Event::Finished(reason));
    }

    /// Chooses what the next step computes and says how long it takes. `None` where there is nothing to do.
    pub(super) fn plan(&mut self) -> Option<Duration> {
        self.reserve();
        let mut budget = self.config.prefill_chunk;
        let mut prefill = 0;
        let mut decoding = 0;
        for sequence in &mut self.running {
            sequence.planned = 0;
            if sequence.stalled() {
                continue;
            }
            if sequence.decodes() {
                sequence.planned = 1;
                decoding += 1;
            } else {
                sequence.planned = (sequence.tokens.len() - sequence.computed).min(budget);
                budget -= sequence.planned;
                prefill += sequence.planned;
            }
        }
        while budget > 0 && self.running.len() < self.config.max_batch {
            let Some(mut sequence) = self.admit() else {
                break;
            };
            sequence.planned = (sequence.tokens.len() - sequence.computed).min(budget);
            budget -= sequence.planned;
            prefill += sequence.planned;
            self.running.push(sequence);
        }
        if prefill == 0 && decoding == 0 {
            return None;
        }
        let mut step = self.config.decode_base + self.config.decode_per_sequence * decoding;
        if self.config.prefill_tokens_per_second > 0.0 {
            step += Duration::from_secs_f64(prefill as f64 / self.config.prefill_tokens_per_second);
        }
        Some(step)
    }

    /// Gives every running sequence a block for its last token, taking places away from the youngest where none is left.
    fn reserve(&mut self) {
        let mut at = 0;
        while at < self.running.len() {
            let sequence = &mut self.running[at];
            let needed = sequence.tokens.len().div_ceil(BLOCK_TOKENS);
            if sequence.lease.blocks() >= needed || self.cache.grow(&mut sequence.lease) {
                at += 1;
                continue;
            }
            let Some(mut youngest) = self.running.pop() else {
                return;
            };
            self.cache.release(std::mem::take(&mut youngest.lease));
            youngest.computed = 0;
            self.metrics.preempted();
            self.waiting.push_front(youngest);
        }
    }

    fn admit(&mut self) -> Option<Sequence> {
        let sequence = self.waiting.front()?;
        // The last token is always computed, because the step must give the next one.
        let reusable = (sequence.tokens.len() - 1) / BLOCK_TOKENS;
        let blocks = sequence.tokens.len().div_ceil(BLOCK_TOKENS);
        let (lease, hits) = self.cache.allocate(&sequence.hashes[..reusable], blocks)?;
        let mut sequence = self.waiting.pop_front()?;
        sequence.lease = lease;
        sequence.computed = hits * BLOCK_TOKENS;
        if !sequence.prefilled {
            sequence.prefilled = true;
            let cached_tokens = sequence.computed;
            self.metrics.admitted(sequence.prompt_len(), cached_tokens);
            sequence.send(Event::Prefilled { cached_tokens });
        }
        Some(sequence)
    }

    /// Ends the step that [`Scheduler::plan`] began: whoever has all tokens computed gets the next.
    pub(super) fn complete(&mut self) {
        let now = Instant::now();
        let mut at = 0;
        while at < self.running.len() {
            let sequence = &mut self.running[at];
            let planned = std::mem::take(&mut sequence.planned);
            sequence.computed += planned;
            let full = (sequence.computed / BLOCK_TOKENS).min(sequence.hashes.len());
            self.cache
                .publish(&mut sequence.lease, &sequence.hashes[..full]);
            if planned == 0 || sequence.computed < sequence.tokens.len() {
                at += 1;
                continue;
            }
            match advance(sequence, self.config.mean_length, &self.metrics, now) {
                None => at += 1,
                Some(reason) => {
                    let sequence = self.running.remove(at);
                    self.retire(sequence, reason);
                }
            }
        }
    }
}

/// Gives a sequence its next token. Returns the reason where that was its end.
fn advance(
    sequence: &mut Sequence,
    mean_length: u32,
    metrics: &Metrics,
    now: Instant,
) -> Option<FinishReason> {
    if sequence.request.max_tokens == 0 {
        return Some(FinishReason::Stop);
    }
    let may_end =
        !sequence.request.ignore_eos && sequence.generated() >= sequence.request.min_tokens;
    let mean_length = if may_end { mean_length } else { 0 };
    let Some(token) = tokens::next(
        sequence.context,
        sequence.tokens.last().copied(),
        mean_length,
    ) else {
        return Some(FinishReason::Stop);
    };
    sequence.push(token);
    sequence.send(Event::Token(token));
    match sequence.last_token.replace(now) {
        None => metrics.first_token(now - sequence.arrived),
        Some(last) => metrics.further_token(now - last),
    }
    (sequence.generated() >= sequence.request.max_tokens).then_some(FinishReason::Length)
}
