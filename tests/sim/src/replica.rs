//! A modelled engine: continuous batching with chunked prefill, as vLLM does it.
//!
//! A step takes `step + per_stream × streams + prompt tokens read / prefill rate`, reads at most [`Model::chunk`] tokens, and gives each stream
//! one token. A prompt is read from where no cached block covers it. A request is let in while the batch has a place and the
//! cache has room for its prompt; where a stream finds no room for its next block, the youngest request is put back and
//! reads its text again later.

use std::collections::VecDeque;

use crate::cache::{BLOCK, Cache};
use crate::workload::Request;
use crate::{Time, seconds};

/// What a replica can do. The defaults are a model of some 30 billion weights on two large cards, with the cache of llm-d's
/// measurement; the time per stream is chosen so that the measured rates fit at all, see `examples/model-balancing.md`.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// Prompt tokens read each second.
    pub prefill: f64,
    /// Seconds of a step.
    pub step: f64,
    /// Seconds that each stream adds to a step.
    pub per_stream: f64,
    /// Tokens of a step, at most.
    pub chunk: u32,
    /// Tokens in the cache.
    pub cache: u32,
    /// Requests in the batch.
    pub batch: usize,
    /// Requests that wait; more are refused.
    pub queue: usize,
    /// LoRA adapters that a batch can have.
    pub adapters: usize,
    /// Seconds to load one.
    pub adapter_load: f64,
}

impl Default for Model {
    fn default() -> Model {
        Model {
            prefill: 16_000.0,
            step: 0.012,
            per_stream: 0.000_04,
            chunk: 8192,
            cache: 307_328,
            batch: 256,
            queue: 4096,
            adapters: 8,
            adapter_load: 0.25,
        }
    }
}

#[derive(Debug)]
struct Sequence {
    request: usize,
    /// Tokens whose KV is there or being made.
    read: u32,
    /// Tokens to read before the next token comes: the prompt, and after it was put back what it had said.
    to_read: u32,
    said: u32,
    blocks: Vec<u32>,
    adapter: u64,
}

/// What a step brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    FirstToken(usize),
    End(usize),
}

/// Sums of what a replica did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    pub prompt_tokens: u64,
    pub cached_tokens: u64,
    pub output_tokens: u64,
    pub put_back: u64,
    pub adapter_loads: u64,
    /// Nanoseconds in steps.
    pub busy: Time,
}

/// One engine.
#[derive(Debug)]
pub struct Replica {
    model: Model,
    pub cache: Cache,
    waiting: VecDeque<Sequence>,
    running: Vec<Sequence>,
    /// The most recently used last.
    adapters: Vec<u64>,
    pub done: Done,
    pub is_stepping: bool,
}

impl Replica {
    pub fn new(model: Model) -> Replica {
        Replica {
            cache: Cache::new(model.cache),
            model,
            waiting: VecDeque::new(),
            running: Vec::new(),
            adapters: Vec::new(),
            done: Done::default(),
            is_stepping: false,
        }
    }

    /// Requests that wait, and those in the batch.
    pub fn requests(&self) -> (u32, u32) {
        (self.waiting.len() as u32, self.running.len() as u32)
    }

    /// Prompt tokens that are here and not read, by what the cache holds now.
    pub fn unread(&self, requests: &[Request]) -> u64 {
        let waiting = self.waiting.iter().map(|each| {
            let chain = &requests[each.request].chain;
            let cached = self
                .cache
                .matched(&chain[..(each.to_read / BLOCK) as usize]) as u32;
            each.to_read - (cached * BLOCK).min(each.to_read)
        });
        let running = self
            .running
            .iter()
            .map(|each| each.to_read.saturating_sub(each.read));
        waiting.chain(running).map(u64::from).sum()
    }

    /// Takes a request. `false`: it is refused, the queue is full.
    pub fn add(&mut self, index: usize, request: &Request) -> bool {
        if self.waiting.len() >= self.model.queue {
            return false;
        }
        self.waiting.push_back(Sequence {
            request: index,
            read: 0,
            to_read: request.prompt_tokens,
            said: 0,
            blocks: Vec::new(),
            adapter: request.adapter,
        });
        true
    }

    /// Begins a step: how long it takes. `None`: there is nothing to do.
    pub fn begin_step(&mut self, requests: &[Request]) -> Option<Time> {
        self.make_room(requests);
        let streams = self
            .running
            .iter()
            .filter(|each| each.read >= each.to_read)
            .count();
        let mut left = self.model.chunk.saturating_sub(streams as u32);
        let mut read = 0;
        let mut loads = 0;
        for each in &mut self.running {
            let chunk = each.to_read.saturating_sub(each.read).min(left);
            each.read += chunk;
            left -= chunk;
            read += chunk;
        }
        while left > 0 && self.running.len() < self.model.batch {
            let Some(next) = self.waiting.front() else {
                break;
            };
            let chain = &requests[next.request].chain[..next.to_read.div_ceil(BLOCK) as usize];
            let whole = (next.to_read / BLOCK) as usize;
            let matched = self.cache.matched(&chain[..whole]);
            let revived = chain[..matched]
                .iter()
                .filter(|hash| self.cache.is_unused(**hash));
            if self.cache.room() < chain.len() - matched + revived.count() {
                break;
            }
            let Some(loaded) = self.load_adapter() else {
                break;
            };
            loads += usize::from(loaded);
            let Some(mut next) = self.waiting.pop_front() else {
                break;
            };
            next.blocks = chain
                .iter()
                .filter_map(|hash| self.cache.take(*hash))
                .collect();
            // The last token is always read: it is what the first answer is made of.
            let cached = (matched as u32 * BLOCK).min(next.to_read - 1);
            if next.said == 0 {
                self.done.prompt_tokens += u64::from(next.to_read);
                self.done.cached_tokens += u64::from(cached);
            }
            let chunk = (next.to_read - cached).min(left);
            next.read = cached + chunk;
            left -= chunk;
            read += chunk;
            self.running.push(next);
        }
        if self.running.is_empty() {
            return None;
        }
        let model = &self.model;
        self.done.adapter_loads += loads as u64;
        let time = model.step
            + model.per_stream * streams as f64
            + f64::from(read) / model.prefill
            + model.adapter_load * loads as f64;
        let time = seconds(time);
        self.done.busy += time;
        Some(time)
    }

    /// Ends the step that was begun.
    pub fn end_step(&mut self, requests: &[Request], events: &mut Vec<Event>) {
        let mut index = 0;
        while index < self.running.len() {
            let each = &mut self.running[index];
            if each.read < each.to_read {
                index += 1;
                continue;
            }
            each.said += 1;
            self.done.output_tokens += 1;
            if each.said == 1 {
                events.push(Event::FirstToken(each.request));
            }
            if each.said >= requests[each.request].output_tokens {
                let each = self.running.remove(index);
                self.cache.give_back(&each.blocks);
                events.push(Event::End(each.request));
            } else {
                each.read += 1;
                each.to_read += 1;
                index += 1;
            }
        }
    }

    /// A block for each stream's next token.
    fn make_room(&mut self, requests: &[Request]) {
        let mut index = 0;
        while index < self.running.len() {
            let each = &self.running[index];
            let needed = each.to_read.div_ceil(BLOCK) as usize;
            if each.blocks.len() >= needed {
                index += 1;
                continue;
            }
            let hash = requests[each.request].chain[needed - 1];
            match self.cache.take(hash) {
                Some(block) => self.running[index].blocks.push(block),
                None => {
                    let Some(mut youngest) = self.running.pop() else {
                        return;
                    };
                    self.cache.give_back(&youngest.blocks);
                    youngest.blocks.clear();
                    youngest.read = 0;
                    self.done.put_back += 1;
                    self.waiting.push_front(youngest);
                }
            }
        }
    }

    /// Whether the adapter of the next request had to be loaded. `None`: others are in use.
    fn load_adapter(&mut self) -> Option<bool> {
        let adapter = self.waiting.front()?.adapter;
        if adapter == 0 {
            return Some(false);
        }
        let loaded = self.adapters.iter().position(|each| *each == adapter);
        if let Some(loaded) = loaded {
            self.adapters.remove(loaded);
        } else if self.adapters.len() >= self.model.adapters {
            let in_use = |adapter: &u64| self.running.iter().any(|each| each.adapter == *adapter);
            let oldest = self.adapters.iter().position(|each| !in_use(each))?;
            self.adapters.remove(oldest);
        }
        self.adapters.push(adapter);
        Some(loaded.is_none())
    }
}
