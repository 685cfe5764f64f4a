//! The connections that a worker has open towards it: counted, and woken when a drain begins.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::task::{Context, Waker};

use tokio::sync::Notify;

use crate::drain::DrainGuard;
use crate::runtime::Worker;

/// All connections of a worker.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    /// Tasks to wake when a drain begins. A connection stays in one task, so that it registers once.
    tasks: RefCell<HashMap<u64, Waker>>,
    next: Cell<u64>,
    open: Cell<usize>,
    closed: Notify,
}

impl Connections {
    pub(crate) fn wake_all(&self) {
        let tasks = self.tasks.borrow();
        for waker in tasks.values() {
            waker.wake_by_ref();
        }
    }

    pub(crate) async fn none_left(&self) {
        while self.open.get() > 0 {
            self.closed.notified().await;
        }
    }
}

/// One open connection; a drain waits for its end.
pub(crate) struct Connection {
    worker: Rc<Worker>,
    id: u64,
    registered: Cell<bool>,
    _guard: DrainGuard,
}

impl Connection {
    pub(crate) fn open(worker: &Rc<Worker>) -> Connection {
        let connections = &worker.connections;
        let id = connections.next.get();
        connections.next.set(id + 1);
        connections.open.set(connections.open.get() + 1);
        Connection {
            id,
            registered: Cell::new(false),
            _guard: worker.shared.drain.guard(),
            worker: Rc::clone(worker),
        }
    }

    /// Wakes the calling task when a drain begins.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        self.registered.set(true);
        let mut tasks = self.worker.connections.tasks.borrow_mut();
        tasks.insert(self.id, cx.waker().clone());
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let connections = &self.worker.connections;
        if self.registered.get() {
            connections.tasks.borrow_mut().remove(&self.id);
        }
        connections.open.set(connections.open.get() - 1);
        if connections.open.get() == 0 {
            connections.closed.notify_waiters();
            connections.closed.notify_one();
        }
    }
}
