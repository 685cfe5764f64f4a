//! The tokens of one request, from its reservation to what it has really used.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::{Bucket, TokenBudget};
use crate::balance::clock;

/// What a request has of its budgets. Settles when it is dropped, if nobody has done it before.
#[derive(Debug)]
pub struct Meter {
    parts: Box<[Part]>,
    /// Estimate of the prompt.
    input: u64,
    /// Counted of the answer.
    output: Cell<u64>,
    /// It was given to the application.
    sent: Cell<bool>,
    settled: Cell<bool>,
    /// A budget has ended it.
    stopped: Cell<bool>,
}

/// Of one budget.
#[derive(Debug)]
pub(super) struct Part {
    budget: Arc<TokenBudget>,
    bucket: Arc<Bucket>,
    reserved: Cell<u64>,
}

/// How much a request has used, by how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing: it was refused, or failed.
    Nothing,
    /// What is known; the estimate for what is not.
    Used {
        input: Option<u64>,
        output: Option<u64>,
    },
    /// It had an answer that does not say: all that was reserved.
    Unknown,
}

impl Part {
    pub(super) fn new(budget: &Arc<TokenBudget>, bucket: Arc<Bucket>, reserved: u64) -> Part {
        budget.counts.allowed.fetch_add(1, Relaxed);
        Part {
            budget: Arc::clone(budget),
            bucket,
            reserved: Cell::new(reserved),
        }
    }

    /// Another budget has refused the request.
    pub(super) fn take_back(self) {
        self.budget.counts.allowed.fetch_sub(1, Relaxed);
        self.settle(0);
    }

    /// Reserves more for what was used already. False: there is no more.
    fn extend(&self, used: u64) -> bool {
        let reserved = self.reserved.get();
        let Some(more) = used.checked_sub(reserved).filter(|more| *more > 0) else {
            return true;
        };
        let now = clock::now();
        let taken = self.bucket.take(more, now);
        self.budget.ask(&self.bucket, !taken, now);
        if !taken {
            // It is used, whether it was there or not.
            self.bucket.settle(-i64::try_from(more).unwrap_or(i64::MAX));
        }
        self.reserved.set(used);
        taken
    }

    fn settle(&self, used: u64) {
        let back = i128::from(self.reserved.get()) - i128::from(used);
        let back = back.clamp(i64::MIN.into(), i64::MAX.into());
        self.bucket.settle(i64::try_from(back).unwrap_or(0));
        self.reserved.set(used);
    }
}

impl Meter {
    pub(super) fn new(parts: Vec<Part>, input: u64) -> Meter {
        Meter {
            parts: parts.into(),
            input,
            output: Cell::new(0),
            sent: Cell::new(false),
            settled: Cell::new(false),
            stopped: Cell::new(false),
        }
    }

    /// A budget of it ends streams.
    pub fn has_hard_limit(&self) -> bool {
        self.parts.iter().any(|part| part.budget.hard_limit)
    }

    /// It is given to the application from now on.
    pub fn send(&self) {
        self.sent.set(true);
    }

    pub fn is_sent(&self) -> bool {
        self.sent.get()
    }

    /// So many tokens of the answer were seen until now. False: a budget with a hard limit is spent, and the stream is to end.
    pub fn progress(&self, output: u32) -> bool {
        let output = u64::from(output);
        if output == self.output.replace(output) || self.settled.get() {
            return !self.stopped.get();
        }
        let mut go_on = true;
        for part in &self.parts {
            let is_there = part.extend(part.budget.counted.of(self.input, output));
            if !is_there && part.budget.hard_limit && go_on {
                go_on = false;
                part.budget.counts.stopped.fetch_add(1, Relaxed);
            }
        }
        if !go_on {
            self.stopped.set(true);
        }
        go_on
    }

    /// A budget has ended the stream.
    pub fn is_stopped(&self) -> bool {
        self.stopped.get()
    }

    /// Tokens of prompt and answer as they are known here.
    pub fn known(&self) -> (u64, u64) {
        (self.input, self.output.get())
    }

    /// The request has ended.
    pub fn settle(&self, end: End) {
        if self.settled.replace(true) {
            return;
        }
        for part in &self.parts {
            let used = match end {
                End::Nothing => 0,
                End::Used { input, output } => part.budget.counted.of(
                    input.unwrap_or(self.input),
                    output.unwrap_or(self.output.get()),
                ),
                End::Unknown => part.reserved.get(),
            };
            part.settle(used);
            part.budget.counts.spent.fetch_add(used, Relaxed);
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let end = match self.sent.get() {
            true => End::Used {
                input: None,
                output: None,
            },
            false => End::Nothing,
        };
        self.settle(end);
    }
}
