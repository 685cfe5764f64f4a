//! Rate limits of a port, as this sidecar counts them.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::gcra::Rate;
use super::keys::KeyTable;
use super::refusals::{Limit, Refusals};
use super::tokens::{self, TokenBudget};
use crate::balance::clock;
use crate::identity::SpiffeId;
use crate::policy::matching::{Match, RequestFacts};

/// What tells keys apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPart {
    Identity,
    Namespace,
    Path,
    Method,
    Header(HeaderName),
    /// As the service names it.
    Model,
    /// A client's word.
    Tenant,
}

/// What keys are made of besides the request's head.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    /// `None`: plaintext.
    pub caller: Option<&'a SpiffeId>,
    pub model: Option<&'a str>,
    pub tenant: Option<&'a str>,
}

/// One limit.
#[derive(Clone, Debug)]
pub struct RateLimit {
    /// `<namespace>/<name>` of the resource.
    pub policy: Arc<str>,
    /// Unique in the policy.
    pub name: Arc<str>,
    /// Any of them; empty: everything.
    pub matches: Vec<Match>,
    pub key: Vec<KeyPart>,
    pub rate: Rate,
    /// Say what is left on every response.
    pub always_report: bool,
    /// Survives changes of the configuration that leave rate and key as they are.
    pub counts: Arc<Counts>,
}

/// What was counted. Shared by all workers.
#[derive(Debug)]
pub struct Counts {
    buckets: Buckets,
    allowed: AtomicU64,
    refused: AtomicU64,
}

#[derive(Debug)]
enum Buckets {
    /// All requests together.
    One(AtomicU64),
    ByKey(KeyTable),
}

impl Counts {
    /// For a limit with this key.
    pub fn new(key: &[KeyPart], max_keys: u32) -> Counts {
        Counts {
            buckets: if key.is_empty() {
                Buckets::One(AtomicU64::new(0))
            } else {
                Buckets::ByKey(KeyTable::new(max_keys))
            },
            allowed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    pub fn allowed(&self) -> u64 {
        self.allowed.load(Relaxed)
    }

    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Requests whose key shared a bucket.
    pub fn crowded(&self) -> u64 {
        match &self.buckets {
            Buckets::One(_) => 0,
            Buckets::ByKey(table) => table.crowded(),
        }
    }
}

/// All limits of a port. Never without any.
#[derive(Debug)]
pub struct RateLimits {
    pub limits: Vec<RateLimit>,
    /// Those of tokens.
    pub budgets: Vec<Arc<TokenBudget>>,
    pub refusals: Arc<Refusals>,
}

/// What the headers of a response say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    limit: u64,
    remaining: u64,
    reset: Duration,
    retry_after: Duration,
}

/// Whether a request is let through.
#[derive(Debug)]
pub enum Decision<'a> {
    /// With what is to be reported, if anything is.
    Allowed(Option<Report>),
    Refused(&'a RateLimit, Report),
}

impl RateLimits {
    /// Counts a request against all limits that are for it. Where one refuses it, it uses up none of the others.
    pub fn decide(&self, facts: &RequestFacts<'_>, subject: &Subject<'_>) -> Decision<'_> {
        let now = clock::now();
        let mut tightest: Option<Report> = None;
        for (index, limit) in self.limits.iter().enumerate() {
            if !limit.is_for(facts) {
                continue;
            }
            let bucket = limit.bucket(facts, subject, now);
            let (allowed, standing) = match limit.rate.take(bucket, now) {
                Ok(standing) => (true, standing),
                Err(standing) => (false, standing),
            };
            let report = Report {
                limit: limit.rate.requests().into(),
                remaining: standing.remaining.into(),
                reset: standing.reset,
                retry_after: standing.retry_after,
            };
            if !allowed {
                limit.counts.refused.fetch_add(1, Relaxed);
                self.refusals.count(Limit::Rate);
                self.give_back(index, facts, subject);
                return Decision::Refused(limit, report);
            }
            limit.counts.allowed.fetch_add(1, Relaxed);
            if limit.always_report
                && tightest.is_none_or(|other| report.remaining < other.remaining)
            {
                tightest = Some(report);
            }
        }
        Decision::Allowed(tightest)
    }

    /// Counts a request out of the first limits, which have let it through and another one has not.
    pub(crate) fn give_back(&self, first: usize, facts: &RequestFacts<'_>, subject: &Subject<'_>) {
        let now = clock::now();
        for earlier in self.limits[..first]
            .iter()
            .filter(|each| each.is_for(facts))
        {
            earlier.rate.give_back(earlier.bucket(facts, subject, now));
            earlier.counts.allowed.fetch_sub(1, Relaxed);
        }
    }
}

impl RateLimit {
    fn is_for(&self, facts: &RequestFacts<'_>) -> bool {
        self.matches.is_empty() || self.matches.iter().any(|each| each.matches(facts))
    }

    fn bucket(&self, facts: &RequestFacts<'_>, subject: &Subject<'_>, now: u64) -> &AtomicU64 {
        match &self.counts.buckets {
            Buckets::One(bucket) => bucket,
            Buckets::ByKey(table) => {
                let key = Key {
                    parts: &self.key,
                    facts,
                    subject,
                };
                table.bucket(&key, &subject.caller.map(SpiffeId::as_str), now)
            }
        }
    }
}

/// A request's key: hashed, never put together.
struct Key<'a> {
    parts: &'a [KeyPart],
    facts: &'a RequestFacts<'a>,
    subject: &'a Subject<'a>,
}

impl Hash for Key<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for part in self.parts {
            // Each writes its own end: no two keys run into each other.
            match part {
                KeyPart::Identity => self.subject.caller.map(SpiffeId::as_str).hash(state),
                KeyPart::Namespace => self.subject.caller.map(SpiffeId::namespace).hash(state),
                KeyPart::Path => self.facts.path.hash(state),
                KeyPart::Method => self.facts.method.hash(state),
                KeyPart::Header(name) => {
                    let value = self.facts.headers.get(name);
                    value.map_or(&[][..], HeaderValue::as_bytes).hash(state);
                }
                KeyPart::Model => self.subject.model.hash(state),
                KeyPart::Tenant => self.subject.tenant.hash(state),
            }
        }
    }
}

impl From<tokens::Standing> for Report {
    fn from(standing: tokens::Standing) -> Report {
        Report {
            limit: standing.limit,
            remaining: standing.remaining,
            reset: standing.reset,
            retry_after: standing.retry_after,
        }
    }
}

impl Report {
    /// Until the next request may be let through, whole seconds, at least one.
    pub fn retry_after(&self) -> u64 {
        seconds(self.retry_after).max(1)
    }

    /// The three headers that clients know best (draft-ietf-httpapi-ratelimit-headers up to version 07).
    pub(crate) fn write(&self, headers: &mut http::HeaderMap) {
        const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
        const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
        const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
        headers.insert(LIMIT, HeaderValue::from(self.limit));
        headers.insert(REMAINING, HeaderValue::from(self.remaining));
        headers.insert(RESET, HeaderValue::from(seconds(self.reset)));
    }
}

/// Rounded up: who comes back after as many is not too early.
fn seconds(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests;
