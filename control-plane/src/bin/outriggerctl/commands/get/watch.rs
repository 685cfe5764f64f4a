//! `get --watch`: what there is, then every change.

use std::collections::BTreeMap;

use outrigger_control_plane::model::Kind;
use outrigger_proto::api::v1::watch_event::Type;
use outrigger_proto::api::v1::{Resource, WatchEvent, WatchRequest};
use serde_json::json;
use tonic::{Code, Streaming};

use super::{columns, document, namespace};
use crate::app::Io;
use crate::cli::{Format, GetArgs};
use crate::failure::Failure;
use crate::output::json;
use crate::output::table::Table;
use crate::session::Session;
use crate::target::Target;

pub async fn run(
    args: &GetArgs,
    target: &Target,
    session: &Session,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    let filter = Filter::new(args, target)?;
    // What was shown, by resource version: a watch that was ended for being slow starts again and repeats what is there.
    let mut shown: BTreeMap<String, String> = BTreeMap::new();
    let mut printer = Printer::new(args, &filter);
    loop {
        let request = WatchRequest {
            kind: filter.kind.as_str().to_owned(),
            namespace: filter.namespace.clone(),
        };
        let stream = session.client.resources().watch(request).await;
        let mut stream = stream
            .map_err(|status| session.explain("watch", &status))?
            .into_inner();
        match follow(&mut stream, &filter, &mut shown, &mut printer, io).await? {
            // The control plane ends a watch when it stops; a slow one it ends with this code, to start again.
            Some(status) if status.code() == Code::ResourceExhausted => {}
            Some(status) => return Err(session.explain("watch", &status)),
            None => {
                let ended = tonic::Status::unavailable("the watch ended");
                return Err(session.explain("watch", &ended));
            }
        }
    }
}

async fn follow(
    stream: &mut Streaming<WatchEvent>,
    filter: &Filter,
    shown: &mut BTreeMap<String, String>,
    printer: &mut Printer,
    io: &mut Io<'_>,
) -> Result<Option<tonic::Status>, Failure> {
    loop {
        let event = match stream.message().await {
            Ok(Some(event)) => event,
            Ok(None) => return Ok(None),
            Err(status) => return Ok(Some(status)),
        };
        if event.r#type() == Type::Synced {
            printer.synced(io)?;
            continue;
        }
        let Some(resource) = &event.resource else {
            continue;
        };
        if !filter.wants(resource) {
            continue;
        }
        let name = columns::name(resource);
        let version = resource
            .metadata
            .as_ref()
            .map_or("", |meta| &meta.resource_version)
            .to_owned();
        let kind = match event.r#type() {
            Type::Deleted => {
                shown.remove(&name);
                "DELETED"
            }
            _ => match shown.insert(name, version.clone()) {
                // An empty version tells nothing: the event is shown rather than lost.
                Some(before) if before == version && !version.is_empty() => continue,
                Some(_) => "MODIFIED",
                None => "ADDED",
            },
        };
        printer.event(kind, resource, io)?;
    }
}

/// Which resources are of interest.
struct Filter {
    kind: Kind,
    namespace: String,
    names: Vec<String>,
    labels: Vec<(String, String)>,
}

impl Filter {
    fn new(args: &GetArgs, target: &Target) -> Result<Self, Failure> {
        let one = || Failure::usage("--watch follows one kind in one namespace (or -A)");
        let (kind, own, names) = match target {
            Target::Kinds(kinds) => match kinds[..] {
                [kind] => (kind, namespace(args).to_owned(), Vec::new()),
                _ => return Err(one()),
            },
            Target::Named(keys) => {
                let first = keys.first().ok_or_else(one)?;
                if keys
                    .iter()
                    .any(|key| (key.kind, &key.namespace) != (first.kind, &first.namespace))
                {
                    return Err(one());
                }
                let names = keys.iter().map(|key| key.name.clone()).collect();
                (first.kind, first.namespace.clone(), names)
            }
        };
        let namespace = if kind.is_namespaced() {
            own
        } else {
            String::new()
        };
        Ok(Self {
            kind,
            namespace,
            names,
            labels: args.labels.clone(),
        })
    }

    fn wants(&self, resource: &Resource) -> bool {
        let Some(meta) = &resource.metadata else {
            return false;
        };
        (self.names.is_empty() || self.names.contains(&meta.name))
            && self
                .labels
                .iter()
                .all(|(key, value)| meta.labels.get(key) == Some(value))
    }
}

/// Writes events. The table waits until all that is there has come, so that its columns fit.
struct Printer {
    kind: Kind,
    format: Format,
    no_headers: bool,
    namespace: bool,
    waiting: Option<Table>,
    widths: Vec<usize>,
}

impl Printer {
    fn new(args: &GetArgs, filter: &Filter) -> Self {
        let mut printer = Self {
            kind: filter.kind,
            format: args.output,
            no_headers: args.no_headers,
            namespace: args.all_namespaces,
            waiting: None,
            widths: Vec::new(),
        };
        if matches!(args.output, Format::Table | Format::Wide) {
            let table = columns::table(filter.kind, &printer.options(jiff::Timestamp::UNIX_EPOCH));
            // So that the first MODIFIED fits under the first ADDED.
            printer.waiting = Some(table.at_least(vec!["MODIFIED".len()]));
        }
        printer
    }

    fn options(&self, now: jiff::Timestamp) -> columns::Options {
        columns::Options {
            wide: self.format == Format::Wide,
            namespace: self.namespace,
            kind_in_name: false,
            event: true,
            now,
        }
    }

    fn event(&mut self, event: &str, resource: &Resource, io: &mut Io<'_>) -> Result<(), Failure> {
        if let Some(document) = document(self.format) {
            let value = json!({"type": event, "object": json::resource(resource)});
            document.write_next(&value, io.out)?;
        } else if self.format == Format::Name {
            writeln!(io.out, "{event} {}", columns::name(resource))?;
        } else {
            let row = columns::row(self.kind, resource, Some(event), &self.options((io.now)()));
            if let Some(table) = &mut self.waiting {
                table.row(row);
                return Ok(());
            }
            let mut table = Table::continuing(self.widths.clone());
            table.row(row);
            self.widths = table.widths();
            io.out.write_all(table.render(io.color_out).as_bytes())?;
        }
        Ok(io.out.flush()?)
    }

    fn synced(&mut self, io: &mut Io<'_>) -> Result<(), Failure> {
        let Some(table) = self.waiting.take() else {
            return Ok(());
        };
        self.widths = table.widths();
        let table = if self.no_headers {
            table.without_header()
        } else {
            table
        };
        io.out.write_all(table.render(io.color_out).as_bytes())?;
        Ok(io.out.flush()?)
    }
}
