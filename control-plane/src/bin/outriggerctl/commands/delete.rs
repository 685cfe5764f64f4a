//! `delete`: by name or by file.

use outrigger_control_plane::model::{Kind, ResourceKey};
use outrigger_proto::api::v1::DeleteRequest;

use crate::app::Io;
use crate::cli::{DeleteArgs, Global};
use crate::failure::Failure;
use crate::input;
use crate::session::{Session, call};
use crate::target::{self, Target};

pub async fn run(args: &DeleteArgs, global: &Global, io: &mut Io<'_>) -> Result<(), Failure> {
    let keys = keys(args, io)?;
    let session = Session::open(global, io).await?;
    let mut failures = Vec::new();
    for key in &keys {
        match delete(key, args, &session).await {
            Ok(true) => {
                let dry_run = if args.dry_run { " (dry run)" } else { "" };
                writeln!(io.out, "{key} deleted{dry_run}")?;
            }
            Ok(false) => {}
            // The others are deleted nevertheless; what failed for one reason is told once each.
            Err(failure) => failures.push(failure),
        }
    }
    let last = failures.pop();
    for failure in &failures {
        failure.print(io)?;
    }
    last.map_or(Ok(()), Err)
}

fn keys(args: &DeleteArgs, io: &mut Io<'_>) -> Result<Vec<ResourceKey>, Failure> {
    if !args.files.files.is_empty() {
        if args.scope.namespace.is_some() {
            return Err(Failure::usage(
                "-n cannot be combined with -f: the files say the namespace",
            ));
        }
        let mut keys = input::keys(&args.files.files, io)?;
        // What was applied last goes first, so that no route is left without its service in between.
        keys.reverse();
        return Ok(keys);
    }
    match target::parse(&args.words, args.scope.namespace.as_deref())? {
        Target::Named(keys) => Ok(keys),
        Target::Kinds(_) => {
            let kinds = args.words.join(" ");
            Err(Failure::usage(format!("`delete {kinds}` names no resource"))
                .hint(format!("Name it: `outriggerctl delete {kinds} NAME`; `outriggerctl get {kinds}` lists them.")))
        }
    }
}

/// Whether something was deleted.
async fn delete(key: &ResourceKey, args: &DeleteArgs, session: &Session) -> Result<bool, Failure> {
    let request = DeleteRequest {
        r#ref: Some(target::reference(key)),
        dry_run: args.dry_run,
        ..DeleteRequest::default()
    };
    match session.client.resources().delete(call(request)).await {
        Ok(_) => Ok(true),
        Err(status) if status.code() == tonic::Code::NotFound => {
            if args.ignore_not_found {
                Ok(false)
            } else {
                Err(super::get::not_found(key))
            }
        }
        Err(status) => {
            let failure = session.explain(&format!("delete {key}"), &status);
            Err(match key.kind {
                Kind::Workload => {
                    failure.hint("A workload belongs to its sidecar and goes when the sidecar stops or its lease ends.")
                }
                _ => failure,
            })
        }
    }
}
