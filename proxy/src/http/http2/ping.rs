//! Finds out that a peer is gone without a word: a host that was switched off, a partition.

use std::pin::Pin;
use std::task::{Context, Poll};

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

use crate::policy::KeepAlive;

/// Intervals without a word from a peer that nothing is asked of, after which it is asked all the same: whoever is gone
/// must not hold a connection for ever. Five minutes by default; peers that are there wake up that seldom.
const IDLE_INTERVALS: u32 = 15;

/// Asks a peer for a sign of life where there was none for an interval, and something is waited for.
#[derive(Debug)]
pub(crate) struct Pinger {
    pings: PingPong,
    keep_alive: KeepAlive,
    timer: Pin<Box<Sleep>>,
    /// A ping is on its way.
    waiting: bool,
    /// What the peer had sent when the timer was set.
    heard: u64,
    /// Intervals in which nothing was heard or waited for.
    idle: u32,
}

impl Pinger {
    pub(crate) fn new(pings: PingPong, keep_alive: KeepAlive) -> Pinger {
        Pinger {
            pings,
            keep_alive,
            timer: Box::pin(sleep(keep_alive.interval)),
            waiting: false,
            heard: 0,
            idle: 0,
        }
    }

    /// Ready when the peer did not answer in time. `heard` changes with whatever the peer sends; `busy`: streams are open.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, heard: u64, busy: bool) -> Poll<()> {
        if self.waiting {
            match self.pings.poll_pong(cx) {
                Poll::Ready(Ok(_)) => {
                    self.waiting = false;
                    self.rest(heard);
                }
                // The connection itself says what is wrong.
                Poll::Ready(Err(_)) => return Poll::Pending,
                Poll::Pending => {}
            }
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let silent = heard == self.heard;
            if self.waiting {
                if silent {
                    return Poll::Ready(());
                }
                // It lives, and has more to say than an answer.
                self.rest(heard);
                continue;
            }
            if !silent {
                self.idle = 0;
                self.rest(heard);
                continue;
            }
            if !busy && self.idle < IDLE_INTERVALS {
                self.idle += 1;
                self.rest(heard);
                continue;
            }
            if self.pings.send_ping(Ping::opaque()).is_err() {
                return Poll::Pending;
            }
            self.idle = 0;
            self.waiting = true;
            self.set(self.keep_alive.timeout);
            if self.pings.poll_pong(cx).is_ready() {
                self.waiting = false;
                self.rest(heard);
            }
        }
        Poll::Pending
    }

    /// Until the next look.
    fn rest(&mut self, heard: u64) {
        self.heard = heard;
        self.set(self.keep_alive.interval);
    }

    fn set(&mut self, after: std::time::Duration) {
        self.timer.as_mut().reset(Instant::now() + after);
    }
}
