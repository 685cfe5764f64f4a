//! The resources in `examples/` are what people start from: each of them must be what it says.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use outrigger_control_plane::model::relate::View;
use outrigger_control_plane::model::{self, Parsed, Resource, ResourceKey, ServiceSpec};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

/// All YAML files below a directory that hold resources; there are others, e.g. settings of sidecars.
fn resource_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(resource_files(&path));
        } else if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
            && std::fs::read_to_string(&path)
                .unwrap()
                .contains(model::API_VERSION)
        {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn parse(path: &Path) -> Parsed {
    model::parse(&path.display().to_string(), &std::fs::read(path).unwrap())
}

fn problems(parsed: &Parsed) -> Vec<String> {
    parsed.problems.iter().map(ToString::to_string).collect()
}

/// Examples of what is refused.
fn is_meant_to_be_refused(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem == "broken")
}

#[test]
fn every_resource_is_valid() {
    let files = resource_files(&examples());
    assert!(
        files.len() >= 6,
        "examples/ has moved: only {files:?} found"
    );
    for path in files {
        let problems = problems(&parse(&path));
        if is_meant_to_be_refused(&path) {
            assert!(!problems.is_empty(), "{} is valid", path.display());
        } else {
            assert!(problems.is_empty(), "{problems:#?}");
        }
    }
}

struct Alone<'a>(&'a [Resource]);

impl View for Alone<'_> {
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
        Some(model::DEFAULT_TRUST_DOMAIN)
    }
}

/// A policy can be applied to an empty mesh: no warning about a service that is not there.
#[test]
fn every_policy_is_complete() {
    let files = resource_files(&examples().join("policies"));
    assert!(!files.is_empty());
    for path in files {
        let resources: Vec<Resource> = parse(&path)
            .documents
            .into_iter()
            .map(|document| document.resource)
            .collect();
        let findings = model::validate_against(&resources, &Alone(&resources));
        assert_eq!(findings.errors, [], "{}", path.display());
        assert_eq!(findings.warnings, [], "{}", path.display());
    }
}

/// The page about the policies names each of them.
#[test]
fn every_policy_is_explained() {
    let page = std::fs::read_to_string(examples().join("README.md")).unwrap();
    for path in resource_files(&examples().join("policies")) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(
            page.contains(&format!("(policies/{name})")),
            "README.md says nothing of {name}"
        );
    }
}
