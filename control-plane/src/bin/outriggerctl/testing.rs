//! Runs the whole program against a control plane of the test's making, over real TLS.
#![allow(clippy::unwrap_used)]

mod fake;
pub mod fixtures;
mod golden;

use std::ffi::OsString;
use std::path::PathBuf;

use jiff::Timestamp;

use crate::app::{Io, run};

pub use fake::{Fake, State};
pub use golden::golden;

/// The clock of all tests.
pub const NOW: &str = "2026-11-20T12:00:00Z";

pub fn now() -> Timestamp {
    NOW.parse().unwrap()
}

/// What a run left behind.
#[derive(Debug)]
pub struct Ran {
    pub code: u8,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// All of it as one text, for golden files.
    pub fn transcript(&self) -> String {
        format!(
            "{}--- stderr\n{}--- exit code {}\n",
            self.out, self.err, self.code
        )
    }
}

/// Calls `f` with streams in memory.
pub fn with_io<T>(stdin: &str, f: impl FnOnce(&mut Io<'_>) -> T) -> T {
    let (mut stdin, mut out, mut err) = (stdin.as_bytes(), Vec::new(), Vec::new());
    let mut io = Io {
        stdin: &mut stdin,
        out: &mut out,
        err: &mut err,
        color_out: false,
        color_err: false,
        home: None,
        now,
    };
    f(&mut io)
}

/// One run of the program.
#[derive(Debug, Default)]
pub struct Runner {
    pub stdin: String,
    pub color: bool,
    pub home: Option<PathBuf>,
}

impl Runner {
    /// Runs `outriggerctl` with these words.
    pub fn run(&self, words: &[&str]) -> Ran {
        let (mut stdin, mut out, mut err) = (self.stdin.as_bytes(), Vec::new(), Vec::new());
        let mut io = Io {
            stdin: &mut stdin,
            out: &mut out,
            err: &mut err,
            color_out: self.color,
            color_err: self.color,
            home: self.home.clone(),
            now,
        };
        let arguments = std::iter::once("outriggerctl")
            .chain(words.iter().copied())
            .map(OsString::from);
        let code = run(arguments, &mut io);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran {
            code,
            out: text(out),
            err: text(err),
        }
    }
}

/// Runs `outriggerctl` with these words and nothing around it.
pub fn ctl(words: &[&str]) -> Ran {
    Runner::default().run(words)
}
