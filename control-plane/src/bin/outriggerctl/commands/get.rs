//! `get`: resources as a table, YAML, JSON or names.

mod columns;
mod watch;

pub use columns::{endpoint_state, local, subset, word};

use std::collections::HashMap;

use outrigger_control_plane::model::{DEFAULT_NAMESPACE, Kind, ResourceKey};
use outrigger_proto::api::v1::{GetRequest, ListRequest, Resource};

use crate::app::Io;
use crate::cli::{Format, GetArgs, Global};
use crate::failure::{Exit, Failure};
use crate::output::document::Document;
use crate::output::json;
use crate::session::{Session, call};
use crate::target::{self, Target};

pub async fn run(args: &GetArgs, global: &Global, io: &mut Io<'_>) -> Result<(), Failure> {
    let target = target::parse(&args.words, args.scope.namespace.as_deref())?;
    if matches!(target, Target::Named(_)) && (args.all_namespaces || !args.labels.is_empty()) {
        return Err(Failure::usage("names cannot be combined with -A or -l"));
    }
    let session = Session::open(global, io).await?;
    if args.watch {
        return watch::run(args, &target, &session, io).await;
    }
    let resources = match &target {
        Target::Kinds(kinds) => list(kinds, args, &session).await?,
        Target::Named(keys) => return named(keys, args, &session, io).await,
    };
    let kinds = match &target {
        Target::Kinds(kinds) => kinds.as_slice(),
        Target::Named(_) => &[],
    };
    if resources.is_empty() && matches!(args.output, Format::Table | Format::Wide) {
        return nothing(kinds, args, io);
    }
    show(&resources, kinds.len() > 1, args, io)
}

/// The namespace that is asked for; empty: all.
fn namespace(args: &GetArgs) -> &str {
    match (&args.scope.namespace, args.all_namespaces) {
        (_, true) => "",
        (Some(namespace), _) => namespace,
        (None, _) => DEFAULT_NAMESPACE,
    }
}

async fn list(kinds: &[Kind], args: &GetArgs, session: &Session) -> Result<Vec<Resource>, Failure> {
    let labels: HashMap<_, _> = args.labels.iter().cloned().collect();
    let mut all = Vec::new();
    for kind in kinds {
        let namespace = if kind.is_namespaced() {
            namespace(args)
        } else {
            ""
        };
        let request = ListRequest {
            kind: kind.as_str().to_owned(),
            namespace: namespace.to_owned(),
            labels: labels.clone().into_iter().collect(),
        };
        let what = format!("list {}", crate::kind::words(*kind)[1]);
        let response = session.client.resources().list(call(request)).await;
        all.extend(
            response
                .map_err(|status| session.explain(&what, &status))?
                .into_inner()
                .resources,
        );
    }
    Ok(all)
}

/// One resource. What does not exist gets a hint where to look.
pub async fn get_one(key: &ResourceKey, session: &Session) -> Result<Resource, Failure> {
    let request = GetRequest {
        r#ref: Some(target::reference(key)),
    };
    match session.client.resources().get(call(request)).await {
        Ok(response) => Ok(response.into_inner()),
        Err(status) if status.code() == tonic::Code::NotFound => Err(not_found(key)),
        Err(status) => Err(session.explain(&format!("get {key}"), &status)),
    }
}

/// There is no such resource.
pub fn not_found(key: &ResourceKey) -> Failure {
    let plural = crate::kind::words(key.kind)[1];
    let everywhere = if key.kind.is_namespaced() { " -A" } else { "" };
    Failure::new(Exit::NotFound, format!("{key} does not exist")).hint(format!(
        "`outriggerctl get {plural}{everywhere}` shows those that do."
    ))
}

async fn named(
    keys: &[ResourceKey],
    args: &GetArgs,
    session: &Session,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for key in keys {
        match get_one(key, session).await {
            Ok(resource) => found.push(resource),
            Err(failure) if failure.exit() == Exit::NotFound => missing.push(failure),
            Err(failure) => return Err(failure),
        }
    }
    let kinds: std::collections::BTreeSet<Kind> = keys.iter().map(|key| key.kind).collect();
    match (keys, found.as_slice(), document(args.output)) {
        ([_], [resource], Some(document)) => document.write(&json::resource(resource), io.out)?,
        (_, [], _) => {}
        _ => show(&found, kinds.len() > 1, args, io)?,
    }
    // Those that are there were shown; each of the others is named.
    let last = missing.pop();
    for failure in &missing {
        failure.print(io)?;
    }
    last.map_or(Ok(()), Err)
}

fn document(format: Format) -> Option<Document> {
    match format {
        Format::Yaml => Some(Document::Yaml),
        Format::Json => Some(Document::Json),
        Format::Table | Format::Wide | Format::Name => None,
    }
}

fn show(
    resources: &[Resource],
    several: bool,
    args: &GetArgs,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    if let Some(document) = document(args.output) {
        let list = json::list(resources.iter().map(json::resource).collect());
        return Ok(document.write(&list, io.out)?);
    }
    if args.output == Format::Name {
        for resource in resources {
            writeln!(io.out, "{}", columns::name(resource))?;
        }
        return Ok(());
    }
    let options = columns::Options {
        wide: args.output == Format::Wide,
        namespace: args.all_namespaces,
        kind_in_name: several,
        event: false,
        now: (io.now)(),
    };
    let mut first = true;
    for kind in Kind::ALL {
        let of_kind: Vec<&Resource> = resources
            .iter()
            .filter(|r| r.kind == kind.as_str())
            .collect();
        if of_kind.is_empty() {
            continue;
        }
        if !std::mem::replace(&mut first, false) {
            writeln!(io.out)?;
        }
        let mut table = columns::table(kind, &options);
        for resource in of_kind {
            table.row(columns::row(kind, resource, None, &options));
        }
        let table = if args.no_headers {
            table.without_header()
        } else {
            table
        };
        io.out.write_all(table.render(io.color_out).as_bytes())?;
    }
    Ok(())
}

fn nothing(kinds: &[Kind], args: &GetArgs, io: &mut Io<'_>) -> Result<(), Failure> {
    let what = match kinds {
        [kind] => crate::kind::words(*kind)[1],
        _ => "resources",
    };
    let with = if args.labels.is_empty() {
        ""
    } else {
        " with these labels"
    };
    let namespace = namespace(args);
    if namespace.is_empty() || kinds.iter().all(|kind| !kind.is_namespaced()) {
        writeln!(io.err, "No {what} found{with}.")?;
    } else {
        writeln!(
            io.err,
            "No {what} found{with} in namespace {namespace}; -A shows all namespaces."
        )?;
    }
    Ok(())
}
