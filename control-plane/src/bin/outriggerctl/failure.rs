//! How a run fails: one line that says what, one that says what to do next, and an exit code that scripts can use.

use std::io;

use crate::app::Io;
use crate::output::style;

/// The program's exit codes. They are documented in `examples/cli.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Ok = 0,
    /// The request was refused or failed.
    Refused = 1,
    /// What was typed makes no sense.
    Usage = 2,
    NotFound = 3,
    /// Somebody else changed the resource in the meantime.
    Conflict = 4,
    /// The control plane cannot be reached, or does not let us in.
    Unreachable = 5,
}

/// Why a run ends early.
#[derive(Debug)]
pub enum Failure {
    /// Explained to the user.
    Told {
        exit: Exit,
        message: String,
        hint: Option<String>,
    },
    /// Whoever read our output has seen enough (`| head`): no error.
    ClosedOutput,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self::Told {
            exit,
            message: message.into(),
            hint: None,
        }
    }

    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(Exit::Refused, message)
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Adds what to do next; may be several lines.
    #[must_use]
    pub fn hint(mut self, text: impl Into<String>) -> Self {
        if let Self::Told { hint, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }

    pub fn exit(&self) -> Exit {
        match self {
            Self::Told { exit, .. } => *exit,
            Self::ClosedOutput => Exit::Ok,
        }
    }

    /// Writes the failure to stderr.
    pub fn print(&self, io: &mut Io<'_>) -> io::Result<()> {
        let Self::Told { message, hint, .. } = self else {
            return Ok(());
        };
        let label = style::paint(style::RED, "error:", io.color_err);
        writeln!(io.err, "{label} {message}")?;
        for line in hint.iter().flat_map(|hint| hint.lines()) {
            writeln!(io.err, "  {line}")?;
        }
        Ok(())
    }
}

/// For writing to stdout, which is where most `io::Error`s of this program come from.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ClosedOutput,
            _ => Self::refused(format!("cannot write the output: {error}")),
        }
    }
}
