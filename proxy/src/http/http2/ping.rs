//! Finds out that a peer is gone without a word: a host that was switched off, a partition.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

/// Between two pings. Below the 60 s after which load balancers on the way forget a connection.
const INTERVAL: Duration = Duration::from_secs(30);
/// For the answer. The peer's h2 answers, not its application.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Pinger {
    pings: PingPong,
    timer: Pin<Box<Sleep>>,
    /// A ping is on its way.
    waiting: bool,
}

impl Pinger {
    pub(crate) fn new(pings: PingPong) -> Pinger {
        Pinger {
            pings,
            timer: Box::pin(sleep(INTERVAL)),
            waiting: false,
        }
    }

    /// Ready when the peer did not answer in time.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waiting {
            match self.pings.poll_pong(cx) {
                Poll::Ready(Ok(_)) => {
                    self.waiting = false;
                    self.timer.as_mut().reset(Instant::now() + INTERVAL);
                }
                // The connection itself says what is wrong.
                Poll::Ready(Err(_)) => return Poll::Pending,
                Poll::Pending => {}
            }
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if self.waiting {
                return Poll::Ready(());
            }
            if self.pings.send_ping(Ping::opaque()).is_err() {
                return Poll::Pending;
            }
            self.waiting = true;
            self.timer.as_mut().reset(Instant::now() + PATIENCE);
            if self.pings.poll_pong(cx).is_ready() {
                self.waiting = false;
                self.timer.as_mut().reset(Instant::now() + INTERVAL);
            }
        }
        Poll::Pending
    }
}
