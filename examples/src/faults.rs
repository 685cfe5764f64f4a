//! Faults on demand: what a test or a demonstration wants to go wrong.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// The faults to inject. The JSON of `POST /faults`, and the `key=value,…` of `--fault` and of the header `x-fault`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// For so many milliseconds from now, `/health` and the API answer 503, like a server that loads its model.
    pub unready_ms: u64,
    /// Milliseconds by which every answer is delayed.
    pub latency_ms: u64,
    /// Part of the requests, 0 to 1, that get 503.
    pub error_503_rate: f64,
    /// Part of the requests, 0 to 1, that get 429.
    pub error_429_rate: f64,
    /// `Retry-After` of these errors, in seconds.
    pub retry_after_seconds: u64,
    /// The server dies when an answer has so many tokens.
    pub die_after_tokens: Option<usize>,
    /// What dies.
    pub die: Die,
    /// When an answer has so many tokens, it breaks off with an error event and `[DONE]`, under status 200.
    pub error_after_tokens: Option<usize>,
    /// When an answer has so many tokens, nothing more comes, and nothing is closed.
    pub stall_after_tokens: Option<usize>,
    /// Only so many requests get these faults, then all is well. Unset: all requests do.
    pub limit: Option<u64>,
}

/// What ends with `die_after_tokens`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Die {
    /// The connection, abruptly, with everything that is on it.
    #[default]
    Close,
    /// The process, with status 1.
    Exit,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            unready_ms: 0,
            latency_ms: 0,
            error_503_rate: 0.0,
            error_429_rate: 0.0,
            retry_after_seconds: 1,
            die_after_tokens: None,
            die: Die::default(),
            error_after_tokens: None,
            stall_after_tokens: None,
            limit: None,
        }
    }
}

/// Faults that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    /// An item of a `key=value,…` list without `=`.
    #[error("{item:?} is no fault; write key=value, with commas between several")]
    NotAPair {
        /// What was found.
        item: String,
    },
    /// An unknown key or a value of the wrong type.
    #[error("{0}")]
    Invalid(#[from] serde_json::Error),
    /// A rate that is no part of 1.
    #[error("{name} is {value}; a rate is from 0 to 1")]
    Rate {
        /// The field.
        name: &'static str,
        /// What was found.
        value: f64,
    },
}

impl Faults {
    /// Reads JSON.
    ///
    /// # Errors
    /// [`FaultError`] where a field is unknown or a value is not allowed.
    pub fn from_json(json: &[u8]) -> Result<Self, FaultError> {
        serde_json::from_slice::<Self>(json)?.checked()
    }

    /// Reads `key=value,…`, with the keys of the JSON.
    ///
    /// # Errors
    /// [`FaultError`] where a key is unknown or a value is not allowed.
    pub fn from_pairs(pairs: &str) -> Result<Self, FaultError> {
        let mut fields = serde_json::Map::new();
        for item in pairs
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
        {
            let Some((key, value)) = item.split_once('=') else {
                return Err(FaultError::NotAPair {
                    item: item.to_owned(),
                });
            };
            // A number where it is one, otherwise a word.
            let value = serde_json::from_str(value.trim()).unwrap_or_else(|_| value.trim().into());
            fields.insert(key.trim().replace('-', "_"), value);
        }
        serde_json::from_value::<Self>(fields.into())?.checked()
    }

    fn checked(self) -> Result<Self, FaultError> {
        for (name, value) in [
            ("error_503_rate", self.error_503_rate),
            ("error_429_rate", self.error_429_rate),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return Err(FaultError::Rate { name, value });
            }
        }
        Ok(self)
    }
}

/// What one request gets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Wait so long first.
    pub latency: Duration,
    /// Refuse it with this status, 429 or 503.
    pub refuse: Option<u16>,
    /// `Retry-After` of the refusal, in seconds.
    pub retry_after: u64,
    /// See [`Faults::die_after_tokens`].
    pub die: Option<(usize, Die)>,
    /// See [`Faults::error_after_tokens`].
    pub error_after: Option<usize>,
    /// See [`Faults::stall_after_tokens`].
    pub stall_after: Option<usize>,
}

/// The faults in force.
#[derive(Debug)]
pub struct FaultBoard {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    faults: Faults,
    ready_at: Instant,
}

impl FaultBoard {
    /// Starts with these faults.
    pub fn new(faults: Faults) -> Self {
        let ready_at = Instant::now() + Duration::from_millis(faults.unready_ms);
        Self {
            state: Mutex::new(State { faults, ready_at }),
        }
    }

    /// Replaces all faults.
    pub fn set(&self, faults: Faults) {
        *self.lock() = Self::new(faults)
            .state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
    }

    /// The faults in force, with what is left of `unready_ms` and of `limit`.
    pub fn get(&self) -> Faults {
        let mut faults = self.lock().faults.clone();
        faults.unready_ms = self.unready().map_or(0, |left| left.as_millis() as u64);
        faults
    }

    /// How long the server still pretends to start, if it does.
    pub fn unready(&self) -> Option<Duration> {
        let left = self
            .lock()
            .ready_at
            .saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// What the next request gets. Counts it against the limit.
    pub fn judge(&self) -> Verdict {
        let mut state = self.lock();
        match &mut state.faults.limit {
            Some(0) => return Verdict::default(),
            Some(left) => *left -= 1,
            None => {}
        }
        verdict(&state.faults)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic happens under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a request with these faults gets.
pub fn verdict(faults: &Faults) -> Verdict {
    let refuse = if rand::random::<f64>() < faults.error_503_rate {
        Some(503)
    } else if rand::random::<f64>() < faults.error_429_rate {
        Some(429)
    } else {
        None
    };
    Verdict {
        latency: Duration::from_millis(faults.latency_ms),
        refuse,
        retry_after: faults.retry_after_seconds,
        die: faults.die_after_tokens.map(|after| (after, faults.die)),
        error_after: faults.error_after_tokens,
        stall_after: faults.stall_after_tokens,
    }
}

#[cfg(test)]
mod tests;
