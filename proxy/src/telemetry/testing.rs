//! What tests of this module and of the admin port need.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::access_log::AccessLog;
use super::metrics::Metrics;
use super::trace::Traces;
use crate::config::LogFormat;
use crate::control::lookup::Lookups;
use crate::drain::Drain;
use crate::policy::{AccessLogMode, Snapshot};
use crate::shared::{Shared, Status};

/// State as it is right after the start, with the snapshot given.
pub(crate) fn shared(snapshot: Snapshot) -> Arc<Shared> {
    let access_log = AccessLog::to(AccessLogMode::Off, LogFormat::Json, Box::new(io::sink()));
    Arc::new(Shared {
        snapshot: ArcSwap::from_pointee(snapshot),
        tls: ArcSwapOption::empty(),
        lookups: Lookups::new().0,
        metrics: Arc::new(Metrics::new()),
        access_log: access_log.expect("a thread can be started"),
        traces: Traces::default(),
        drain: Drain::new(),
        status: Status::default(),
    })
}

/// An output that tests can read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Output(Arc<Mutex<Vec<u8>>>);

impl Output {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no writer panics").clone())
            .expect("lines are UTF-8")
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .expect("no reader panics")
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
