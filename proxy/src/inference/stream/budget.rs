//! Counts a stream's tokens against budgets, event by event where one of them ends streams: the client then has seen nothing but
//! complete events, whenever the end comes.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use super::super::ModelRequest;
use super::ending::Ending;
use super::sse::{self, MAX_EVENT};
use super::{Finish, Observer};
use crate::admission::tokens::Meter;

/// Of a stream.
#[derive(Debug)]
pub(super) struct Metering {
    meter: Rc<Meter>,
    /// `Some`: it may be ended.
    ending: Option<Ending>,
    /// The beginning of an event, where it may be ended.
    held: Vec<u8>,
}

/// What goes on to the client.
pub(super) struct Metered {
    pub(super) data: Bytes,
    /// It is the last.
    pub(super) end: Option<Ended>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// As the interface has it.
    Whole,
    /// It has no end that would say so: it is cut.
    Broken,
}

impl Metering {
    pub(super) fn new(meter: Rc<Meter>, request: &ModelRequest) -> Metering {
        let ending = meter.has_hard_limit().then(|| Ending::new(request));
        Metering {
            meter,
            ending,
            held: Vec::new(),
        }
    }

    /// Whether it may be ended.
    pub(super) fn ends(&self) -> bool {
        self.ending.is_some()
    }

    pub(super) fn pass(&mut self, chunk: Bytes, observer: &mut Observer) -> Metered {
        let Some(ending) = &mut self.ending else {
            observer.feed(&chunk);
            // It goes on, whatever the budget says.
            self.meter.progress(observer.seen.tokens);
            return go_on(chunk);
        };
        let whole = if self.held.is_empty() {
            chunk
        } else {
            self.held.extend_from_slice(&chunk);
            Bytes::from(std::mem::take(&mut self.held))
        };
        let mut done = 0;
        while let Some(length) = sse::event_end(&whole[done..]) {
            let event = &whole[done..done + length];
            done += length;
            observer.event(event);
            ending.look(event);
            let is_over = ending.is_over(&observer.seen);
            if self.meter.progress(observer.seen.tokens) || is_over {
                continue;
            }
            let Some(last_words) = ending.last_words(event, self.meter.known()) else {
                return Metered {
                    data: whole.slice(..done),
                    end: Some(Ended::Broken),
                };
            };
            observer.seen.finish = Some(Finish::Length);
            observer.seen.done = true;
            let mut data = BytesMut::with_capacity(done + last_words.len());
            data.extend_from_slice(&whole[..done]);
            data.extend_from_slice(&last_words);
            return Metered {
                data: data.freeze(),
                end: Some(Ended::Whole),
            };
        }
        let rest = &whole[done..];
        if rest.len() > MAX_EVENT {
            // Nobody reads such an event, and none is held: it goes on without a budget's end.
            self.ending = None;
            observer.feed(rest);
            return go_on(whole);
        }
        self.held.extend_from_slice(rest);
        go_on(whole.slice(..done))
    }

    /// What is left at the end.
    pub(super) fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.held).into()
    }

    /// Nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

fn go_on(data: Bytes) -> Metered {
    Metered { data, end: None }
}

#[cfg(test)]
mod tests;
