//! The clocks of a stream's tokens.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tokio::time::Instant;

use super::Report;
use crate::error::Reason;
use crate::http::body::BodyError;
use crate::http::clock::Alarm;

/// A comment is no event: clients pass over it.
const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

#[derive(Debug)]
pub(super) struct Clocks {
    pub(super) token_idle: Option<Duration>,
    pub(super) keep_alive: Option<Duration>,
    pub(super) first_token: Option<Instant>,
    /// Something came from the server, or was sent to the client in its place.
    pub(super) moved_at: Instant,
    pub(super) timer: Option<Alarm>,
}

impl Clocks {
    /// While nothing comes: the comment to send, or why it is over. `between`: no event is half sent.
    pub(super) fn poll(
        &mut self,
        report: &Report,
        between: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Frame<Bytes>, BodyError>> {
        let is_done = report.seen().done;
        loop {
            let limit = match report.last_token() {
                _ if is_done => None,
                None => self.first_token.map(|at| (at, Reason::FirstTokenTimeout)),
                Some(last) => self
                    .token_idle
                    .and_then(|idle| Some((last.checked_add(idle)?, Reason::TokenIdleTimeout))),
            };
            let comment = self
                .keep_alive
                .and_then(|each| self.moved_at.checked_add(each));
            let next = limit.map(|(at, _)| at).into_iter().chain(comment).min();
            let Some(next) = next else {
                return Poll::Pending;
            };
            let now = Instant::now();
            if let Some((at, reason)) = limit
                && at <= now
            {
                return Poll::Ready(Err(BodyError::Clock(reason)));
            }
            if comment.is_some_and(|at| at <= now) {
                self.moved_at = now;
                if between {
                    return Poll::Ready(Ok(Frame::data(Bytes::from_static(KEEP_ALIVE))));
                }
                continue;
            }
            match &mut self.timer {
                Some(timer) => timer.set_if_other(next),
                None => self.timer = Some(Alarm::new(next)),
            }
            let Some(timer) = &mut self.timer else {
                return Poll::Pending;
            };
            ready!(timer.poll(now, cx));
        }
    }
}
