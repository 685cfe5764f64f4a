//! Which rule a request falls under, and which of the rule's backends it goes to.
//!
//! Nothing here allocates for a request: patterns are compiled when the configuration arrives.

use std::sync::Arc;

use http::{HeaderMap, Method};

use super::{Backend, Rule, split};

mod grpc;
mod header;
mod model;
mod query;
mod string;

pub use grpc::GrpcMatch;
pub use header::HeaderMatch;
pub use model::ModelMatch;
pub use query::QueryParamMatch;
pub use string::{InvalidPattern, StringMatch};

/// What rules look at.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// The authority without its port. Case does not matter.
    pub host: &'a str,
    /// Port of the service.
    pub port: u16,
    /// Without the query, as it came: percent-encoding and `..` are left alone, because that is what the application gets.
    pub path: &'a str,
    /// Without its question mark, as it came; empty: none.
    pub query: &'a str,
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
    /// That its body names, where the service has inference on and it was understood.
    pub model: Option<&'a str>,
}

/// All of the given conditions.
#[derive(Clone, Debug, Default)]
pub struct Match {
    /// Any of them; empty: any host.
    pub hosts: Vec<HostMatch>,
    pub path: Option<StringMatch>,
    pub method: Option<Method>,
    pub headers: Vec<HeaderMatch>,
    pub query_params: Vec<QueryParamMatch>,
    pub grpc: Option<GrpcMatch>,
    /// Port of the service. `None`: any.
    pub port: Option<u16>,
    pub model: Option<ModelMatch>,
}

impl Match {
    pub fn matches(&self, facts: &RequestFacts<'_>) -> bool {
        // The cheap ones first.
        self.port.is_none_or(|port| port == facts.port)
            && self
                .method
                .as_ref()
                .is_none_or(|method| method == facts.method)
            && self
                .path
                .as_ref()
                .is_none_or(|path| path.matches(facts.path.as_bytes()))
            && (self.hosts.is_empty() || self.hosts.iter().any(|host| host.matches(facts.host)))
            && self
                .headers
                .iter()
                .all(|header| header.matches(facts.headers))
            && self
                .query_params
                .iter()
                .all(|param| param.matches(facts.query))
            && self
                .grpc
                .as_ref()
                .is_none_or(|grpc| grpc.matches(facts.path, facts.headers))
            && self
                .model
                .as_ref()
                .is_none_or(|model| facts.model.is_some_and(|name| model.matches(name)))
    }
}

impl Match {
    /// The conditions that do not hold, by their names in a route; none: it matches. For people who ask why.
    pub fn unmet(&self, facts: &RequestFacts<'_>) -> Vec<&'static str> {
        // Each condition alone, tested by the code that tests them all.
        let alone = |name: &'static str, only: Match| (!only.matches(facts)).then_some(name);
        let nothing = Match::default;
        let by_name = [
            (
                "port",
                Match {
                    port: self.port,
                    ..nothing()
                },
            ),
            (
                "method",
                Match {
                    method: self.method.clone(),
                    ..nothing()
                },
            ),
            (
                "path",
                Match {
                    path: self.path.clone(),
                    ..nothing()
                },
            ),
            (
                "hostnames",
                Match {
                    hosts: self.hosts.clone(),
                    ..nothing()
                },
            ),
            (
                "headers",
                Match {
                    headers: self.headers.clone(),
                    ..nothing()
                },
            ),
            (
                "queryParams",
                Match {
                    query_params: self.query_params.clone(),
                    ..nothing()
                },
            ),
            (
                "grpc",
                Match {
                    grpc: self.grpc.clone(),
                    ..nothing()
                },
            ),
            (
                "model",
                Match {
                    model: self.model.clone(),
                    ..nothing()
                },
            ),
        ];
        by_name
            .into_iter()
            .filter_map(|(name, only)| alone(name, only))
            .collect()
    }
}

/// A host name, or all names below one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostMatch {
    Exact(Box<str>),
    /// `*.example` as `.example`: one or more labels in front.
    Below(Box<str>),
}

impl HostMatch {
    /// From `name` or `*.name`.
    pub fn new(pattern: &str) -> HostMatch {
        match pattern.strip_prefix('*') {
            Some(suffix) if suffix.starts_with('.') => HostMatch::Below(suffix.into()),
            _ => HostMatch::Exact(pattern.into()),
        }
    }

    /// Whether a host, without port, is meant.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            HostMatch::Exact(name) => name.eq_ignore_ascii_case(host),
            HostMatch::Below(suffix) => {
                let (host, suffix) = (host.as_bytes(), suffix.as_bytes());
                host.len() > suffix.len()
                    && host[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
                    // An empty label is no label.
                    && host[0] != b'.'
            }
        }
    }
}

impl std::fmt::Display for HostMatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HostMatch::Exact(name) => f.write_str(name),
            HostMatch::Below(suffix) => write!(f, "*{suffix}"),
        }
    }
}

/// The first rule that matches; rules come in their order of precedence.
pub fn find<'a>(rules: &'a [Arc<Rule>], facts: &RequestFacts<'_>) -> Option<&'a Arc<Rule>> {
    rules.iter().find(|rule| rule.matches(facts))
}

impl Rule {
    /// Whether any of the rule's matches fits. A rule without matches fits everything.
    pub fn matches(&self, facts: &RequestFacts<'_>) -> bool {
        self.matches.is_empty() || self.matches.iter().any(|each| each.matches(facts))
    }

    /// The backend whose turn it is, by weight.
    pub fn choose(&self) -> &Backend {
        let [first, others @ ..] = self.backends.as_slice() else {
            unreachable!("a rule has backends: checked when it is made")
        };
        if others.is_empty() {
            return first;
        }
        let weights = self.backends.iter().map(|backend| backend.weight);
        split::at(self.turns.take(), self.total_weight, weights)
            .and_then(|index| self.backends.get(index))
            .unwrap_or(first)
    }
}

#[cfg(test)]
mod tests;
