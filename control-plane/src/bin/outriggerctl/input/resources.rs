//! Files → resources, with the place of everything that is wrong with them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use outrigger_control_plane::api::convert;
use outrigger_control_plane::model::relate::View;
use outrigger_control_plane::model::{
    self, Document, IndexedProblem, Problem, Resource, ResourceKey, ServiceSpec, SourceProblem,
};
use outrigger_proto::api::v1 as api;

use super::files;
use crate::app::Io;
use crate::failure::Failure;
use crate::target::{self, Target};

/// What the files of a command hold.
#[derive(Debug, Default)]
pub struct Input {
    documents: Vec<Document>,
    /// Where each resource is among the documents.
    index: BTreeMap<ResourceKey, usize>,
    problems: Vec<SourceProblem>,
    files: usize,
}

impl Input {
    /// Adds a resource, unless another file or document has it as well.
    fn add(&mut self, document: Document) {
        let key = document.resource.key();
        let first = match self.index.entry(key.clone()) {
            Entry::Vacant(free) => {
                free.insert(self.documents.len());
                return self.documents.push(document);
            }
            Entry::Occupied(taken) => &self.documents[*taken.get()],
        };
        let place = first.locate(Problem::new("metadata.name", ""));
        let line = place
            .location
            .map_or_else(String::new, |location| format!(":{}", location.line));
        let message = format!("{key} is also in {}{line}; give it once", place.source);
        self.problems
            .push(document.locate(Problem::new("metadata.name", message)));
    }

    /// The names of the resources.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = ResourceKey> {
        self.documents
            .iter()
            .map(|document| document.resource.key())
    }

    /// The resources as the management API takes them.
    pub fn messages(&self) -> Vec<api::Resource> {
        let message = |document: &Document| convert::to_message(&document.resource, None);
        self.documents.iter().map(message).collect()
    }

    /// How many files there were.
    pub fn files(&self) -> usize {
        self.files
    }

    /// What is wrong with resources by themselves: they are not among the documents.
    pub fn problems(&self) -> &[SourceProblem] {
        &self.problems
    }

    /// The place of a problem of the resource at `index`. None for an index that does not exist.
    pub fn locate(&self, index: usize, problem: Problem) -> Option<SourceProblem> {
        self.documents
            .get(index)
            .map(|document| document.locate(problem))
    }

    /// What is wrong between the resources, as far as that can be told without a control plane: errors and warnings.
    pub fn relate(&self) -> (Vec<SourceProblem>, Vec<SourceProblem>) {
        let resources: Vec<Resource> = self
            .documents
            .iter()
            .map(|document| document.resource.clone())
            .collect();
        let findings = model::validate_against(&resources, &Offline(&resources));
        let place = |found: Vec<IndexedProblem>| {
            found
                .into_iter()
                .filter_map(|found| self.locate(found.index, found.problem))
                .collect()
        };
        (place(findings.errors), place(findings.warnings))
    }
}

/// Reads all files. What is wrong with the resources is in the result; an error is for files that cannot be read, or hold
/// nothing at all.
pub fn load(paths: &[PathBuf], io: &mut Io<'_>) -> Result<Input, Failure> {
    let mut input = Input::default();
    for source in files::read(paths, io)? {
        let parsed = model::parse(&source.name, &source.bytes);
        parsed
            .documents
            .into_iter()
            .for_each(|document| input.add(document));
        input.problems.extend(parsed.problems);
        input.files += 1;
    }
    if input.documents.is_empty() && input.problems.is_empty() {
        let names: Vec<_> = paths
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        return Err(Failure::refused(format!(
            "no resource in {}",
            names.join(", ")
        )));
    }
    Ok(input)
}

/// What is known without a control plane: the files.
struct Offline<'a>(&'a [Resource]);

impl View for Offline<'_> {
    fn services(&self) -> Box<dyn Iterator<Item = &Resource> + '_> {
        Box::new(
            self.0
                .iter()
                .filter(|resource| resource.as_service().is_some()),
        )
    }

    fn service(&self, key: &ResourceKey) -> Option<&ServiceSpec> {
        self.0
            .iter()
            .find(|resource| resource.key() == *key)?
            .as_service()
    }

    fn trust_domain(&self) -> Option<&str> {
        None
    }
}

/// The names of all resources, whether the rest of them is valid or not: what is to be deleted need not be.
pub fn keys(paths: &[PathBuf], io: &mut Io<'_>) -> Result<Vec<ResourceKey>, Failure> {
    let input = load(paths, io)?;
    let mut keys: Vec<ResourceKey> = input.keys().collect();
    let mut seen: BTreeSet<ResourceKey> = keys.iter().cloned().collect();
    let mut nameless = Vec::new();
    for problem in &input.problems {
        match problem.resource.as_deref().and_then(named) {
            Some(key) => {
                if seen.insert(key.clone()) {
                    keys.push(key);
                }
            }
            None => nameless.push(problem.clone()),
        }
    }
    if nameless.is_empty() {
        return Ok(keys);
    }
    let count = print(&nameless, io)?;
    Err(Failure::refused(format!("{count}; nothing was deleted")))
}

/// A key as problems have it, `route/default/chat`.
fn named(key: &str) -> Option<ResourceKey> {
    match target::parse(&[key.to_owned()], None) {
        Ok(Target::Named(keys)) => keys.into_iter().next(),
        _ => None,
    }
}

/// Prints problems on stderr, a line each, and says how many there are.
pub fn print(problems: &[SourceProblem], io: &mut Io<'_>) -> io::Result<String> {
    for problem in problems {
        writeln!(io.err, "{problem}")?;
    }
    Ok(match problems.len() {
        1 => "1 problem".to_owned(),
        count => format!("{count} problems"),
    })
}
