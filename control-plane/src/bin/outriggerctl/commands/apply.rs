//! `apply -f`: creates or changes resources, all or none of them.

use outrigger_control_plane::api::problems;
use outrigger_control_plane::model::{Problem, SourceProblem};
use outrigger_proto::api::v1::{self as api, ApplyOutcome, ApplyRequest, ApplyResponse};
use tonic::Status;

use crate::app::Io;
use crate::cli::{ApplyArgs, Global};
use crate::failure::Failure;
use crate::input::{self, Input};
use crate::session::{Session, call};

pub async fn run(args: &ApplyArgs, global: &Global, io: &mut Io<'_>) -> Result<(), Failure> {
    let input = input::load(&args.files, io)?;
    if !input.problems().is_empty() {
        return Err(refused(input.problems(), io));
    }
    let session = Session::open(global, io).await?;
    let request = ApplyRequest {
        resources: input.messages(),
        dry_run: args.dry_run,
    };
    match session.client.resources().apply(call(request)).await {
        Ok(response) => report(response.into_inner(), &input, args.dry_run, io),
        Err(status) => match objections(&status, &input) {
            found if found.is_empty() => Err(session.explain("apply", &status)),
            found => Err(refused(&found, io)),
        },
    }
}

fn report(
    response: ApplyResponse,
    input: &Input,
    dry_run: bool,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    let dry_run = if dry_run { " (dry run)" } else { "" };
    for (index, (result, key)) in response.results.into_iter().zip(input.keys()).enumerate() {
        let outcome = match result.outcome() {
            ApplyOutcome::Created => "created",
            ApplyOutcome::Configured => "configured",
            ApplyOutcome::Unchanged => "unchanged",
            ApplyOutcome::Unspecified => "applied",
        };
        writeln!(io.out, "{key} {outcome}{dry_run}")?;
        for warning in result.warnings {
            match input.locate(index, warning_of(&warning)) {
                Some(warning) => io.warn(&warning.to_string())?,
                None => io.warn(&warning)?,
            }
        }
    }
    Ok(())
}

/// A warning is a text that starts with the path of a field, where it is about one.
fn warning_of(text: &str) -> Problem {
    match text.split_once(": ") {
        Some((field, message)) if field.starts_with("spec") || field.starts_with("metadata") => {
            Problem::new(field, message)
        }
        _ => Problem::new("", text),
    }
}

/// The control plane's objections, with the places in the files that they are about.
fn objections(status: &Status, input: &Input) -> Vec<SourceProblem> {
    let place = |problem: api::Problem| {
        let found = Problem::new(problem.field, problem.message);
        input.locate(problem.index as usize, found)
    };
    problems::of_status(status)
        .into_iter()
        .filter_map(place)
        .collect()
}

/// Tells all problems, one line each.
fn refused(found: &[SourceProblem], io: &mut Io<'_>) -> Failure {
    match input::print(found, io) {
        Ok(count) => Failure::refused(format!("{count}; nothing was applied")),
        Err(error) => error.into(),
    }
}
