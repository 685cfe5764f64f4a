//! `outriggerctl`: applies resources to a mesh, shows them, and shows what its sidecars make of them.
//!
//! ```text
//! cli        what can be typed                    input/     files → resources, problems with file and line
//! app        one run: arguments in, exit code out output/    tables, YAML and JSON, ages, colours
//! session    the connection, its errors explained commands/  one file for each command
//! ```

mod app;
mod cli;
mod commands;
mod failure;
mod input;
mod kind;
mod output;
mod session;
mod target;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::io::{IsTerminal, stderr, stdin, stdout};
use std::process::ExitCode;

use app::Io;

fn main() -> ExitCode {
    let color =
        |terminal: bool| terminal && output::style::color_wanted(|name| std::env::var_os(name));
    let mut io = Io {
        color_out: color(stdout().is_terminal()),
        color_err: color(stderr().is_terminal()),
        stdin: &mut stdin().lock(),
        out: &mut stdout().lock(),
        err: &mut stderr().lock(),
        home: std::env::home_dir(),
        now: jiff::Timestamp::now,
    };
    ExitCode::from(app::run(std::env::args_os(), &mut io))
}
