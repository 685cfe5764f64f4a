//! Ports whose servers were seen to speak first: the next connections do not wait for a client that waits for the server.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// Most ports that are remembered by a worker. More are found out again each time.
const MOST: usize = 1024;

/// After which it is looked again: what stands behind a port may change.
const LIFETIME: Duration = Duration::from_secs(600);

/// What one worker has learnt.
#[derive(Debug, Default)]
pub(crate) struct Learnt {
    ports: RefCell<HashMap<(Arc<str>, u16), Instant>>,
}

impl Learnt {
    /// The server was the first to speak.
    pub(crate) fn server_first(&self, service: &Arc<str>, port: u16) {
        let now = Instant::now();
        let mut ports = self.ports.borrow_mut();
        if ports.len() >= MOST {
            ports.retain(|_, until| *until > now);
        }
        if ports.len() < MOST {
            ports.insert((Arc::clone(service), port), now + LIFETIME);
        }
    }

    pub(crate) fn is_server_first(&self, service: &Arc<str>, port: u16) -> bool {
        let mut ports = self.ports.borrow_mut();
        if ports.is_empty() {
            return false;
        }
        let key = (Arc::clone(service), port);
        match ports.get(&key) {
            Some(until) if *until > Instant::now() => true,
            Some(_) => {
                ports.remove(&key);
                false
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LIFETIME, Learnt, MOST};
    use std::sync::Arc;

    #[tokio::test(start_paused = true)]
    async fn it_is_remembered_for_a_while_and_within_bounds() {
        let learnt = Learnt::default();
        let service: Arc<str> = Arc::from("default/mail");
        assert!(!learnt.is_server_first(&service, 25));
        learnt.server_first(&service, 25);
        assert!(learnt.is_server_first(&service, 25));
        assert!(!learnt.is_server_first(&service, 26));
        tokio::time::advance(LIFETIME).await;
        assert!(!learnt.is_server_first(&service, 25));
        for number in 0..2 * MOST {
            let service = Arc::from(format!("default/s{number}"));
            learnt.server_first(&service, 1);
        }
        assert!(learnt.ports.borrow().len() <= MOST);
        tokio::time::advance(LIFETIME).await;
        learnt.server_first(&service, 25);
        assert!(learnt.is_server_first(&service, 25));
    }
}
