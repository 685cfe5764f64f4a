//! The rules of all routes of one service, in the order in which a sidecar tries them.
//!
//! Order (Gateway API, `HTTPRouteSpec.hostnames`, `HTTPRouteRule.matches`, `GRPCRouteRule.matches`): the more specific host; then gRPC
//! calls, by the length of the service and of the method; then exact path before regular expression before longest prefix; then a
//! method, a model (exact before a pattern; ours), more headers, more query parameters; then the older route, its name, and the order in which rules and matches are
//! written. That gRPC calls go before paths is ours: the Gateway API does not allow both for one host.
//!
//! The host comes first there, too: a route for `chat.models` goes before one without hostnames, however exact its path. A
//! request that no rule of the more specific host matches still reaches the others.

use std::cmp::Reverse;
use std::sync::Arc;

use outrigger_proto::dataplane::v1 as wire;

use super::balancing::{self, SessionSecret};
use super::filters;
use super::inference;
use super::policy::{self, Defaults};
use super::recovery;
use crate::model::{
    BackendRef, HeaderMatch, ModelMatchType, ParentRef, PathMatchType, Resource, RouteMatch,
    RouteRule, RouteSpec, ServiceSpec, ValueMatchType,
};

/// The service that rules are made for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parent<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub spec: &'a ServiceSpec,
    pub defaults: &'a Defaults,
    pub session_secret: &'a SessionSecret,
}

/// Finds another service's default port, where the service exists.
pub(super) type DefaultPort<'a> = &'a dyn Fn(&str, &str) -> Option<u16>;

/// Compiles the rules of `routes` that are for `parent`, and the built-in last one.
pub(super) fn compile(
    parent: Parent<'_>,
    routes: &[Arc<Resource>],
    default_port: DefaultPort<'_>,
) -> Vec<wire::Rule> {
    let mut ranked = Vec::new();
    for route in routes {
        if let Some(spec) = route.as_route() {
            collect(parent, route, spec, default_port, &mut ranked);
        }
    }
    // Stable: what ranks the same keeps the order of rules and matches.
    ranked.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut rules: Vec<wire::Rule> = ranked.into_iter().map(|(_, rule)| rule).collect();
    match rules.iter().position(matches_everything) {
        // Nothing reaches what stands behind it.
        Some(last) => rules.truncate(last + 1),
        None => rules.extend(built_in(parent)),
    }
    rules
}

/// Lower sorts first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    host: Reverse<HostRank>,
    path: PathRank,
    any_method: bool,
    model: ModelRank,
    headers: Reverse<usize>,
    query_params: Reverse<usize>,
    created: Option<jiff::Timestamp>,
    route: String,
}

/// How specific a host is: none, a wildcard of this length, exact.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum HostRank {
    Any,
    Wildcard(usize),
    Exact,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum PathRank {
    /// Lengths of service and method, 0 where unset.
    Grpc(Reverse<(usize, usize)>),
    Exact,
    Regex,
    Prefix(Reverse<usize>),
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum ModelRank {
    Exact,
    /// Characters of the pattern.
    Glob(Reverse<usize>),
    Any,
}

fn model_rank(found: &RouteMatch) -> ModelRank {
    match &found.model {
        None => ModelRank::Any,
        Some(model) => match model.match_type() {
            ModelMatchType::Exact => ModelRank::Exact,
            ModelMatchType::Glob => ModelRank::Glob(Reverse(model.value.len())),
        },
    }
}

fn collect(
    parent: Parent<'_>,
    route: &Resource,
    spec: &RouteSpec,
    default_port: DefaultPort<'_>,
    ranked: &mut Vec<(Rank, wire::Rule)>,
) {
    let any = [RouteMatch::default()];
    let route_name = route.qualified_name();
    let own = format!("{}/{}", parent.namespace, parent.name);
    let namespace = route.metadata.namespace.as_str();
    for rule in &spec.rules {
        let matches = if rule.matches.is_empty() {
            &any[..]
        } else {
            &rule.matches
        };
        for found in matches {
            for (host_rank, hosts) in host_groups(&spec.hostnames) {
                for port in ports_of(parent, namespace, &spec.parent_refs, rule) {
                    let rank = Rank {
                        host: Reverse(host_rank),
                        path: path_rank(found),
                        any_method: found.method.is_none(),
                        model: model_rank(found),
                        headers: Reverse(found.headers.len()),
                        query_params: Reverse(found.query_params.len()),
                        created: route.metadata.creation_timestamp,
                        route: route_name.clone(),
                    };
                    let backends = backends(parent, namespace, rule, port.served, default_port);
                    let fallbacks = recovery::fallbacks(rule, &backends, |reference| {
                        backend(namespace, reference, default_port)
                    });
                    let compiled = wire::Rule {
                        route: route_name.clone(),
                        matches: to_match(found, hosts.clone(), port.matched),
                        backends,
                        timeouts: Some(policy::timeouts(
                            rule.timeouts.or(parent.defaults.timeouts),
                        )),
                        retry: rule
                            .retry
                            .as_ref()
                            .or(parent.defaults.retry.as_ref())
                            .map(policy::retry),
                        filters: filters::compile(rule, prefix_of(found), |reference| {
                            backend(namespace, reference, default_port)
                        }),
                        hedge: rule.hedge.as_ref().map(recovery::hedge),
                        fallbacks,
                        continuation: rule.continuation.as_ref().map(recovery::continuation),
                        expose_attempts: rule.expose_attempts(),
                        session_persistence: rule
                            .session_persistence
                            .as_ref()
                            .map(|it| balancing::session(it, parent.session_secret, &own)),
                    };
                    ranked.push((rank, compiled));
                }
            }
        }
    }
}

/// Hosts of one rank together: all exact ones, and each wildcard for itself, since two may match the same request.
fn host_groups(hostnames: &[String]) -> Vec<(HostRank, Vec<String>)> {
    if hostnames.is_empty() {
        return vec![(HostRank::Any, Vec::new())];
    }
    let (wildcards, exact): (Vec<_>, Vec<_>) = hostnames
        .iter()
        .map(|host| host.to_ascii_lowercase())
        .partition(|host| host.starts_with("*."));
    let mut groups = Vec::with_capacity(1 + wildcards.len());
    if !exact.is_empty() {
        groups.push((HostRank::Exact, exact));
    }
    for host in wildcards {
        groups.push((HostRank::Wildcard(host.len()), vec![host]));
    }
    groups
}

#[derive(Clone, Copy)]
struct RulePort {
    /// The port that the rule is restricted to. 0: any.
    matched: u32,
    /// The port of the request, where the rule sends it to its own service.
    served: u16,
}

/// For which ports of its service a rule is compiled.
///
/// A rule without ports is one rule, unless it sends requests to its own service and that has several ports: then each
/// port needs a backend of its own.
fn ports_of(
    parent: Parent<'_>,
    namespace: &str,
    parent_refs: &[ParentRef],
    rule: &RouteRule,
) -> Vec<RulePort> {
    let mine = |reference: &&ParentRef| {
        reference.name == parent.name
            && reference.namespace.as_deref().unwrap_or(namespace) == parent.namespace
    };
    let mut ports = Vec::new();
    let refs: Vec<&ParentRef> = parent_refs.iter().filter(mine).collect();
    let any_port = refs.iter().any(|reference| reference.port.is_none());
    if any_port && (rule.backend_refs.is_empty() && parent.spec.ports.len() > 1) {
        for port in &parent.spec.ports {
            ports.push(RulePort {
                matched: port.port.into(),
                served: port.port,
            });
        }
    } else if any_port {
        ports.push(RulePort {
            matched: 0,
            served: default_port_of(parent.spec),
        });
    } else {
        for port in refs.iter().filter_map(|reference| reference.port) {
            ports.push(RulePort {
                matched: port.into(),
                served: port,
            });
        }
    }
    ports
}

fn default_port_of(spec: &ServiceSpec) -> u16 {
    spec.default_port().map_or(80, |port| port.port)
}

fn path_rank(found: &RouteMatch) -> PathRank {
    if let Some(grpc) = &found.grpc {
        let length = |name: &Option<String>| name.as_ref().map_or(0, String::len);
        return PathRank::Grpc(Reverse((length(&grpc.service), length(&grpc.method))));
    }
    match &found.path {
        None => PathRank::Prefix(Reverse(1)),
        Some(path) => match path.match_type() {
            PathMatchType::Exact => PathRank::Exact,
            PathMatchType::RegularExpression => PathRank::Regex,
            PathMatchType::PathPrefix => PathRank::Prefix(Reverse(path.value().len())),
        },
    }
}

pub(super) fn to_match(found: &RouteMatch, hosts: Vec<String>, port: u32) -> Vec<wire::Match> {
    use wire::string_match::Kind;
    let string = |kind| Some(wire::StringMatch { kind: Some(kind) });
    let path = found.path.as_ref().and_then(|path| {
        let value = path.value().to_owned();
        match path.match_type() {
            PathMatchType::Exact => string(Kind::Exact(value)),
            PathMatchType::RegularExpression => string(Kind::Regex(value)),
            // Every path has this prefix.
            PathMatchType::PathPrefix if value == "/" => None,
            PathMatchType::PathPrefix => string(Kind::Prefix(value)),
        }
    });
    let headers = found.headers.iter().map(header_match);
    let query_params = found
        .query_params
        .iter()
        .map(|param| wire::QueryParamMatch {
            name: param.name.clone(),
            value: value_match(param.match_type(), &param.value),
        });
    let grpc = found.grpc.as_ref().map(|grpc| {
        let part = |text: &Option<String>| {
            let text = text.as_ref()?;
            value_match(grpc.match_type(), text)
        };
        wire::GrpcMatch {
            service: part(&grpc.service),
            method: part(&grpc.method),
        }
    });
    let compiled = wire::Match {
        hosts,
        path,
        method: found.method.clone().unwrap_or_default(),
        headers: headers.collect(),
        port,
        query_params: query_params.collect(),
        grpc,
        model: found.model.as_ref().map(inference::model_match),
    };
    if compiled == wire::Match::default() {
        return Vec::new();
    }
    vec![compiled]
}

pub(super) fn header_match(header: &HeaderMatch) -> wire::HeaderMatch {
    wire::HeaderMatch {
        name: header.name.to_ascii_lowercase(),
        value: value_match(header.match_type(), &header.value),
    }
}

fn value_match(kind: ValueMatchType, text: &str) -> Option<wire::StringMatch> {
    use wire::string_match::Kind;
    let kind = match kind {
        ValueMatchType::Exact => Kind::Exact(text.to_owned()),
        ValueMatchType::RegularExpression => Kind::Regex(text.to_owned()),
    };
    Some(wire::StringMatch { kind: Some(kind) })
}

/// The prefix that a match has; without a path it is `/`.
fn prefix_of(found: &RouteMatch) -> &str {
    found.path.as_ref().map_or("/", |path| path.value())
}

fn backends(
    parent: Parent<'_>,
    namespace: &str,
    rule: &RouteRule,
    port: u16,
    default_port: DefaultPort<'_>,
) -> Vec<wire::Backend> {
    if rule.backend_refs.is_empty() {
        return vec![itself(parent, port)];
    }
    rule.backend_refs
        .iter()
        .map(|reference| backend(namespace, reference, default_port))
        .collect()
}

fn backend(
    namespace: &str,
    reference: &BackendRef,
    default_port: DefaultPort<'_>,
) -> wire::Backend {
    let namespace = reference.namespace.as_deref().unwrap_or(namespace);
    let port = reference
        .port
        .or_else(|| default_port(namespace, &reference.name))
        // The service does not exist yet; when it comes, this is compiled again.
        .unwrap_or(80);
    wire::Backend {
        service: format!("{namespace}/{}", reference.name),
        port: port.into(),
        weight: reference.weight(),
        subset: reference.subset.clone().into_iter().collect(),
    }
}

fn itself(parent: Parent<'_>, port: u16) -> wire::Backend {
    wire::Backend {
        service: format!("{}/{}", parent.namespace, parent.name),
        port: port.into(),
        weight: 1,
        subset: Default::default(),
    }
}

fn matches_everything(rule: &wire::Rule) -> bool {
    rule.matches.is_empty()
}

/// What happens to a request that no route is for: it goes to the service itself, on the port it came for. The last of
/// these rules matches everything.
fn built_in(parent: Parent<'_>) -> Vec<wire::Rule> {
    let default = default_port_of(parent.spec);
    let rule = |port: u16, matches| wire::Rule {
        route: String::new(),
        matches,
        backends: vec![itself(parent, port)],
        timeouts: Some(policy::timeouts(parent.defaults.timeouts)),
        retry: parent.defaults.retry.as_ref().map(policy::retry),
        ..wire::Rule::default()
    };
    let others = parent.spec.ports.iter().filter(|port| port.port != default);
    let mut rules: Vec<_> = others
        .map(|port| {
            let only = wire::Match {
                port: port.port.into(),
                ..wire::Match::default()
            };
            rule(port.port, vec![only])
        })
        .collect();
    rules.push(rule(default, Vec::new()));
    rules
}
