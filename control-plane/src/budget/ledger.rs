//! Who holds how much of which budget. Never more is leased of a window than its budget, whichever messages are lost and however
//! often the control plane starts again: what is leased is on disk, rounded up, before anybody hears of it.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};

/// A part of the budget that is written down at once: a crash costs the window at most that.
const STEPS: u64 = 16;
/// Keys of all budgets and windows. Some hundred bytes each.
const MAX_KEYS: usize = 100_000;
/// Sidecars, and their earlier lives, that hold something of one key in one window.
const MAX_HOLDERS: usize = 4096;
/// A window that is over is remembered so long: the clock may be set back by that.
pub(super) const GRACE_MS: u64 = 300_000;
/// Bytes of a key that are kept for people.
const MAX_LABEL: usize = 128;

/// A budget, and what it allows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Budget {
    /// `<namespace>/<name>` of the service.
    pub service: Arc<str>,
    /// `<namespace>/<name>` of the RateLimit.
    pub policy: Arc<str>,
    /// Name of the limit in it.
    pub limit: Arc<str>,
    /// Of a window, milliseconds.
    pub per_ms: u64,
}

/// What a sidecar asks for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    pub budget: &'a Budget,
    /// In each window.
    pub tokens: u64,
    /// Sidecars that may want some.
    pub sidecars: u64,
    pub instance: &'a str,
    pub holder: u64,
    pub key: &'a [u8],
    pub label: &'a str,
    pub window: u64,
    pub held: u64,
    pub needed: u64,
    pub ahead: bool,
    pub used: u64,
}

/// What it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    pub held: u64,
    pub left: u64,
}

/// What must be on disk before a lease is told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Begins with the window's end: those that are over come first.
    pub name: String,
    pub tokens: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Ledger {
    keys: HashMap<String, Account>,
    /// From disk, of windows that nobody has asked about since the start.
    restored: HashMap<String, u64>,
    /// The last that was taken of each instance.
    sequences: HashMap<String, u64>,
    pruned_at: u64,
}

/// Of a key in a window.
#[derive(Debug)]
struct Account {
    budget: Budget,
    label: Box<str>,
    window: u64,
    end_ms: u64,
    tokens: u64,
    /// Leased, to all.
    granted: u64,
    /// On disk.
    durable: u64,
    holders: HashMap<(Box<str>, u64), Holding>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Holding {
    held: u64,
    used: u64,
}

/// How a budget stands in its present window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    pub service: Arc<str>,
    pub limit: Arc<str>,
    pub key: Box<str>,
    pub tokens: u64,
    pub granted: u64,
    /// As sidecars said when they asked last.
    pub used: u64,
    pub ends_at_ms: u64,
}

impl Ledger {
    /// With what was on disk.
    pub fn new(rows: Vec<(String, u64)>) -> Ledger {
        Ledger {
            restored: rows.into_iter().collect(),
            ..Ledger::default()
        }
    }

    /// Whether a request is newer than all that were taken of its instance.
    pub fn is_new(&mut self, instance: &str, sequence: u64) -> bool {
        match self.sequences.get_mut(instance) {
            Some(last) if *last >= sequence => false,
            Some(last) => {
                *last = sequence;
                true
            }
            None => {
                self.sequences.insert(instance.to_owned(), sequence);
                true
            }
        }
    }

    /// Forgets instances that are gone.
    pub fn retain_instances(&mut self, is_known: impl Fn(&str) -> bool) {
        const MANY: usize = 20_000;
        if self.sequences.len() > MANY {
            self.sequences.retain(|instance, _| is_known(instance));
        }
    }

    /// Leases what can be leased, or takes back. The row, if any, must be on disk before the lease is told of.
    ///
    /// # Errors
    /// Says why nothing is leased.
    pub fn lease(&mut self, ask: &Ask<'_>, now_ms: u64) -> Result<(Lease, Option<Row>), String> {
        let present = now_ms / ask.budget.per_ms;
        if ask.window.abs_diff(present) > 1 {
            return Err(format!("window {} is not {present}", ask.window));
        }
        self.prune(now_ms);
        let name = row_name(ask);
        if !self.keys.contains_key(&name) && self.keys.len() >= MAX_KEYS {
            return Err(format!("more than {MAX_KEYS} keys have budgets"));
        }
        let restored = &mut self.restored;
        let account = self.keys.entry(name.clone()).or_insert_with(|| {
            let on_disk = restored.remove(&name).unwrap_or(0);
            Account {
                budget: ask.budget.clone(),
                label: cut(ask.label).into(),
                window: ask.window,
                end_ms: end_ms(ask),
                tokens: ask.tokens,
                granted: on_disk,
                durable: on_disk,
                holders: HashMap::new(),
            }
        });
        let holder = (Box::from(ask.instance), ask.holder);
        if !account.holders.contains_key(&holder) && account.holders.len() >= MAX_HOLDERS {
            return Err(format!("more than {MAX_HOLDERS} sidecars hold a lease"));
        }
        account.tokens = ask.tokens;
        let lease = account.lease(ask, holder);
        let row = account
            .to_write(ask.tokens)
            .map(|tokens| Row { name, tokens });
        Ok((lease, row))
    }

    /// A row is on disk.
    pub fn written(&mut self, row: &Row) {
        if let Some(account) = self.keys.get_mut(&row.name) {
            account.durable = account.durable.max(row.tokens);
        }
    }

    /// What is leased exactly, where the disk has it rounded up: to be written when nobody asks any more.
    pub fn exact(&self) -> Vec<Row> {
        let inexact = self
            .keys
            .iter()
            .filter(|(_, account)| account.durable > account.granted);
        inexact
            .map(|(name, account)| Row {
                name: name.clone(),
                tokens: account.granted,
            })
            .collect()
    }

    /// How the budgets of a policy stand in their present windows, the most used keys first.
    pub fn usage(&self, policy: &str, now_ms: u64) -> Vec<Usage> {
        let mut found: Vec<Usage> = self
            .keys
            .values()
            .filter(|account| {
                &*account.budget.policy == policy
                    && account.window == now_ms / account.budget.per_ms
            })
            .map(|account| Usage {
                service: account.budget.service.clone(),
                limit: account.budget.limit.clone(),
                key: account.label.clone(),
                tokens: account.tokens,
                granted: account.granted,
                used: account.holders.values().map(|it| it.used).sum(),
                ends_at_ms: account.end_ms,
            })
            .collect();
        found.sort_by(|a, b| {
            (&a.service, &a.limit)
                .cmp(&(&b.service, &b.limit))
                .then(b.granted.cmp(&a.granted))
                .then(a.key.cmp(&b.key))
        });
        found
    }

    fn prune(&mut self, now_ms: u64) {
        const EACH_MS: u64 = 10_000;
        if now_ms < self.pruned_at + EACH_MS {
            return;
        }
        self.pruned_at = now_ms;
        let oldest = oldest_row(now_ms);
        self.keys.retain(|name, _| *name >= oldest);
        self.restored.retain(|name, _| *name >= oldest);
    }
}

impl Account {
    fn lease(&mut self, ask: &Ask<'_>, holder: (Box<str>, u64)) -> Lease {
        // What it says that it holds counts where the control plane has started again since: it was counted then.
        let holding = self.holders.entry(holder).or_insert(Holding {
            held: ask.held,
            used: 0,
        });
        let before = holding.held;
        let mut held = before;
        let left = ask.tokens.saturating_sub(self.granted);
        if ask.needed > held {
            held += left.min(ask.needed - held);
        } else if !ask.ahead {
            held = ask.needed;
        }
        if ask.ahead {
            let left = left.saturating_sub(held.saturating_sub(before));
            // Half of an equal share: who needs more asks again, and nobody takes all.
            held += left / ask.sidecars.max(1).saturating_mul(2);
        }
        holding.held = held;
        holding.used = ask.used;
        self.granted = self.granted.saturating_add(held).saturating_sub(before);
        // A store that was lost has forgotten what its sidecars still hold.
        let known = self.holders.values().map(|it| it.held).sum();
        self.granted = self.granted.max(known);
        Lease {
            held,
            left: ask.tokens.saturating_sub(self.granted),
        }
    }

    /// What the disk must say, if it does not yet.
    fn to_write(&self, tokens: u64) -> Option<u64> {
        if self.granted <= self.durable {
            return None;
        }
        let ahead = self.granted.saturating_add((tokens / STEPS).max(1));
        Some(ahead.min(tokens.max(self.granted)))
    }
}

fn end_ms(ask: &Ask<'_>) -> u64 {
    let window = ask.window.saturating_add(1);
    window.saturating_mul(ask.budget.per_ms)
}

/// Rows before this one are of windows that nobody may ask about any more.
pub(super) fn oldest_row(now_ms: u64) -> String {
    format!("{:016x}", now_ms.saturating_sub(GRACE_MS))
}

fn row_name(ask: &Ask<'_>) -> String {
    let mut hash = Context::new(&SHA256);
    for part in [&*ask.budget.service, &ask.budget.policy, &ask.budget.limit] {
        hash.update(part.as_bytes());
        // None of them has a zero byte.
        hash.update(b"\0");
    }
    hash.update(&ask.budget.per_ms.to_le_bytes());
    hash.update(ask.key);
    let mut name = format!("{:016x}/", end_ms(ask));
    for byte in hash.finish().as_ref().iter().take(16) {
        use std::fmt::Write as _;
        // Writing to a string cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

fn cut(label: &str) -> &str {
    let end = (0..=MAX_LABEL.min(label.len()))
        .rev()
        .find(|end| label.is_char_boundary(*end));
    &label[..end.unwrap_or(0)]
}
