//! Deadlines. A request without any never touches a timer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::error::Reason;

/// A moment, and what it means when it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    pub(crate) reason: Reason,
}

impl Deadline {
    /// `after` the start, if such a clock runs at all.
    pub(crate) fn after(
        start: Instant,
        after: Option<Duration>,
        reason: Reason,
    ) -> Option<Deadline> {
        Some(Deadline {
            // A time so far away that it cannot be represented never comes.
            at: start.checked_add(after?)?,
            reason,
        })
    }

    /// The one that comes first; of two at the same moment, the first one.
    pub(crate) fn earlier(first: Option<Deadline>, second: Option<Deadline>) -> Option<Deadline> {
        match (first, second) {
            (Some(first), Some(second)) => Some(if second.at < first.at { second } else { first }),
            (first, second) => first.or(second),
        }
    }

    /// Runs a future until it is done or the deadline has come. The future is pinned by the caller: handed over by value, it
    /// would have room twice in what this makes.
    pub(crate) async fn limit<F: Future + Unpin>(
        deadline: Option<Deadline>,
        future: F,
    ) -> Result<F::Output, Reason> {
        let Some(deadline) = deadline else {
            return Ok(future.await);
        };
        // Boxed: a timer is larger than the rest of most requests' state, and most requests have none.
        let timer = Box::pin(sleep_until(deadline.at));
        match futures_util::future::select(future, timer).await {
            futures_util::future::Either::Left((output, _)) => Ok(output),
            futures_util::future::Either::Right(((), _)) => Err(deadline.reason),
        }
    }
}

/// A timer that is asked often and fires rarely. Until its time has come, asking costs no look at the timer itself, which
/// lies in memory of its own. It belongs to one task.
#[derive(Debug)]
pub(crate) struct Alarm {
    timer: Pin<Box<Sleep>>,
    at: Instant,
    /// The timer is going to wake the task.
    armed: bool,
}

impl Alarm {
    pub(crate) fn new(at: Instant) -> Alarm {
        Alarm {
            timer: Box::pin(sleep_until(at)),
            at,
            armed: false,
        }
    }

    /// As [`set`](Self::set), where it is set to another moment.
    pub(crate) fn set_if_other(&mut self, at: Instant) {
        if self.at != at {
            self.set(at);
        }
    }

    pub(crate) fn set(&mut self, at: Instant) {
        self.timer.as_mut().reset(at);
        self.at = at;
        self.armed = false;
    }

    /// Ready when its time has come; until then it wakes the task when it does. `now`: a moment in this turn of the task.
    pub(crate) fn poll(&mut self, now: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if self.armed && now < self.at {
            return Poll::Pending;
        }
        let polled = self.timer.as_mut().poll(cx);
        self.armed = polled.is_pending();
        polled
    }
}

/// Runs out when nothing has moved for a while. It is set when something is waited for, not reset by each thing that moves,
/// and looks at when that was when it fires.
#[derive(Debug)]
pub(crate) struct IdleTimer {
    /// `None`: it never runs out.
    idle: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
    moved_at: Instant,
}

impl IdleTimer {
    pub(crate) fn new(idle: Option<Duration>) -> IdleTimer {
        IdleTimer {
            idle,
            timer: None,
            moved_at: Instant::now(),
        }
    }

    /// Something moved.
    pub(crate) fn moved(&mut self) {
        if self.timer.is_some() {
            self.moved_at = Instant::now();
        }
    }

    /// Ready when it has run out. To be asked while something is waited for.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(idle) = self.idle else {
            return Poll::Pending;
        };
        if self.timer.is_none() {
            self.moved_at = Instant::now();
        }
        let end = self.moved_at + idle;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        while timer.as_mut().poll(cx).is_ready() {
            if end <= Instant::now() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(end);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Alarm, Deadline, IdleTimer};
    use crate::error::Reason;
    use std::task::Poll;
    use std::time::Duration;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn an_idle_timer_counts_from_what_moved_last() {
        let begun = Instant::now();
        let mut timer = IdleTimer::new(Some(Duration::from_secs(10)));
        let mut moves = 0;
        std::future::poll_fn(|cx| {
            if moves == 0 && timer.poll(cx).is_ready() {
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
        assert_eq!(begun.elapsed(), Duration::from_secs(10));

        let begun = Instant::now();
        let mut timer = IdleTimer::new(Some(Duration::from_secs(10)));
        let mut tick = tokio::time::interval(Duration::from_secs(3));
        std::future::poll_fn(|cx| {
            while tick.poll_tick(cx).is_ready() {
                moves += 1;
                if moves <= 5 {
                    timer.moved();
                }
            }
            timer.poll(cx)
        })
        .await;
        // The fifth move, after 12 s, was the last one.
        assert_eq!(begun.elapsed(), Duration::from_secs(22));
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_fires_at_its_time_however_often_it_is_asked_and_set() {
        let begun = Instant::now();
        let mut alarm = Alarm::new(begun + Duration::from_secs(10));
        let mut tick = tokio::time::interval(Duration::from_secs(3));
        let mut ticks = 0;
        std::future::poll_fn(|cx| {
            while tick.poll_tick(cx).is_ready() {
                ticks += 1;
                if ticks == 3 {
                    alarm.set(begun + Duration::from_secs(17));
                }
            }
            alarm.poll(Instant::now(), cx)
        })
        .await;
        assert_eq!(begun.elapsed(), Duration::from_secs(17));
        // Asked twice before its time, and then left alone.
        alarm.set(begun + Duration::from_secs(20));
        std::future::poll_fn(|cx| {
            let now = Instant::now();
            if alarm.poll(now, cx).is_ready() {
                return Poll::Ready(());
            }
            alarm.poll(now, cx)
        })
        .await;
        assert_eq!(begun.elapsed(), Duration::from_secs(20));
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_deadline_names_the_reason() {
        let now = Instant::now();
        let long = Deadline::after(now, Some(Duration::from_secs(2)), Reason::RequestTimeout);
        let short = Deadline::after(now, Some(Duration::from_secs(1)), Reason::PerTryTimeout);
        let first = Deadline::earlier(long, short);
        assert_eq!(first, short);
        assert_eq!(Deadline::earlier(None, long), long);
        let result = Deadline::limit(first, std::future::pending::<()>()).await;
        assert_eq!(result, Err(Reason::PerTryTimeout));
        assert_eq!(now.elapsed(), Duration::from_secs(1));
        assert_eq!(Deadline::limit(long, std::future::ready(7)).await, Ok(7));
    }
}
