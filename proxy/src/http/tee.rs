//! A copy of a request's body for somebody who must not slow the original down.
//!
//! Whoever reads the original puts each chunk into a [`Tap`] as well. The copy waits for chunks; the original never waits for
//! the copy: where it is too far behind, it gets an error instead of the rest. Chunks are reference counted, not copied.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use super::body::BodyError;
use crate::telemetry::metrics::MirrorMetrics;

/// Most bytes that wait for one copy. A prompt of this size is some 250,000 tokens.
const MAX_WAITING: usize = 1 << 20;
/// What a chunk costs on top of its bytes: many small ones must not be free.
const CHUNK: usize = 64;

/// Why a copy does not get all of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// It was too far behind.
    TooSlow,
    /// The original itself was not read to its end.
    Cut,
}

/// The original's end. To drop it before [`end`](Self::end) breaks the copy off.
#[derive(Debug)]
pub(crate) struct Tap(Rc<RefCell<Queue>>);

/// The copy's end.
#[derive(Debug)]
pub(crate) struct TeeSource(Rc<RefCell<Queue>>);

/// Says whether, and why, the copy will not be whole.
#[derive(Debug)]
pub(crate) struct Fate(Rc<RefCell<Queue>>);

#[derive(Debug)]
struct Queue {
    chunks: VecDeque<Bytes>,
    waiting: usize,
    trailers: Option<HeaderMap>,
    end: End,
    /// Whoever reads the copy.
    waker: Option<Waker>,
    /// Whoever waits for its fate.
    watcher: Option<Waker>,
    /// Bounds what waits for all copies of one mirror.
    budget: Arc<MirrorMetrics>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    Whole,
    Lost(Lost),
    /// Nobody reads the copy any more.
    Closed,
}

/// A new copy.
pub(crate) fn tee(budget: &Arc<MirrorMetrics>) -> (Tap, TeeSource, Fate) {
    let queue = Rc::new(RefCell::new(Queue {
        chunks: VecDeque::new(),
        waiting: 0,
        trailers: None,
        end: End::Open,
        waker: None,
        watcher: None,
        budget: Arc::clone(budget),
    }));
    (
        Tap(Rc::clone(&queue)),
        TeeSource(Rc::clone(&queue)),
        Fate(queue),
    )
}

impl Tap {
    /// A chunk of the original.
    pub(crate) fn push(&self, data: &Bytes) {
        let mut queue = self.0.borrow_mut();
        if queue.end != End::Open || data.is_empty() {
            return;
        }
        let cost = data.len() + CHUNK;
        if queue.waiting + cost > MAX_WAITING || !queue.budget.reserve(cost) {
            queue.clear();
            queue.finish(End::Lost(Lost::TooSlow));
            return;
        }
        queue.waiting += cost;
        queue.chunks.push_back(data.clone());
        queue.wake();
    }

    /// The original has ended.
    pub(crate) fn end(&self, trailers: Option<&HeaderMap>) {
        let mut queue = self.0.borrow_mut();
        if queue.end == End::Open {
            queue.trailers = trailers.cloned();
            queue.finish(End::Whole);
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let mut queue = self.0.borrow_mut();
        if queue.end == End::Open {
            queue.clear();
            queue.finish(End::Lost(Lost::Cut));
        }
    }
}

impl TeeSource {
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut queue = self.0.borrow_mut();
        if let Some(chunk) = queue.chunks.pop_front() {
            let cost = chunk.len() + CHUNK;
            queue.waiting -= cost;
            queue.budget.release(cost);
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        match queue.end {
            End::Open => {
                queue.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            End::Whole => Poll::Ready(queue.trailers.take().map(|it| Ok(Frame::trailers(it)))),
            End::Lost(_) | End::Closed => Poll::Ready(Some(Err(BodyError::Superseded))),
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let queue = self.0.borrow();
        queue.end == End::Whole && queue.chunks.is_empty() && queue.trailers.is_none()
    }
}

impl Drop for TeeSource {
    fn drop(&mut self) {
        let mut queue = self.0.borrow_mut();
        queue.clear();
        if queue.end == End::Open {
            queue.end = End::Closed;
        }
    }
}

impl Fate {
    /// `None`: the copy had all that there was, as far as it was read.
    pub(crate) fn lost(&self) -> Option<Lost> {
        match self.0.borrow().end {
            End::Lost(why) => Some(why),
            _ => None,
        }
    }

    /// Waits until the copy has lost the rest; for ever where it does not. Whoever sends it may be waiting for its peer, and would not
    /// ask for more.
    pub(crate) async fn until_lost(&self) -> Lost {
        std::future::poll_fn(|cx| match self.lost() {
            Some(why) => Poll::Ready(why),
            None => {
                self.0.borrow_mut().watcher = Some(cx.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}

impl Queue {
    fn finish(&mut self, end: End) {
        self.end = end;
        self.wake();
        if let Some(watcher) = self.watcher.take() {
            watcher.wake();
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn clear(&mut self) {
        self.chunks = VecDeque::new();
        self.budget.release(std::mem::take(&mut self.waiting));
    }
}

#[cfg(test)]
mod tests;
