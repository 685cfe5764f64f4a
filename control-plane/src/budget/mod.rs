//! Budgets of tokens that sidecars share: leases of them, on the sidecars' port.

pub mod ledger;
mod service;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::store::{Store, StoreError};
use ledger::{Ledger, Row, Usage};

pub use service::Leases;

/// Rows of an earlier window are taken out with the next write.
#[derive(Debug)]
pub struct Budgets {
    store: Arc<dyn Store>,
    /// Held for moments only: the disk is waited for without it.
    ledger: Mutex<Ledger>,
}

impl Budgets {
    /// With what the store knows.
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    pub fn open(store: Arc<dyn Store>) -> Result<Budgets, StoreError> {
        let rows = store.list_budgets()?;
        Ok(Budgets {
            store,
            ledger: Mutex::new(Ledger::new(rows)),
        })
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // A panic in between leaves at most more granted than is leased.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts rows on disk. Blocks.
    fn write(&self, rows: &[Row]) -> Result<(), StoreError> {
        let pairs: Vec<_> = rows
            .iter()
            .map(|row| (row.name.as_str(), row.tokens))
            .collect();
        let oldest = ledger::oldest_row(now_ms());
        self.store.raise_budgets(&pairs, &oldest)?;
        let mut ledger = self.ledger();
        for row in rows {
            ledger.written(row);
        }
        Ok(())
    }

    /// Writes down what is leased exactly: the next start loses nothing. Blocks; nobody may ask any more.
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    pub fn close(&self) -> Result<(), StoreError> {
        let rows = self.ledger().exact();
        let pairs: Vec<_> = rows
            .iter()
            .map(|row| (row.name.as_str(), row.tokens))
            .collect();
        if pairs.is_empty() {
            return Ok(());
        }
        self.store.set_budgets(&pairs)
    }

    /// How the budgets of a policy (`<namespace>/<name>`) stand now.
    pub fn usage(&self, policy: &str) -> Vec<Usage> {
        self.ledger().usage(policy, now_ms())
    }
}

/// Milliseconds since the Unix epoch: windows begin by this clock.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests;
