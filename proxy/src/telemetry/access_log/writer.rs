//! The thread that writes.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::time::Duration;

use super::{Entry, format};
use crate::config::LogFormat;

/// Bytes gathered before they are written, though more entries wait.
const BATCH: usize = 64 << 10;

/// Rest between two batches. A sender that finds the writer asleep in `recv` has to wake it, a system call; one that finds
/// it resting only adds to the queue. 200 wake-ups a second at most, and a line is never later than this.
const REST: Duration = Duration::from_millis(5);

pub(super) enum Message {
    Entry(Box<Entry>),
    /// Answer when everything before this is written.
    Flush(SyncSender<()>),
}

/// Starts the thread; it ends when the last sender is gone.
pub(super) fn spawn(
    entries: Receiver<Message>,
    format: LogFormat,
    output: Box<dyn Write + Send>,
    dropped: Arc<AtomicU64>,
) -> std::io::Result<()> {
    let writer = Writer {
        format,
        output,
        dropped,
        buffer: Vec::new(),
        lines: 0,
    };
    std::thread::Builder::new()
        .name("access-log".to_owned())
        .spawn(move || writer.run(entries))?;
    Ok(())
}

struct Writer {
    format: LogFormat,
    output: Box<dyn Write + Send>,
    dropped: Arc<AtomicU64>,
    buffer: Vec<u8>,
    /// In the buffer.
    lines: u64,
}

impl Writer {
    #[allow(
        clippy::disallowed_methods,
        reason = "this thread is not a worker: it does nothing else"
    )]
    fn run(mut self, entries: Receiver<Message>) {
        while let Ok(first) = entries.recv() {
            let mut next = Ok(first);
            loop {
                match next {
                    Ok(message) => self.take(message),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return self.write(),
                }
                next = entries.try_recv();
            }
            self.write();
            std::thread::sleep(REST);
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Entry(entry) => {
                format::line(&mut self.buffer, &entry, self.format);
                self.lines += 1;
                if self.buffer.len() >= BATCH {
                    self.write();
                }
            }
            Message::Flush(done) => {
                self.write();
                // Whoever asked may have lost patience.
                let _ = done.try_send(());
            }
        }
    }

    fn write(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let written = self
            .output
            .write_all(&self.buffer)
            .and_then(|()| self.output.flush());
        if written.is_err() {
            // A reader that went away may come back (a restarted log collector); until then the count tells.
            self.dropped.fetch_add(self.lines, Relaxed);
        }
        self.lines = 0;
        self.buffer.clear();
        // A burst of long lines must not stay in memory.
        self.buffer.shrink_to(BATCH);
    }
}
