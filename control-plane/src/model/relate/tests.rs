#![allow(clippy::unwrap_used)]

use super::{Findings, View, validate_against};
use crate::model::{Resource, ResourceKey, ServiceSpec, parse};

/// All there is after the write.
struct After(Vec<Resource>);

impl View for After {
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
        Some("outrigger.local")
    }
}

/// Writes the documents of `written` to where those of `stored` are.
fn check(written: &str, stored: &str) -> (Vec<String>, Vec<String>) {
    let read = |text: &str| {
        let parsed = parse("f.yaml", text.as_bytes());
        assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
        parsed
            .documents
            .into_iter()
            .map(|document| document.resource)
            .collect::<Vec<_>>()
    };
    let written = read(written);
    let mut all = read(stored);
    all.extend(written.clone());
    let Findings { errors, warnings } = validate_against(&written, &After(all));
    let shown = |found: Vec<crate::model::IndexedProblem>| {
        found
            .into_iter()
            .map(|found| format!("{} {}", found.index, found.problem))
            .collect()
    };
    (shown(errors), shown(warnings))
}

fn service(name: &str, rest: &str) -> String {
    format!(
        "---\napiVersion: outrigger.dev/v1alpha1\nkind: Service\nmetadata: {{name: {name}}}\n\
         spec: {{ports: [{{port: 80, protocol: http}}, {{port: 90, protocol: tcp}}]{rest}}}\n"
    )
}

fn route(spec: &str) -> String {
    format!(
        "---\napiVersion: outrigger.dev/v1alpha1\nkind: Route\nmetadata: {{name: r}}\nspec: {{{spec}}}\n"
    )
}

#[test]
fn a_host_means_one_service() {
    let (errors, _) = check(
        &service("b", ", hosts: [x.models, y.models]"),
        &service("a", ", hosts: [y.models]"),
    );
    assert_eq!(
        errors,
        [
            "0 spec.hosts[1]: \"y.models\" already means service/default/a; a host means one service, so remove it from one of the two"
        ]
    );
    let both = service("a", ", hosts: [y.models]") + &service("b", ", hosts: [y.models]");
    assert_eq!(
        check(&both, "").0.len(),
        2,
        "both are told within one write"
    );
    // Wildcards are the same only to themselves: the more exact host wins.
    let (errors, _) = check(
        &service("b", ", hosts: [\"*.models\"]"),
        &service("a", ", hosts: [y.models]"),
    );
    assert!(errors.is_empty(), "{errors:?}");
}

#[test]
fn a_service_cannot_take_the_name_of_another() {
    let (errors, _) = check(&service("b", ", hosts: [a.default.svc]"), &service("a", ""));
    assert!(
        errors[0].starts_with("0 spec.hosts[0]: \"a.default.svc\" already means service/default/a"),
        "{errors:?}"
    );
    let (errors, _) = check(&service("a", ""), &service("b", ", hosts: [a.default]"));
    assert_eq!(
        errors,
        [
            "0 metadata.name: the name makes \"a.default\" a host of this service, but service/default/b claims it in spec.hosts; remove it there"
        ]
    );
    // Its own is superfluous and allowed.
    assert!(
        check(&service("a", ", hosts: [a.default]"), "")
            .0
            .is_empty()
    );
}

#[test]
fn the_trust_domain_is_the_cas() {
    let mesh = |domain: &str| {
        format!(
            "apiVersion: outrigger.dev/v1alpha1\nkind: Mesh\nmetadata: {{name: default}}\nspec: {{trustDomain: {domain}}}\n"
        )
    };
    assert!(check(&mesh("outrigger.local"), "").0.is_empty());
    assert_eq!(
        check(&mesh("example.org"), "").0,
        [
            "0 spec.trustDomain: \"example.org\" is not the trust domain of this mesh; it is \"outrigger.local\", fixed when its CA was made"
        ]
    );
    let ids = ", identities: [\"spiffe://outrigger.local/ns/a/*\", \"spiffe://other/ns/a/sa/b\"]";
    let (errors, warnings) = check(&service("a", ids), "");
    assert!(errors.is_empty());
    assert_eq!(
        warnings,
        [
            "0 spec.identities[1]: \"spiffe://other/ns/a/sa/b\" is of another trust domain than this mesh's, \"outrigger.local\"; no sidecar here can have it"
        ]
    );
}

#[test]
fn what_a_route_refers_to_may_be_missing() {
    let spec = "parentRefs: [{name: a}, {name: nope}, {name: a, port: 81}, {name: a, port: 90}], \
                rules: [{backendRefs: [{name: a, port: 80}, {name: b, namespace: other}, {name: a, port: 82}]}]";
    let (errors, warnings) = check(&route(spec), &service("a", ""));
    assert!(errors.is_empty());
    assert_eq!(
        warnings,
        [
            "0 spec.parentRefs[1]: there is no service/default/nope; the route does nothing until there is",
            "0 spec.parentRefs[2].port: service/default/a has no port 81; it has 80, 90",
            "0 spec.parentRefs[3].port: port 90 of service/default/a has the protocol tcp; routes are for requests",
            "0 spec.rules[0].backendRefs[1]: there is no service/other/b; its share of the requests fails until there is",
            "0 spec.rules[0].backendRefs[2].port: service/default/a has no port 82; it has 80, 90",
        ]
    );
}

#[test]
fn a_routes_hostname_must_be_one_of_its_parents() {
    let stored = service("a", ", hosts: [chat.models, \"*.chat.example\"]");
    let hosts = "[a, a.default, chat.models, x.chat.example, \"*.models\", b, x.example]";
    let spec = format!("parentRefs: [{{name: a}}], hostnames: {hosts}, rules: [{{}}]");
    let (_, warnings) = check(&route(&spec), &stored);
    assert_eq!(
        warnings,
        [
            "0 spec.hostnames[5]: \"b\" is no host of a parent of this route; no request can match it",
            "0 spec.hostnames[6]: \"x.example\" is no host of a parent of this route; no request can match it",
        ]
    );
    let (_, warnings) = check(&route(&spec), "");
    assert_eq!(
        warnings.len(),
        1,
        "the parent that is missing may have the host"
    );
}

#[test]
fn what_a_rate_limit_is_for_may_be_missing() {
    let rate_limit = "---\n{apiVersion: outrigger.dev/v1alpha1, kind: RateLimit, metadata: {name: r}, \
        spec: {targetRefs: [{name: a}, {name: nope}], limits: [{name: all, requests: 1, per: 1s}]}}\n";
    let (errors, warnings) = check(rate_limit, &service("a", ""));
    assert!(errors.is_empty());
    assert_eq!(
        warnings,
        [
            "0 spec.targetRefs[1]: there is no service/default/nope; the limits do nothing until there is"
        ]
    );
}

#[test]
fn a_resource_is_given_once() {
    let (errors, _) = check(&(service("a", "") + &service("a", "")), "");
    assert_eq!(
        errors,
        [
            "1 metadata.name: service/default/a is given twice, as the resources 1 and 2; give it once"
        ]
    );
}

/// Errors and warnings of a route of `a`, next to the services `a` and `b`.
fn check_rules(rules: &str) -> (Vec<String>, Vec<String>) {
    let stored = service("a", "") + &service("b", "");
    check(
        &route(&format!("parentRefs: [{{name: a}}], rules: [{rules}]")),
        &stored,
    )
}

#[test]
fn a_fallback_leads_somewhere_else() {
    let fine = [
        "{fallbacks: [{backendRef: {name: b}}]}",
        "{fallbacks: [{backendRef: {name: a, subset: {version: v1}}}]}",
        "{backendRefs: [{name: b}], fallbacks: [{backendRef: {name: a}}]}",
        // Where one of several fails, another one may do.
        "{backendRefs: [{name: a}, {name: b}], fallbacks: [{backendRef: {name: a}}]}",
        "{fallbacks: [{backendRef: {name: b}}, {backendRef: {name: b, subset: {version: v1}}}]}",
        "{fallbacks: [{on: [overload], directResponse: {statusCode: 429}}, {backendRef: {name: b}}]}",
    ];
    for rules in fine {
        assert_eq!(check_rules(rules), (vec![], vec![]), "{rules}");
    }
    let back = [
        "{fallbacks: [{backendRef: {name: a}}]}",
        "{fallbacks: [{backendRef: {name: a, namespace: default, port: 80}}]}",
        "{backendRefs: [{name: b}], fallbacks: [{backendRef: {name: b}}]}",
        "{backendRefs: [{name: a, subset: {v: x}}], fallbacks: [{backendRef: {name: a, subset: {v: x}}}]}",
        "{backendRefs: [{name: a}, {name: b, weight: 0}], fallbacks: [{backendRef: {name: a}}]}",
    ];
    for rules in back {
        let (errors, _) = check_rules(rules);
        assert_eq!(errors.len(), 1, "{rules}");
        let start = "0 spec.rules[0].fallbacks[0].backendRef: leads back to service/default/";
        assert!(errors[0].starts_with(start), "{errors:?}");
    }
}

#[test]
fn a_fallback_is_given_once_and_can_be_reached() {
    let (errors, _) = check_rules(
        "{fallbacks: [{backendRef: {name: b}}, {on: [reset], backendRef: {name: b, port: 80}}]}",
    );
    assert_eq!(
        errors,
        [
            "0 spec.rules[0].fallbacks[1].backendRef: leads to service/default/b as spec.rules[0].fallbacks[0] does; give it once, with all of its causes"
        ]
    );
    let (errors, _) = check_rules(
        "{fallbacks: [{directResponse: {statusCode: 503}}, {on: [overload], backendRef: {name: b}}]}",
    );
    assert_eq!(
        errors,
        [
            "0 spec.rules[0].fallbacks[1]: is never reached: a directResponse before it answers all of its causes"
        ]
    );
    let (errors, warnings) =
        check_rules("{fallbacks: [{backendRef: {name: c}}, {backendRef: {name: b, port: 81}}]}");
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(
        warnings,
        [
            "0 spec.rules[0].fallbacks[0].backendRef: there is no service/default/c; the fallback fails until there is",
            "0 spec.rules[0].fallbacks[1].backendRef.port: service/default/b has no port 81; it has 80, 90",
        ]
    );
}

/// As [`check_rules`], where `a` serves the models `large` and `small`, and `b` only `tiny`.
fn check_model_rules(rules: &str) -> (Vec<String>, Vec<String>) {
    let stored = service(
        "a",
        ", inference: {models: [{name: large, aliases: [big, \"gpt-*\"]}, {name: small, aliases: [little]}]}",
    ) + &service(
        "b",
        ", inference: {models: [{name: tiny}], unknownModels: refuse}",
    );
    check(
        &route(&format!("parentRefs: [{{name: a}}], rules: [{rules}]")),
        &stored,
    )
}

#[test]
fn a_fallback_asks_for_another_model() {
    let fine = [
        "{fallbacks: [{model: small}]}",
        "{fallbacks: [{model: small}, {model: large}, {backendRef: {name: b}, model: tiny}]}",
        "{fallbacks: [{backendRef: {name: a}, model: small}, {backendRef: {name: b}}]}",
        "{matches: [{model: {value: large}}], fallbacks: [{model: small}]}",
        "{backendRefs: [{name: b}], fallbacks: [{backendRef: {name: a}, model: small}]}",
        "{backendRefs: [{name: a}, {name: b, weight: 0}], fallbacks: [{model: small}]}",
    ];
    for rules in fine {
        assert_eq!(check_model_rules(rules), (vec![], vec![]), "{rules}");
    }
    let back = [
        "{matches: [{model: {value: big}}], fallbacks: [{model: large}]}",
        "{matches: [{model: {value: big}}], fallbacks: [{backendRef: {name: a}, model: large}]}",
        "{matches: [{model: {value: large}}], fallbacks: [{backendRef: {name: a}}]}",
    ];
    for rules in back {
        let (errors, _) = check_model_rules(rules);
        assert_eq!(errors.len(), 1, "{rules} {errors:?}");
        let end = "leads back to service/default/a with model large, which is where the rule sends its requests; \
                   name another service, another subset or another model";
        assert!(errors[0].ends_with(end), "{errors:?}");
    }
    let (errors, _) = check_model_rules(
        "{fallbacks: [{model: small}, {on: [reset], backendRef: {name: a, port: 80}, model: little}]}",
    );
    assert_eq!(
        errors,
        [
            "0 spec.rules[0].fallbacks[1].backendRef: leads to service/default/a with model small as spec.rules[0].fallbacks[0] does; give it once, with all of its causes"
        ]
    );
    let (errors, _) = check_model_rules(
        "{backendRefs: [{name: a}, {name: b}], fallbacks: [{model: small}, {directResponse: {statusCode: 503}}, {model: tiny}]}",
    );
    let several =
        "the rule has several backendRefs; say with backendRef which of them is to be asked";
    assert_eq!(
        errors,
        [
            format!("0 spec.rules[0].fallbacks[0].model: {several}"),
            "0 spec.rules[0].fallbacks[2]: is never reached: a directResponse before it answers all of its causes".to_owned(),
            format!("0 spec.rules[0].fallbacks[2].model: {several}"),
        ]
    );
    let (errors, warnings) =
        check_model_rules("{fallbacks: [{backendRef: {name: b}, model: huge}]}");
    assert_eq!(errors, [""; 0]);
    assert_eq!(
        warnings,
        [
            "0 spec.rules[0].fallbacks[0].model: service/default/b refuses models that it does not list; it has tiny"
        ]
    );
    // Nobody reads what the requests ask for.
    let (errors, warnings) = check_rules("{fallbacks: [{model: small}]}");
    assert_eq!(errors, [""; 0]);
    assert_eq!(
        warnings,
        [
            "0 spec.rules[0].fallbacks[0].model: service/default/a has no spec.inference, so the model that its requests name cannot be replaced; add inference: {} there"
        ]
    );
}

#[test]
fn grpc_codes_without_post_are_told() {
    let (errors, warnings) = check_rules("{retry: {grpcCodes: [unavailable]}}");
    assert!(errors.is_empty());
    assert_eq!(
        warnings,
        [
            "0 spec.rules[0].retry.grpcCodes: has no effect: gRPC calls are POST requests, and POST is not among methods"
        ]
    );
    for fine in [
        "{}",
        "{grpcCodes: []}",
        "{grpcCodes: [internal], methods: [POST]}",
    ] {
        assert_eq!(
            check_rules(&format!("{{retry: {fine}}}")).1,
            [""; 0],
            "{fine}"
        );
    }
    let (_, warnings) = check(&service("a", ", retry: {grpcCodes: [aborted]}"), "");
    assert!(
        warnings[0].starts_with("0 spec.retry.grpcCodes: "),
        "{warnings:?}"
    );
}
