//! What keeps a failure from becoming a larger one: how many retries there may be, and how long they wait.

mod backoff;
mod budget;
pub mod checks;
pub mod health;
pub mod outlier;
pub mod sweep;

pub use backoff::Backoff;
pub use budget::RetryBudget;
