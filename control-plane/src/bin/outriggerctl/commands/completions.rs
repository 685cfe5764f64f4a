//! `completions SHELL`.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::app::Io;
use crate::cli::Cli;
use crate::failure::Failure;

pub fn run(shell: Shell, io: &mut Io<'_>) -> Result<(), Failure> {
    // Into memory first: the generator panics where its output cannot be written.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "outriggerctl", &mut script);
    Ok(io.out.write_all(&script)?)
}
