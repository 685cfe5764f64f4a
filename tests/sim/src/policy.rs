//! Who chooses: the sidecars' own code, or a router in the middle that sees everything, as a measure.

use std::sync::Arc;

use anyhow::bail;
use outrigger_proxy::balance::{
    self, Asked, Endpoint, EndpointSet, InFlight, LoadReport, Settings, simulation,
};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::cache::{BLOCK, ByHash};
use crate::replica::Replica;
use crate::workload::Request;
use crate::{SECOND, Time};

/// A policy of the simulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Of the sidecars.
    Sidecar(balance::Policy),
    /// A central router that sees every cache as it is.
    Precise,
    /// A central router that keeps a book of what it sent where.
    Approximate,
}

impl Policy {
    pub const ALL: [Policy; 8] = [
        Policy::Precise,
        Policy::Approximate,
        Policy::Sidecar(balance::Policy::PrefixAffinity),
        Policy::Sidecar(balance::Policy::ModelLoad),
        Policy::Sidecar(balance::Policy::LeastRequest),
        Policy::Sidecar(balance::Policy::PeakEwma),
        Policy::Sidecar(balance::Policy::RoundRobin),
        Policy::Sidecar(balance::Policy::Random),
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Policy::Sidecar(policy) => policy.as_str(),
            Policy::Precise => "precise",
            Policy::Approximate => "approximate",
        }
    }
}

impl std::str::FromStr for Policy {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> anyhow::Result<Policy> {
        match Policy::ALL
            .into_iter()
            .find(|policy| policy.as_str() == name)
        {
            Some(policy) => Ok(policy),
            None => bail!(
                "{name:?} is not a policy; there are {}",
                Policy::ALL.map(Policy::as_str).join(", ")
            ),
        }
    }
}

/// What the sidecars are told of replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Reports {
    /// Nothing.
    None,
    /// What engines export: waiting, running, use of the KV cache.
    Engine,
    /// Besides, what the replica's own sidecar can count: prompt tokens that are not read.
    Exact,
}

impl Reports {
    /// A replica's word at this moment.
    pub fn of(self, replica: &Replica, requests: &[Request]) -> Option<LoadReport> {
        if self == Reports::None {
            return None;
        }
        let (waiting, running) = replica.requests();
        Some(LoadReport {
            waiting: Some(waiting),
            running: Some(running),
            kv_usage: Some(replica.cache.usage() as f32),
            prompt_tokens: (self == Reports::Exact).then(|| replica.unread(requests)),
        })
    }
}

/// All choosers of a run.
#[derive(Debug)]
pub enum Choosers {
    Sidecars(Vec<Sidecar>),
    Central(Box<Central>),
}

/// One sidecar: its own endpoints, counts and chance.
#[derive(Debug)]
pub struct Sidecar {
    set: EndpointSet,
    rng: StdRng,
}

impl Sidecar {
    fn new(settings: &Arc<Settings>, replicas: usize, seed: u64) -> Sidecar {
        let endpoints = (0..replicas)
            .map(|index| {
                simulation::endpoint(
                    ([10, 0, (index / 250) as u8, (index % 250) as u8 + 1], 8000).into(),
                )
            })
            .collect();
        Sidecar {
            set: EndpointSet::with(Arc::clone(settings), endpoints, Arc::default(), None),
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// Chooses, and counts the request.
    pub fn send(
        &mut self,
        now: Time,
        request: &Request,
        by_session: bool,
    ) -> Option<(usize, InFlight)> {
        let asked = Asked {
            key: by_session.then_some(request.session),
            prompt: Some(&request.prompt),
        };
        let picked = simulation::pick(&self.set, now, &asked, &mut self.rng)?;
        let found = |each: &Arc<Endpoint>| Arc::ptr_eq(each, &picked.endpoint);
        let index = self.set.endpoints().iter().position(found)?;
        Some((
            index,
            simulation::begin(&picked.endpoint, now, picked.uncached),
        ))
    }

    /// A replica's report has come.
    pub fn report(&self, now: Time, replica: usize, report: &LoadReport) {
        simulation::report(&self.set.endpoints()[replica], now, report);
    }
}

impl Choosers {
    pub fn new(
        policy: Policy,
        settings: &Settings,
        sidecars: usize,
        replicas: usize,
        seed: u64,
    ) -> Choosers {
        match policy {
            Policy::Sidecar(policy) => {
                let settings = Arc::new(Settings {
                    policy,
                    ..settings.clone()
                });
                let sidecar = |number| Sidecar::new(&settings, replicas, seed.wrapping_add(number));
                Choosers::Sidecars((0..sidecars as u64).map(sidecar).collect())
            }
            policy => Choosers::Central(Box::new(Central {
                is_precise: policy == Policy::Precise,
                books: (0..replicas).map(|_| Book::default()).collect(),
                under_way: vec![0; replicas],
                clock: 0,
                scraped: Vec::new(),
                scraped_at: 0,
            })),
        }
    }
}

/// A router in the middle.
#[derive(Debug)]
pub struct Central {
    is_precise: bool,
    books: Vec<Book>,
    /// Requests, by replica.
    pub under_way: Vec<u32>,
    clock: u64,
    /// Waiting requests and use of the cache, as the replicas' metrics said when they were last read.
    scraped: Vec<(u32, f64)>,
    scraped_at: Time,
}

/// Blocks in the approximate book of each replica (llm-d's).
const BOOK: usize = 31_250;
/// Blocks of a prompt that are looked at there: llm-d's first 256 of 64 characters.
const BOOKED: usize = 256;
/// Time between two readings of the replicas' metrics by the approximate router.
const SCRAPE: Time = SECOND / 5;

impl Central {
    pub fn choose(&mut self, now: Time, request: &Request, replicas: &[Replica]) -> usize {
        let prompt = &request.chain[..(request.prompt_tokens / BLOCK) as usize];
        // What a precise router sees is true at each moment, the other's is from its last reading.
        if self.is_precise || self.scraped.is_empty() || now >= self.scraped_at + SCRAPE {
            self.scraped_at = now;
            let all = replicas.iter();
            self.scraped = all.map(|it| (it.requests().0, it.cache.usage())).collect();
        }
        let booked = &prompt[..prompt.len().min(BOOKED)];
        // llm-d's scorers and their weights: prefix 2, queue 1, KV use 1.
        let longest = self.scraped.iter().map(|it| it.0).max().unwrap_or(0).max(1);
        let score = |index: usize| {
            let (waiting, usage) = self.scraped[index];
            let hit = match self.is_precise {
                true => replicas[index].cache.matched(prompt) as f64 / prompt.len().max(1) as f64,
                false => self.books[index].matched(booked) as f64 / booked.len().max(1) as f64,
            };
            2.0 * hit + 1.0 - f64::from(waiting) / f64::from(longest) + 1.0 - usage
        };
        let best = (0..replicas.len())
            .map(|index| (score(index), index))
            .max_by(|a, b| {
                a.0.total_cmp(&b.0)
                    .then(self.under_way[b.1].cmp(&self.under_way[a.1]))
            });
        let best = best.map_or(0, |best| best.1);
        self.clock += 1;
        if !self.is_precise {
            self.books[best].write(booked, self.clock);
        }
        best
    }
}

/// What a router believes to be in a cache: the last blocks it sent there.
#[derive(Debug, Default)]
struct Book {
    blocks: ByHash<u64>,
    order: std::collections::BTreeMap<(u64, u64), u64>,
}

impl Book {
    fn matched(&self, prompt: &[u64]) -> usize {
        prompt
            .iter()
            .take_while(|hash| self.blocks.contains_key(hash))
            .count()
    }

    fn write(&mut self, prompt: &[u64], clock: u64) {
        for (place, hash) in (0_u64..).zip(prompt) {
            // The last blocks of a prompt are the first to go.
            let when = clock * BOOKED as u64 + (BOOKED as u64 - 1 - place);
            if let Some(before) = self.blocks.insert(*hash, when) {
                self.order.remove(&(before, *hash));
            }
            self.order.insert((when, *hash), *hash);
        }
        while self.blocks.len() > BOOK {
            let Some((_, hash)) = self.order.pop_first() else {
                return;
            };
            self.blocks.remove(&hash);
        }
    }
}
