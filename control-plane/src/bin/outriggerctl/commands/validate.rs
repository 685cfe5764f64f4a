//! `validate -f`: the control plane's checks, without one.

use crate::app::Io;
use crate::cli::ValidateArgs;
use crate::failure::Failure;
use crate::input;

pub fn run(args: &ValidateArgs, io: &mut Io<'_>) -> Result<(), Failure> {
    let input = input::load(&args.files, io)?;
    let (errors, warnings) = input.relate();
    for warning in &warnings {
        io.warn(&warning.to_string())?;
    }
    if !warnings.is_empty() {
        let note = "note: services were looked for in these files only; a mesh may have more";
        writeln!(io.err, "{note}")?;
    }
    let problems = [input.problems(), &errors].concat();
    if !problems.is_empty() {
        return Err(Failure::refused(input::print(&problems, io)?));
    }
    let count = |count: usize, word: &str| match count {
        1 => format!("1 {word}"),
        _ => format!("{count} {word}s"),
    };
    let (resources, files) = (input.keys().len(), input.files());
    writeln!(
        io.out,
        "{} in {}: valid",
        count(resources, "resource"),
        count(files, "file")
    )?;
    Ok(())
}
