//! A request whose outcome counts.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use super::{Health, PROBE_DUE, PROBING, WATCHED};
use crate::resilience::outlier::Fault;

/// One request at an endpoint that outlier detection looks at. Dropped without a verdict it counts for nothing.
#[derive(Debug)]
pub struct Watch {
    health: Arc<Health>,
    /// It is the one request of a probation.
    probe: bool,
    /// Another request is the probation's.
    late: bool,
    decided: bool,
    answer_by: Option<Instant>,
}

impl Health {
    /// A request is about to be sent. `None`: its outcome is of no interest.
    pub fn watch(self: &Arc<Health>) -> Option<Watch> {
        let state = self.state.load(Relaxed);
        if state & WATCHED == 0 {
            return None;
        }
        let probe = state & PROBE_DUE != 0
            && self
                .change(|state| (state & PROBE_DUE != 0).then_some(state & !PROBE_DUE | PROBING));
        Some(Watch {
            health: Arc::clone(self),
            probe,
            late: !probe && self.state.load(Relaxed) & PROBING != 0,
            decided: false,
            answer_by: None,
        })
    }
}

impl Watch {
    /// Whether another request took the probation in the moment of the choice: there may be a better endpoint.
    pub fn is_late(&self) -> bool {
        self.late
    }

    /// Dropped without an answer after this moment, it has failed.
    pub fn answer_by(&mut self, at: Option<Instant>) {
        self.answer_by = at;
    }

    /// The endpoint answers: enough for a probation. Others wait for the end.
    pub fn answered(&mut self) {
        self.answer_by = None;
        if self.probe && !self.decided {
            self.decided = true;
            self.health.probed(Some(true));
        }
    }

    /// It did what was asked of it.
    pub fn succeeded(&mut self) {
        if std::mem::replace(&mut self.decided, true) {
            return;
        }
        if self.probe {
            self.health.probed(Some(true));
        } else {
            self.health.succeeded();
        }
    }

    /// It failed, and the request was not to blame. After [`answered`](Self::answered) as well, for a stream that broke.
    pub fn failed(&mut self, fault: Fault) {
        let decided = std::mem::replace(&mut self.decided, true);
        if !self.probe {
            if !decided {
                self.health.failed(fault);
            }
        } else if decided {
            self.probe = false;
            self.health.failed(fault);
        } else {
            self.health.probed(Some(false));
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.decided && self.answer_by.is_some_and(|at| at <= Instant::now()) {
            self.failed(Fault::Gateway);
        }
        if self.probe && !self.decided {
            self.health.probed(None);
        }
    }
}
