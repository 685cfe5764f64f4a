//! Where an endpoint's sidecar says that a request would wait there for too long: it is asked elsewhere, before the client notices.

use std::time::Duration;

use http::{HeaderMap, Response};

use super::retry::{Next, Retries};
use crate::balance::InFlight;
use crate::error::Reason;
use crate::http::body::Source;
use crate::http::headers;

/// A refusal that is kept while others are asked: the client gets the one with the shortest wait.
#[derive(Debug, Default)]
pub(super) struct Moves {
    made: u32,
    // Boxed: most requests are not refused.
    best: Option<Box<Kept>>,
}

#[derive(Debug)]
struct Kept {
    wait: Duration,
    response: Response<Source>,
    in_flight: InFlight,
}

/// The wait that a peer's sidecar expects, where it refused a request because of it. Only a sidecar's word counts: it removes the
/// header from what its application says.
pub(super) fn refused(answer: &HeaderMap, from_sidecar: bool) -> Option<Duration> {
    if !from_sidecar {
        return None;
    }
    let wait = answer.get(headers::EXPECTED_WAIT)?;
    if answer.get(headers::REASON)? != Reason::Overloaded.as_str() {
        return None;
    }
    let millis = wait.to_str().ok()?.parse().ok()?;
    Some(Duration::from_millis(millis))
}

impl Moves {
    /// Whether a refused request is asked elsewhere.
    pub(super) fn next(&mut self, retries: &mut Retries<'_>, others: bool) -> Next {
        let next = retries.after_refusal(self.made, others);
        self.made += u32::from(next != Next::Stop);
        next
    }

    /// Keeps a refusal while another endpoint is asked.
    pub(super) fn keep(&mut self, wait: Duration, response: Response<Source>, in_flight: InFlight) {
        if self.best.as_ref().is_none_or(|best| wait < best.wait) {
            self.best = Some(Box::new(Kept {
                wait,
                response,
                in_flight,
            }));
        }
    }

    /// The refusal for the client where the last one was one, too: that with the shortest wait.
    pub(super) fn best(
        self,
        response: Response<Source>,
        in_flight: InFlight,
        from_sidecar: bool,
    ) -> (Response<Source>, InFlight) {
        let Some(best) = self.best else {
            return (response, in_flight);
        };
        match refused(response.headers(), from_sidecar) {
            Some(wait) if best.wait < wait => (best.response, best.in_flight),
            _ => (response, in_flight),
        }
    }
}
