//! A response's body on its way to the client, and the clocks that run while it is.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::body::{BodyError, Source};
use super::clock::{Alarm, Deadline};
use super::exchange::Exchange;
use super::pump::PumpBody;
use super::server::Client;
use crate::error::Reason;

/// What a peer is told of a deadline is cut off to whole milliseconds: it may be over there before it is here.
const TOLD_IN: Duration = Duration::from_millis(2);

/// A response's body on its way to the client. The exchange ends with it.
///
/// A piece of a stream finds the memory of its request cold: thousands of streams move between two of its own. What each
/// piece needs is therefore here, and the exchange is looked at only when something ends.
pub(crate) struct ResponseBody {
    content: Content,
    /// Bytes on their way to the client.
    sent: u64,
    clocks: Clocks,
    /// A fault: where it is broken off.
    truncate: Option<Truncate>,
    /// `None` where another task has it: an upgraded connection's.
    exchange: Option<(Rc<Client>, Box<Exchange>)>,
}

enum Content {
    /// Of our own.
    Whole(Bytes),
    Upstream(Source),
    /// It ended before its end; the error, until it was told.
    Cut(Option<BodyError>),
}

/// What runs while a response is on its way.
#[derive(Default)]
struct Clocks {
    /// No byte either way for so long.
    idle: Option<Duration>,
    deadline: Option<Deadline>,
    /// Made when the body has to be waited for: most responses come in one piece. It is not reset with each chunk, but
    /// looks at `moved_at` when it fires.
    timer: Option<Alarm>,
    moved_at: Option<Instant>,
    /// It did in this turn: no need to look at the time again.
    just_moved: bool,
    /// The first token is here, as far as anybody wants to know: none of the pieces after it asks the exchange.
    begun: bool,
    /// Bytes of the request when the timer was set.
    request_bytes: u64,
}

/// How far a body goes that is broken off on purpose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Truncate {
    /// So many bytes more.
    After(u64),
    Now,
}

impl Clocks {
    /// Ready when a clock has run out.
    fn poll(&mut self, request_bytes: impl Fn() -> u64, cx: &mut Context<'_>) -> Poll<Reason> {
        if self.idle.is_none() && self.deadline.is_none() {
            return Poll::Pending;
        }
        let just_moved = std::mem::take(&mut self.just_moved);
        let mut now = match self.moved_at {
            Some(moved_at) if just_moved => moved_at,
            _ => Instant::now(),
        };
        loop {
            if self.timer.is_none() {
                self.moved_at = Some(now);
                self.request_bytes = request_bytes();
                let Some(next) = self.next(now) else {
                    return Poll::Pending;
                };
                self.timer = Some(Alarm::new(next));
            }
            let Some(timer) = &mut self.timer else {
                return Poll::Pending;
            };
            if timer.poll(now, cx).is_pending() {
                return Poll::Pending;
            }
            now = Instant::now();
            if let Some(deadline) = self.deadline
                && deadline.at <= now
            {
                return Poll::Ready(deadline.reason);
            }
            let bytes = request_bytes();
            if bytes != self.request_bytes {
                self.request_bytes = bytes;
                self.moved_at = Some(now);
            }
            let moved_at = self.moved_at.unwrap_or(now);
            if let Some(idle) = self.idle
                && now.saturating_duration_since(moved_at) >= idle
            {
                return Poll::Ready(Reason::StreamIdleTimeout);
            }
            match (self.next(moved_at), &mut self.timer) {
                (Some(next), Some(timer)) => timer.set(next),
                _ => return Poll::Pending,
            }
        }
    }

    fn next(&self, moved_at: Instant) -> Option<Instant> {
        let idle = self.idle.and_then(|idle| moved_at.checked_add(idle));
        match (idle, self.deadline) {
            (Some(idle), Some(deadline)) => Some(idle.min(deadline.at)),
            (idle, deadline) => idle.or(deadline.map(|deadline| deadline.at)),
        }
    }

    /// The reason of the deadline, once that has passed, where nothing was waited for since the last chunk. The timer is asked
    /// only where something is: a stream that always has something would outlive it.
    fn is_over(&self) -> Option<Reason> {
        if self.timer.is_some() && !self.just_moved {
            return None;
        }
        let deadline = self.deadline?;
        (deadline.at <= Instant::now()).then_some(deadline.reason)
    }

    /// The reason of the deadline, once a peer that was told of it may have acted by it.
    fn is_due(&self) -> Option<Reason> {
        let deadline = self.deadline?;
        (deadline.at <= Instant::now() + TOLD_IN).then_some(deadline.reason)
    }

    /// A chunk came.
    fn moved(&mut self) {
        if self.timer.is_some() {
            self.moved_at = Some(Instant::now());
            self.just_moved = true;
        }
    }
}

impl ResponseBody {
    /// A body of our own.
    pub(super) fn whole(body: Bytes, exchange: Box<Exchange>) -> ResponseBody {
        ResponseBody {
            content: Content::Whole(body),
            sent: 0,
            clocks: Clocks::default(),
            truncate: None,
            exchange: Some((exchange.client(), exchange)),
        }
    }

    /// An upstream's body. `idle`: how long nothing may move; `deadline`: when it must have ended.
    pub(super) fn upstream(
        source: Source,
        exchange: Box<Exchange>,
        idle: Option<Duration>,
        deadline: Option<Deadline>,
    ) -> ResponseBody {
        ResponseBody {
            content: Content::Upstream(source),
            sent: 0,
            clocks: Clocks {
                idle,
                deadline,
                ..Clocks::default()
            },
            truncate: None,
            exchange: Some((exchange.client(), exchange)),
        }
    }

    /// No body, and nothing that ends with it.
    pub(crate) fn none() -> ResponseBody {
        ResponseBody {
            content: Content::Whole(Bytes::new()),
            sent: 0,
            clocks: Clocks::default(),
            truncate: None,
            exchange: None,
        }
    }

    /// Breaks an upstream's body off after so many bytes. A shorter one stays whole.
    pub(crate) fn truncate_after(&mut self, bytes: u64) {
        if matches!(self.content, Content::Upstream(_)) {
            self.truncate = Some(Truncate::After(bytes));
        }
    }

    /// Gives the upstream up, and the error to the client's side in its next turn: servers write what they have between two
    /// turns, and drop it when they meet an error. What came before the error was meant for the client.
    fn cut<T>(&mut self, error: BodyError, cx: &Context<'_>) -> Poll<T> {
        self.content = Content::Cut(Some(error));
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let me = &mut *self;
        let Some((client, exchange)) = &mut me.exchange else {
            return Poll::Ready(None);
        };
        client.take();
        let source = match &mut me.content {
            Content::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                if bytes.is_empty() {
                    return Poll::Ready(None);
                }
                me.sent += bytes.len() as u64;
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            Content::Upstream(source) => source,
            Content::Cut(error) => return Poll::Ready(error.take().map(Err)),
        };
        if me.truncate == Some(Truncate::Now) {
            return me.cut(BodyError::Clock(Reason::FaultTruncate), cx);
        }
        match Pin::new(source).poll_frame(cx) {
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(reason) = me.clocks.is_over() {
                    exchange.broke(reason);
                    return me.cut(BodyError::Clock(reason), cx);
                }
                if let Some(Truncate::After(left)) = me.truncate {
                    let (shorter, next) = shortened(frame, left);
                    frame = shorter;
                    me.truncate = Some(next);
                    if next == Truncate::Now {
                        exchange.faulted(Reason::FaultTruncate);
                    }
                }
                if let Some(data) = frame.data_ref() {
                    if !me.clocks.begun {
                        me.clocks.begun = exchange.has_begun();
                    }
                    me.sent += data.len() as u64;
                } else if let Some(trailers) = frame.trailers_ref() {
                    exchange.trailers(trailers);
                }
                me.clocks.moved();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                exchange.completed();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                let reason = match &error {
                    // A clock of the tokens.
                    BodyError::Clock(reason) => *reason,
                    _ => me.clocks.is_due().unwrap_or(Reason::UpstreamTruncated),
                };
                exchange.broke(reason);
                me.cut(error, cx)
            }
            Poll::Pending => {
                let bytes = || exchange.request_bytes();
                match me.clocks.poll(bytes, cx) {
                    Poll::Ready(reason) => {
                        exchange.broke(reason);
                        me.cut(BodyError::Clock(reason), cx)
                    }
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        if self.truncate == Some(Truncate::Now) {
            return false;
        }
        match &self.content {
            Content::Whole(bytes) => bytes.is_empty(),
            Content::Upstream(source) => source.is_end_stream(),
            // There is no end: nobody must take it for one.
            Content::Cut(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Upstream(source) => source.size_hint(),
            Content::Cut(_) => SizeHint::default(),
        }
    }
}

/// What of a frame is sent, and how far the body goes after it.
fn shortened(frame: Frame<Bytes>, left: u64) -> (Frame<Bytes>, Truncate) {
    match frame.into_data() {
        Ok(mut data) => {
            let after = match left.checked_sub(data.len() as u64) {
                Some(left) => Truncate::After(left),
                None => Truncate::Now,
            };
            data.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            (Frame::data(data), after)
        }
        // Trailers: it was not longer than that.
        Err(frame) => (frame, Truncate::After(left)),
    }
}

impl PumpBody for ResponseBody {
    fn patience(&self) -> Option<Duration> {
        self.clocks.idle
    }

    fn gave_up(&mut self) {
        if let Some((_, exchange)) = &mut self.exchange {
            exchange.not_taken();
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Some((_, exchange)) = &mut self.exchange {
            exchange.sent(self.sent);
            // Servers do not ask for the end of a body that says it is at its end.
            let ended = match &self.content {
                Content::Whole(bytes) => bytes.is_empty(),
                Content::Upstream(source) => source.is_end_stream(),
                Content::Cut(_) => false,
            };
            if ended {
                exchange.completed();
            }
        }
    }
}
