#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use crate::model::schema::check;

/// What is wrong with a route that has this one rule: `field: message`, without `spec.rules[0].`.
fn problems(rule: &str) -> Vec<String> {
    let rule: Value = serde_yaml::from_str(rule).unwrap();
    let document = json!({
        "apiVersion": "outrigger.dev/v1alpha1", "kind": "Route", "metadata": {"name": "r"},
        "spec": {"parentRefs": [{"name": "chat"}], "rules": [rule]},
    });
    let problems = check(&document);
    let text = |problem: &crate::model::Problem| problem.to_string().replace("spec.rules[0].", "");
    problems.iter().map(text).collect()
}

#[test]
fn each_mistake_is_told_with_its_place() {
    for (rule, expected) in [
        (
            "{filters: [{type: CORS}]}",
            "filters[0].cors: is missing; a filter of type CORS needs it",
        ),
        (
            "{filters: [{type: URLRewrite, urlRewrite: {hostname: a}, cors: {allowOrigins: ['*']}}]}",
            "filters[0].cors: belongs to a filter of type CORS, and this one is of type URLRewrite",
        ),
        (
            "{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {}}]}",
            "filters[0].requestHeaderModifier: changes nothing; it needs set, add or remove",
        ),
        (
            "{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [Transfer-Encoding]}}]}",
            "filters[0].requestHeaderModifier.remove[0]: \"Transfer-Encoding\" cannot be changed: it concerns the connection or the message's framing",
        ),
        (
            "{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: Host, value: a}]}}]}",
            "filters[0].requestHeaderModifier.set[0].name: \"Host\" cannot be changed here; use a filter of type URLRewrite with a hostname",
        ),
        (
            "{filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: x-outrigger-reason, value: a}]}}]}",
            "filters[0].responseHeaderModifier.add[0].name: \"x-outrigger-reason\" cannot be changed: headers that begin with x-outrigger- are the sidecars'",
        ),
        (
            "{filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: a, value: \"b\\r\\nc: d\"}]}}]}",
            "filters[0].responseHeaderModifier.set[0].value: \"b\\r\\nc: d\" is not a header's value; allowed are visible ASCII characters, with spaces in between",
        ),
        (
            "{filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath}}}]}",
            "filters[0].urlRewrite.path.replaceFullPath: is missing; ReplaceFullPath needs it",
        ),
        (
            "{filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: '/a?b'}}}]}",
            "filters[0].urlRewrite.path.replaceFullPath: \"/a?b\" is not a path; paths are compared without query and fragment, leave them out",
        ),
        (
            "{matches: [{path: {value: /a}}, {path: {type: Exact, value: /b}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /a}}}]}",
            "filters: ReplacePrefixMatch needs a prefix to replace: every match of the rule must have a path of type PathPrefix",
        ),
        (
            "{filters: [{type: RequestRedirect, requestRedirect: {statusCode: 304}}]}",
            "filters[0].requestRedirect.statusCode: 304 does not send anybody elsewhere; allowed are 301, 302, 303, 307 and 308",
        ),
        (
            "{filters: [{type: RequestRedirect, requestRedirect: {}}], backendRefs: [{name: chat}]}",
            "backendRefs: have no effect beside RequestRedirect, which answers every request; leave one of them out",
        ),
        (
            "{filters: [{type: RequestRedirect, requestRedirect: {}}, {type: URLRewrite, urlRewrite: {hostname: a}}]}",
            "filters: RequestRedirect and URLRewrite cannot stand in one rule",
        ),
        (
            "{filters: [{type: CORS, cors: {allowOrigins: ['*']}}, {type: CORS, cors: {allowOrigins: ['*']}}]}",
            "filters[1].type: a rule can have one CORS; join the two",
        ),
        (
            "{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: a}, percent: 1, fraction: {numerator: 1}}}]}",
            "filters[0].requestMirror.fraction: cannot stand beside percent; give one of them",
        ),
        (
            "{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: a}, fraction: {numerator: 11, denominator: 10}}}]}",
            "filters[0].requestMirror.fraction.numerator: 11 of 10 is more than all",
        ),
        (
            "{filters: [{type: CORS, cors: {allowOrigins: ['https://a.example/']}}]}",
            "filters[0].cors.allowOrigins[0]: \"https://a.example/\" is not an origin; allowed are *, https://chat.example, http://localhost:3000 and https://*.example; leave the slash at the end out",
        ),
        (
            "{filters: [{type: CORS, cors: {allowOrigins: ['*'], allowCredentials: true, exposeHeaders: ['*']}}]}",
            "filters[0].cors.exposeHeaders: \"*\" means nothing to browsers where credentials are allowed; name the headers",
        ),
        (
            "{filters: [{type: DirectResponse, directResponse: {statusCode: 204, body: a}}]}",
            "filters[0].directResponse.body: a response with the status 204 has none; leave it out",
        ),
        (
            "{filters: [{type: FaultInjection, faultInjection: {headers: []}}]}",
            "filters[0].faultInjection: injects nothing; it needs delay, abort or truncate",
        ),
        (
            "{filters: [{type: FaultInjection, faultInjection: {abort: {percent: 5}}}]}",
            "filters[0].faultInjection.abort: has no status; it needs statusCode or grpcStatus",
        ),
        (
            "{filters: [{type: FaultInjection, faultInjection: {delay: {duration: 1s, percent: 101}}}]}",
            "filters[0].faultInjection.delay.percent: expected a whole number from 0 to 100, found the number 101",
        ),
        (
            "{matches: [{grpc: {service: a.B}, path: {value: /a}}]}",
            "matches[0].path: cannot stand beside grpc, which names a call by service and method; leave it out, or make a match of its own",
        ),
        (
            "{matches: [{grpc: {}}]}",
            "matches[0].grpc: names no call; it needs service, method or both",
        ),
        (
            "{matches: [{grpc: {service: a/B}}]}",
            "matches[0].grpc.service: \"a/B\" is not the service of a gRPC call; allowed is a service with its package, for example inference.GRPCInferenceService",
        ),
        (
            "{matches: [{queryParams: [{name: '', value: a}]}]}",
            "matches[0].queryParams[0].name: the parameter's name has 0 bytes; allowed are 1 to 256",
        ),
        (
            "{matches: [{queryParams: [{name: a, value: '(', type: RegularExpression}]}]}",
            "matches[0].queryParams[0].value: \"(\" is not a regular expression: unclosed group",
        ),
    ] {
        assert_eq!(problems(rule), [expected], "{rule}");
    }
}

#[test]
fn what_is_meant_passes() {
    for rule in [
        "{matches: [{path: {value: /a}}, {}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: ''}}}]}",
        "{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: a}}}, {type: RequestMirror, requestMirror: {backendRef: {name: b}, percent: 0}}]}",
        "{filters: [{type: CORS, cors: {allowOrigins: ['*', 'http://localhost:3000', 'https://*.example']}}, {type: DirectResponse, directResponse: {statusCode: 204}}]}",
    ] {
        assert_eq!(problems(rule), Vec::<String>::new(), "{rule}");
    }
}
