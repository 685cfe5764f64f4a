//! One run of the program, from arguments to exit code. Nothing here touches the process's own streams, so that tests
//! run exactly this.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use clap::Parser;
use clap::error::ErrorKind;
use jiff::Timestamp;

use crate::cli::{Cli, Command};
use crate::commands;
use crate::failure::{Exit, Failure};
use crate::output::style;

/// What a run reads and writes.
pub struct Io<'a> {
    pub stdin: &'a mut dyn Read,
    pub out: &'a mut dyn Write,
    pub err: &'a mut dyn Write,
    /// Whether `out` takes colours.
    pub color_out: bool,
    pub color_err: bool,
    /// The user's home directory.
    pub home: Option<PathBuf>,
    /// The clock that ages are measured by.
    pub now: fn() -> Timestamp,
}

impl Io<'_> {
    /// A line on stderr that is no error: `warning: …`.
    pub fn warn(&mut self, text: &str) -> io::Result<()> {
        let label = style::paint(style::YELLOW, "warning:", self.color_err);
        writeln!(self.err, "{label} {text}")
    }
}

/// Runs the program and returns its exit code.
pub fn run<I>(arguments: I, io: &mut Io<'_>) -> u8
where
    I: IntoIterator<Item = OsString>,
{
    let result = match Cli::try_parse_from(arguments) {
        Ok(cli) => execute(cli, io).and_then(|()| io.out.flush().map_err(Failure::from)),
        Err(error) => return explain_usage(&error, io),
    };
    match result {
        Ok(()) => Exit::Ok as u8,
        Err(failure) => {
            // Where stderr is gone as well there is nobody left to tell.
            let _ = failure.print(io);
            failure.exit() as u8
        }
    }
}

/// Help and version go to stdout and are no error; the rest is clap's explanation of what was typed.
fn explain_usage(error: &clap::Error, io: &mut Io<'_>) -> u8 {
    let text = |color: bool| {
        let text = error.render();
        if color {
            text.ansi().to_string()
        } else {
            text.to_string()
        }
    };
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = write!(io.out, "{}", text(io.color_out));
            Exit::Ok as u8
        }
        _ => {
            let _ = write!(io.err, "{}", text(io.color_err));
            Exit::Usage as u8
        }
    }
}

fn execute(cli: Cli, io: &mut Io<'_>) -> Result<(), Failure> {
    let Cli { global, command } = cli;
    match command {
        // These need no connection.
        Command::Validate(args) => return commands::validate::run(&args, io),
        Command::Completions { shell } => return commands::completions::run(shell, io),
        Command::Config(commands::config::Command::View(args)) => {
            return commands::config::view(&args, &global, io);
        }
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::refused(format!("cannot start: {error}")))?;
    runtime.block_on(async {
        match command {
            Command::Apply(args) => commands::apply::run(&args, &global, io).await,
            Command::Get(args) => commands::get::run(&args, &global, io).await,
            Command::Describe(args) => commands::describe::run(&args, &global, io).await,
            Command::Delete(args) => commands::delete::run(&args, &global, io).await,
            Command::Status(args) => commands::status::run(&args, &global, io).await,
            Command::Explain(args) => commands::explain::run(&args, &global, io).await,
            Command::Token(command) => commands::token::run(&command, &global, io).await,
            Command::Version(args) => commands::version::run(&args, &global, io).await,
            Command::Validate(_) | Command::Completions { .. } | Command::Config(_) => Ok(()),
        }
    })
}
