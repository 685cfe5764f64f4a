//! What must hold between the filters of a rule.

use serde_json::{Map, Value};

use super::TYPES;
use crate::model::schema::report::{Report, enumerate};

/// What must hold between the filters of a rule, and between them and its other fields: the Gateway API's rules, and that nothing
/// is written that can have no effect.
pub(in crate::model::schema) fn of_rule(rule: &Map<String, Value>, report: &mut Report) {
    let Some(Value::Array(filters)) = rule.get("filters") else {
        return;
    };
    let kind = |filter: &Value| {
        filter
            .get("type")
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let kinds: Vec<Option<String>> = filters.iter().map(kind).collect();
    let at = |wanted: &str| {
        kinds
            .iter()
            .position(|kind| kind.as_deref() == Some(wanted))
    };
    report.within("filters", |report| {
        for (name, _, repeatable) in TYPES {
            let second = kinds
                .iter()
                .enumerate()
                .filter(|(_, kind)| kind.as_deref() == Some(name))
                .nth(1);
            if let (false, Some((index, _))) = (repeatable, second) {
                report.within_item(index, |report| {
                    report.problem_at("type", format!("a rule can have one {name}; join the two"));
                });
            }
        }
    });
    let answers: Vec<&str> = ["RequestRedirect", "DirectResponse"]
        .into_iter()
        .filter(|name| at(name).is_some())
        .collect();
    if let Some(answer) = answers.first() {
        let conflict = |report: &mut Report, field: &str| {
            report.problem_at(
                field,
                format!("have no effect beside {answer}, which answers every request; leave one of them out"),
            );
        };
        if matches!(rule.get("backendRefs"), Some(Value::Array(refs)) if !refs.is_empty()) {
            conflict(report, "backendRefs");
        }
        if answers.len() > 1 || at("URLRewrite").is_some() {
            let names = [answers.as_slice(), &["URLRewrite"]].concat();
            let names: Vec<&str> = names
                .into_iter()
                .filter(|name| at(name).is_some())
                .collect();
            report.problem_at(
                "filters",
                format!("{} cannot stand in one rule", enumerate(&names)),
            );
        }
    }
    if filters.iter().any(replaces_prefix) && !only_prefixes(rule) {
        report.problem_at(
            "filters",
            "ReplacePrefixMatch needs a prefix to replace: every match of the rule must have a path of type PathPrefix",
        );
    }
}

fn replaces_prefix(filter: &Value) -> bool {
    ["urlRewrite", "requestRedirect"].iter().any(|field| {
        filter
            .get(field)
            .and_then(|policy| policy.get("path")?.get("type"))
            .is_some_and(|kind| kind == "ReplacePrefixMatch")
    })
}

/// A match without a path has the prefix `/`.
fn only_prefixes(rule: &Map<String, Value>) -> bool {
    let Some(Value::Array(matches)) = rule.get("matches") else {
        return true;
    };
    matches.iter().all(|each| {
        each.get("grpc").is_none_or(Value::is_null)
            && each
                .get("path")
                .and_then(|path| path.get("type"))
                .is_none_or(|kind| kind.is_null() || kind == "PathPrefix")
    })
}
