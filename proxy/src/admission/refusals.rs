//! What was refused, by which limit.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// What refuses a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Limit {
    Connections,
    Pending,
    Requests,
    Retries,
    EndpointConnections,
    EndpointRequests,
    Throttling,
    /// More than the application has at a time, and no queue.
    Concurrency,
    QueueFull,
    /// It waited as long as it may.
    QueueWait,
    /// Its deadline came, or could not be met any more.
    QueueDeadline,
    /// The queue stands, and it waited longer than the target.
    QueueStanding,
    /// It made room for what matters more.
    Shed,
    Rate,
    /// It would have waited longer than it may.
    ExpectedWait,
    /// A budget of tokens.
    Tokens,
}

impl Limit {
    pub const ALL: [Limit; 16] = [
        Limit::Connections,
        Limit::Pending,
        Limit::Requests,
        Limit::Retries,
        Limit::EndpointConnections,
        Limit::EndpointRequests,
        Limit::Throttling,
        Limit::Concurrency,
        Limit::QueueFull,
        Limit::QueueWait,
        Limit::QueueDeadline,
        Limit::QueueStanding,
        Limit::Shed,
        Limit::Rate,
        Limit::ExpectedWait,
        Limit::Tokens,
    ];

    /// The value of the label `limit`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Limit::Connections => "connections",
            Limit::Pending => "pending",
            Limit::Requests => "requests",
            Limit::Retries => "retries",
            Limit::EndpointConnections => "endpoint-connections",
            Limit::EndpointRequests => "endpoint-requests",
            Limit::Throttling => "throttling",
            Limit::Concurrency => "concurrency",
            Limit::QueueFull => "queue-full",
            Limit::QueueWait => "queue-wait",
            Limit::QueueDeadline => "queue-deadline",
            Limit::QueueStanding => "queue-standing",
            Limit::Shed => "shed",
            Limit::Rate => "rate",
            Limit::ExpectedWait => "expected-wait",
            Limit::Tokens => "tokens",
        }
    }
}

/// Refused requests of one service, by limit.
#[derive(Debug, Default)]
pub struct Refusals([AtomicU64; Limit::ALL.len()]);

impl Refusals {
    pub fn count(&self, limit: Limit) {
        self.0[limit as usize].fetch_add(1, Relaxed);
    }

    pub fn get(&self, limit: Limit) -> u64 {
        self.0[limit as usize].load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::Limit;

    #[test]
    fn table_is_in_the_order_of_the_discriminants() {
        for (index, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, index, "{}", limit.as_str());
        }
    }
}
