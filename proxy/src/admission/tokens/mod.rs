//! Budgets of tokens: reserved when a request to a model is let through, settled by what it has really used.
//!
//! A budget is that of one key in one window. Where the service's sidecars share it, each spends what the control plane has leased
//! to it ([`Hub`]); no request waits for a lease. Without a reservation nothing is let through, and with it nothing is lost: it
//! settles when its request ends, however that is.

mod bucket;
mod hub;
mod leases;
mod meter;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use http::HeaderValue;

use super::rate_limit::{KeyPart, Subject};
use super::refusals::{Limit, Refusals};
use crate::balance::clock;
use crate::identity::SpiffeId;
use crate::policy::matching::{Match, RequestFacts};
pub(crate) use bucket::{Bucket, Digest};
use bucket::{BucketTable, Wanted};
pub use hub::Hub;
pub use leases::Asked;
use meter::Part;
pub use meter::{End, Meter};

/// Which tokens are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    Input,
    Output,
    Total,
}

impl Counted {
    fn of(self, input: u64, output: u64) -> u64 {
        match self {
            Counted::Input => input,
            Counted::Output => output,
            Counted::Total => input.saturating_add(output),
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Counted::Input => "input",
            Counted::Output => "output",
            Counted::Total => "total",
        }
    }
}

/// One budget.
#[derive(Clone, Debug)]
pub struct TokenBudget {
    /// `<namespace>/<name>`.
    pub service: Arc<str>,
    /// `<namespace>/<name>` of the resource.
    pub policy: Arc<str>,
    /// Unique in the policy.
    pub name: Arc<str>,
    /// Any of them; empty: everything.
    pub matches: Vec<Match>,
    pub key: Vec<KeyPart>,
    /// Of a key in a window.
    pub tokens: u64,
    /// Of a window.
    pub per: Duration,
    pub counted: Counted,
    /// By all sidecars of the service.
    pub shared: bool,
    /// Streams are ended where it is.
    pub hard_limit: bool,
    /// Reserved for an answer without a maximum.
    pub default_max_tokens: u32,
    /// Of a key in a window, before the control plane has answered.
    pub advance: u64,
    /// Say what is left on every response.
    pub always_report: bool,
    /// Survives changes of the configuration that leave key and window as they are.
    pub counts: Arc<Counts>,
}

/// What was counted of a budget. Shared by all workers.
#[derive(Debug)]
pub struct Counts {
    table: BucketTable,
    /// Who counts, for the control plane.
    pub(crate) holder: u64,
    hub: Arc<Hub>,
    allowed: AtomicU64,
    refused: AtomicU64,
    spent: AtomicU64,
    pub(crate) leased: AtomicU64,
    stopped: AtomicU64,
}

impl Counts {
    /// For a budget with this key.
    pub fn new(key: &[KeyPart], max_keys: u32, hub: &Arc<Hub>) -> Counts {
        Counts {
            table: BucketTable::new(if key.is_empty() { 1 } else { max_keys }),
            holder: rand::random(),
            hub: Arc::clone(hub),
            allowed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            spent: AtomicU64::new(0),
            leased: AtomicU64::new(0),
            stopped: AtomicU64::new(0),
        }
    }

    pub fn allowed(&self) -> u64 {
        self.allowed.load(Relaxed)
    }

    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Tokens of requests that have ended.
    pub fn spent(&self) -> u64 {
        self.spent.load(Relaxed)
    }

    /// Tokens that the control plane has leased, less those that were given back.
    pub fn leased(&self) -> u64 {
        self.leased.load(Relaxed)
    }

    /// Streams that were ended.
    pub fn stopped(&self) -> u64 {
        self.stopped.load(Relaxed)
    }

    /// Requests whose key shared a bucket.
    pub fn crowded(&self) -> u64 {
        self.table.crowded()
    }
}

/// What a request will most likely use.
#[derive(Clone, Copy, Debug, Default)]
pub struct Estimate {
    /// Of the prompt.
    pub input: u64,
    /// Of the answer at most. `None`: it is not said.
    pub output: Option<u64>,
    /// Answers that it wants.
    pub choices: u32,
}

/// What the headers of a response say of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub limit: u64,
    /// As far as is known here.
    pub remaining: u64,
    /// Until the window ends, rounded up.
    pub reset: Duration,
    /// Zero where the request was let through.
    pub retry_after: Duration,
}

/// Why a request is refused.
#[derive(Debug)]
pub struct Refused<'a> {
    pub budget: &'a TokenBudget,
    pub standing: Standing,
    /// Tokens that it would have needed.
    pub needed: u64,
}

/// Reserves of all budgets that are for a request; of none where one refuses. `None`: no budget is for it.
pub fn reserve<'a>(
    budgets: &'a [Arc<TokenBudget>],
    refusals: &Refusals,
    facts: &RequestFacts<'_>,
    subject: &Subject<'_>,
    estimate: Estimate,
) -> Result<Option<(Meter, Option<Standing>)>, Refused<'a>> {
    let now = clock::now();
    let mut parts: Vec<Part> = Vec::new();
    let mut report = None;
    for budget in budgets {
        if !budget.matches.is_empty() && !budget.matches.iter().any(|each| each.matches(facts)) {
            continue;
        }
        let output = estimate.output.unwrap_or_else(|| {
            u64::from(budget.default_max_tokens) * u64::from(estimate.choices.max(1))
        });
        let needed = budget.counted.of(estimate.input, output);
        let bucket = budget.bucket(facts, subject);
        let taken = bucket.take(needed, now);
        if !taken {
            bucket.short.fetch_max(needed.min(budget.tokens), Relaxed);
        }
        budget.ask(&bucket, !taken, now);
        if !taken {
            budget.counts.refused.fetch_add(1, Relaxed);
            refusals.count(Limit::Tokens);
            for part in parts {
                part.take_back();
            }
            let standing = budget.standing(&bucket, needed);
            return Err(Refused {
                budget,
                standing,
                needed,
            });
        }
        if budget.always_report && report.is_none() {
            report = Some(budget.standing(&bucket, 0));
        }
        parts.push(Part::new(budget, bucket, needed));
    }
    if parts.is_empty() {
        return Ok(None);
    }
    Ok(Some((Meter::new(parts, estimate.input), report)))
}

impl TokenBudget {
    /// Milliseconds; never zero.
    pub(crate) fn per_ms(&self) -> u64 {
        u64::try_from(self.per.as_millis())
            .unwrap_or(u64::MAX)
            .max(1)
    }

    pub(crate) fn window(&self) -> u64 {
        self.counts.hub.unix_ms() / self.per_ms()
    }

    /// Has a lease asked for, where one is needed and is not asked for yet.
    fn ask(self: &Arc<Self>, bucket: &Arc<Bucket>, refused: bool, now: u64) {
        if self.shared
            && (refused || bucket.is_low())
            && bucket.may_ask(now)
            && !bucket.wanting.swap(true, Relaxed)
        {
            self.counts.hub.want(self, bucket);
        }
    }

    fn standing(&self, bucket: &Bucket, needed: u64) -> Standing {
        let per = self.per_ms();
        let left = Duration::from_millis(per - self.counts.hub.unix_ms() % per);
        let free = u64::try_from(bucket.free()).unwrap_or(0);
        let others = if self.shared { bucket.left() } else { 0 };
        // A lease may be on its way, or may be found with another sidecar.
        let is_waiting = self.shared && (!bucket.is_answered() || others > 0);
        let retry_after = match needed {
            0 => Duration::ZERO,
            _ if is_waiting => Duration::from_secs(1).min(left),
            _ => left,
        };
        Standing {
            limit: self.tokens,
            remaining: free.saturating_add(others).min(self.tokens),
            reset: left,
            retry_after,
        }
    }

    fn bucket(&self, facts: &RequestFacts<'_>, subject: &Subject<'_>) -> Arc<Bucket> {
        let window = self.window();
        let digest = self.digest(facts, subject);
        let caller = subject.caller.map(SpiffeId::as_str);
        let (held, advance) = if self.shared {
            (0, self.advance)
        } else {
            (self.tokens, 0)
        };
        let crowd = || {
            let mut hash = Context::new(&SHA256);
            hash.update(b"crowded\0");
            hash.update(caller.unwrap_or_default().as_bytes());
            cut(hash)
        };
        self.counts.table.bucket(&Wanted {
            digest,
            window,
            caller: &caller,
            crowd: &crowd,
            make: &|found| {
                let label = if found == digest {
                    self.label(facts, subject)
                } else {
                    "(further keys)".into()
                };
                Bucket::new(found, label, window, held, advance)
            },
            advance: self.advance,
        })
    }

    /// The key: each part with its length, so that no two run into each other.
    fn digest(&self, facts: &RequestFacts<'_>, subject: &Subject<'_>) -> Digest {
        let mut hash = Context::new(&SHA256);
        for part in &self.key {
            let (tag, value) = value(part, facts, subject);
            hash.update(&[tag]);
            hash.update(&(value.len() as u64).to_le_bytes());
            hash.update(value);
        }
        cut(hash)
    }

    fn label(&self, facts: &RequestFacts<'_>, subject: &Subject<'_>) -> Box<str> {
        let mut label = String::new();
        for part in &self.key {
            let (_, value) = value(part, facts, subject);
            if !label.is_empty() {
                label.push(' ');
            }
            label.extend(
                String::from_utf8_lossy(value)
                    .chars()
                    .filter(|it| !it.is_control())
                    .take(MAX_LABEL),
            );
        }
        let end = (0..=MAX_LABEL)
            .rev()
            .find(|end| label.is_char_boundary(*end))
            .unwrap_or(0);
        label.truncate(end);
        label.into()
    }
}

/// Bytes of a key that are kept for people.
const MAX_LABEL: usize = 128;

fn cut(hash: Context) -> Digest {
    let mut digest = Digest::default();
    for (to, from) in digest.iter_mut().zip(hash.finish().as_ref()) {
        *to = *from;
    }
    digest
}

/// A part's value, and a number for the kind of part that it is.
fn value<'a>(
    part: &KeyPart,
    facts: &'a RequestFacts<'_>,
    subject: &'a Subject<'_>,
) -> (u8, &'a [u8]) {
    let text = |text: Option<&'a str>| text.unwrap_or_default().as_bytes();
    match part {
        KeyPart::Identity => (1, text(subject.caller.map(SpiffeId::as_str))),
        KeyPart::Namespace => (2, text(subject.caller.map(SpiffeId::namespace))),
        KeyPart::Path => (3, facts.path.as_bytes()),
        KeyPart::Method => (4, facts.method.as_str().as_bytes()),
        KeyPart::Header(name) => {
            let value = facts.headers.get(name);
            (5, value.map_or(&[][..], HeaderValue::as_bytes))
        }
        KeyPart::Model => (6, text(subject.model)),
        KeyPart::Tenant => (7, text(subject.tenant)),
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
