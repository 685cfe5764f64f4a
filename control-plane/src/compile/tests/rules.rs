use outrigger_proto::dataplane::v1 as wire;
use wire::string_match::Kind as Path;

use super::{HTTP, bench, route, service};

fn parent(rules: &str) -> String {
    format!("{{parentRefs: [{{name: chat}}], rules: {rules}}}")
}

/// What tells a compiled rule in these tests: its path.
fn path(rule: &wire::Rule) -> String {
    let kind = rule
        .matches
        .first()
        .and_then(|it| it.path.clone())
        .and_then(|it| it.kind);
    match kind {
        None => "any".to_owned(),
        Some(Path::Exact(path)) => format!("={path}"),
        Some(Path::Regex(path)) => format!("~{path}"),
        Some(Path::Prefix(path)) => path,
    }
}

#[test]
fn a_service_without_routes_goes_to_itself() {
    let mut bench = bench();
    bench.put(&service("chat", HTTP));
    let rules = bench.service("default/chat").rules;
    assert_eq!(rules.len(), 1);
    assert!(rules[0].route.is_empty() && rules[0].matches.is_empty());
    assert_eq!(rules[0].backends[0].service, "default/chat");
    assert_eq!(
        (rules[0].backends[0].port, rules[0].backends[0].weight),
        (80, 1)
    );
    assert_eq!(rules[0].timeouts.unwrap().stream_idle.unwrap().seconds, 300);
    assert!(rules[0].retry.is_none());
}

#[test]
fn more_specific_paths_come_first_and_the_built_in_rule_last() {
    let mut bench = bench();
    bench.put(&service("chat", HTTP));
    let matches = "[{matches: [\
        {path: {value: /a}}, \
        {path: {type: RegularExpression, value: /.*}}, \
        {path: {value: /a/b/c}}, \
        {path: {type: Exact, value: /a}}, \
        {path: {value: /a/b}}]}]";
    bench.put(&route("r", &parent(matches)));
    let rules = bench.service("default/chat").rules;
    let paths: Vec<String> = rules.iter().map(path).collect();
    assert_eq!(paths, ["=/a", "~/.*", "/a/b/c", "/a/b", "/a", "any"]);
    let last = rules.last().unwrap();
    assert!(last.route.is_empty() && last.matches.is_empty());
}

#[test]
fn with_the_same_path_a_method_then_headers_then_age_decide() {
    let mut bench = bench();
    bench.put(&service("chat", HTTP));
    let header = |count: usize| {
        let headers: Vec<String> = (0..count)
            .map(|it| format!("{{name: X-{it}, value: v}}"))
            .collect();
        headers.join(", ")
    };
    let rules = |name: &str, given: &str| {
        route(
            name,
            &parent(&format!(
                "[{{matches: [{{path: {{value: /v1}}, {given}}}]}}]"
            )),
        )
    };
    bench.put(&rules("z-older", ""));
    bench.put(&rules("younger", ""));
    bench.put(&rules("one-header", &format!("headers: [{}]", header(1))));
    bench.put(&rules("two-headers", &format!("headers: [{}]", header(2))));
    bench.put(&rules("method", "method: GET"));
    let routes: Vec<String> = bench
        .service("default/chat")
        .rules
        .into_iter()
        .map(|it| it.route)
        .collect();
    assert_eq!(
        routes,
        [
            "default/method",
            "default/two-headers",
            "default/one-header",
            "default/z-older",
            "default/younger",
            ""
        ]
    );
    let rule = &bench.service("default/chat").rules[1];
    assert_eq!(
        rule.matches[0].headers[0].name, "x-0",
        "header names are lower case"
    );
}

#[test]
fn a_rule_for_everything_takes_the_built_in_ones_place_and_hides_what_is_behind() {
    let mut bench = bench();
    bench.put(&service("chat", HTTP));
    bench.put(&route("first", &parent("[{timeouts: {request: 3s}}]")));
    bench.put(&route("second", &parent("[{timeouts: {request: 4s}}]")));
    let rules = bench.service("default/chat").rules;
    assert_eq!(rules.len(), 1);
    assert_eq!(rules[0].route, "default/first");
    assert_eq!(rules[0].timeouts.unwrap().request.unwrap().seconds, 3);
}

#[test]
fn hosts_go_before_paths() {
    let mut bench = bench();
    bench.put(&service("chat", HTTP));
    let spec = |hosts: &str, path: &str| {
        format!(
            "{{parentRefs: [{{name: chat}}], hostnames: {hosts}, rules: [{{matches: [{{path: {{value: {path}}}}}]}}]}}"
        )
    };
    bench.put(&route("none", &spec("[]", "/v1/long/path")));
    bench.put(&route("wide", &spec("['*.example']", "/v1/long")));
    bench.put(&route("narrow", &spec("['*.chat.example']", "/v1")));
    bench.put(&route(
        "exact",
        &spec("[A.chat.example, b.chat.example]", "/"),
    ));
    let rules = bench.service("default/chat").rules;
    let routes: Vec<&str> = rules.iter().map(|it| it.route.as_str()).collect();
    assert_eq!(
        routes,
        [
            "default/exact",
            "default/narrow",
            "default/wide",
            "default/none",
            ""
        ]
    );
    assert_eq!(
        rules[0].matches[0].hosts,
        ["a.chat.example", "b.chat.example"]
    );
}

/// Gateway API, `HTTPRouteSpec.hostnames`: "precedence must be given to rules from the HTTPRoute with the largest number of
/// characters in a matching non-wildcard hostname, then in a matching hostname". Only then do paths count.
#[test]
fn a_host_goes_before_the_most_exact_path() {
    let mut bench = bench();
    bench.put(&service("chat", HTTP));
    let spec = |hosts: &str, given: &str| {
        format!(
            "{{parentRefs: [{{name: chat}}], hostnames: {hosts}, rules: [{{matches: [{given}]}}]}}"
        )
    };
    bench.put(&route(
        "any-host",
        &spec(
            "[]",
            "{path: {type: Exact, value: /v1}, method: GET, headers: [{name: a, value: b}]}",
        ),
    ));
    bench.put(&route(
        "wide",
        &spec("['*.example']", "{path: {type: Exact, value: /v1}}"),
    ));
    bench.put(&route("exact", &spec("[a.example, b.example]", "{}")));
    let rules = bench.service("default/chat").rules;
    let routes: Vec<&str> = rules.iter().map(|it| it.route.as_str()).collect();
    assert_eq!(
        routes,
        ["default/exact", "default/wide", "default/any-host", ""]
    );
}

#[test]
fn query_parameters_count_after_headers() {
    let mut bench = bench();
    bench.put(&service("chat", HTTP));
    let rules =
        |name: &str, given: &str| route(name, &parent(&format!("[{{matches: [{given}]}}]")));
    bench.put(&rules("one", "{queryParams: [{name: a, value: b}]}"));
    bench.put(&rules(
        "two",
        "{queryParams: [{name: a, value: b}, {type: RegularExpression, name: c, value: d+}]}",
    ));
    bench.put(&rules("header", "{headers: [{name: a, value: b}]}"));
    bench.put(&rules(
        "both",
        "{headers: [{name: a, value: b}], queryParams: [{name: a, value: b}]}",
    ));
    let rules = bench.service("default/chat").rules;
    let routes: Vec<&str> = rules.iter().map(|it| it.route.as_str()).collect();
    assert_eq!(
        routes,
        [
            "default/both",
            "default/header",
            "default/two",
            "default/one",
            ""
        ]
    );
    let params = &rules[2].matches[0].query_params;
    assert_eq!(params[0].name, "a");
    assert_eq!(
        params[0].value.as_ref().unwrap().kind,
        Some(Path::Exact("b".into()))
    );
    assert_eq!(
        params[1].value.as_ref().unwrap().kind,
        Some(Path::Regex("d+".into()))
    );
}

#[test]
fn grpc_calls_go_by_service_and_then_by_method() {
    let mut bench = bench();
    bench.put(&service("chat", HTTP));
    let rules =
        |name: &str, given: &str| route(name, &parent(&format!("[{{matches: [{given}]}}]")));
    bench.put(&rules(
        "path",
        "{path: {type: Exact, value: /a.Service/Call}}",
    ));
    bench.put(&rules("method", "{grpc: {method: AVeryLongMethod}}"));
    bench.put(&rules("service", "{grpc: {service: a.Service}}"));
    bench.put(&rules(
        "headers",
        "{grpc: {service: a.Service}, headers: [{name: a, value: b}]}",
    ));
    bench.put(&rules("longer", "{grpc: {service: a.LongerService}}"));
    bench.put(&rules("both", "{grpc: {service: a.Service, method: Call}}"));
    let rules = bench.service("default/chat").rules;
    let routes: Vec<&str> = rules
        .iter()
        .map(|it| it.route.trim_start_matches("default/"))
        .collect();
    assert_eq!(
        routes,
        ["longer", "both", "headers", "service", "method", "path", ""]
    );
    let grpc = rules[1].matches[0].grpc.as_ref().unwrap();
    assert_eq!(
        grpc.service.as_ref().unwrap().kind,
        Some(Path::Exact("a.Service".into()))
    );
    assert_eq!(
        grpc.method.as_ref().unwrap().kind,
        Some(Path::Exact("Call".into()))
    );
}

#[test]
fn timeouts_and_retries_are_taken_field_by_field_from_rule_service_and_mesh() {
    let mut bench = bench();
    bench.put("{apiVersion: outrigger.dev/v1alpha1, kind: Mesh, metadata: {name: default}, spec: {timeouts: {request: 9s, backendRequest: 8s, responseHeaders: 7s, connect: 4s}, retry: {attempts: 5}}}");
    bench.put(&service(
        "chat",
        "{ports: [{port: 80, protocol: http}], timeouts: {backendRequest: 6s, streamIdle: 1m}}",
    ));
    bench.put(&route("r", &parent("[{matches: [{path: {value: /v1}}], timeouts: {responseHeaders: 500ms}, retry: {codes: [503]}}]")));
    let service = bench.service("default/chat");
    assert_eq!(service.connect_timeout.unwrap().seconds, 4);
    let timeouts = service.rules[0].timeouts.unwrap();
    assert_eq!(timeouts.request.unwrap().seconds, 9);
    assert_eq!(timeouts.per_try.unwrap().seconds, 6);
    assert_eq!(timeouts.response_headers.unwrap().nanos, 500_000_000);
    assert_eq!(timeouts.stream_idle.unwrap().seconds, 60);
    let retry = service.rules[0].retry.clone().unwrap();
    assert_eq!((retry.max_retries, retry.statuses), (1, vec![503]));
    assert_eq!(retry.methods, ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]);
    assert_eq!(service.rules[1].retry.as_ref().unwrap().max_retries, 5);
}

#[test]
fn hedges_and_fallbacks() {
    let mut bench = bench();
    bench.put(&service("chat", HTTP));
    bench.put(&service("small", "{ports: [{port: 8080, protocol: http}]}"));
    bench.put(&route(
        "r",
        &parent(
            "[{hedge: {delay: 50ms}, exposeAttempts: true, continuation: {mode: text}, timeouts: {firstByte: 2s, streamLifetime: 1h}, fallbacks: [\
             {backendRef: {name: small}}, \
             {on: [budget], model: tiny}, {on: [model-error], backendRef: {name: small}, model: mini}, \
             {on: [server-error], directResponse: {statusCode: 503, contentType: text/html, body: later}}]}]",
        ),
    ));
    let rule = bench.service("default/chat").rules.remove(0);
    assert!(rule.expose_attempts);
    let continuation = wire::Continuation {
        mode: wire::continuation::Mode::Text.into(),
        max_attempts: 2,
        max_bytes: 256 << 10,
    };
    assert_eq!(rule.continuation, Some(continuation));
    let timeouts = rule.timeouts.unwrap();
    assert_eq!(timeouts.first_byte.unwrap().seconds, 2);
    assert_eq!(timeouts.stream_lifetime.unwrap().seconds, 3600);
    let hedge = rule.hedge.clone().unwrap();
    assert_eq!(hedge.delay.unwrap().nanos, 50_000_000);
    assert_eq!(hedge.max_requests, 2);
    assert_eq!(hedge.methods, ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]);
    use wire::fallback::{Cause, To};
    let causes = |fallback: &wire::Fallback| fallback.on().collect::<Vec<_>>();
    assert_eq!(
        causes(&rule.fallbacks[0]),
        [
            Cause::NoEndpoints,
            Cause::CircuitOpen,
            Cause::Overload,
            Cause::Budget,
            Cause::ConnectFailed
        ]
    );
    let Some(To::Backend(backend)) = &rule.fallbacks[0].to else {
        panic!("{rule:?}");
    };
    assert_eq!((&*backend.service, backend.port), ("default/small", 8080));
    assert_eq!(rule.fallbacks[0].model, "");
    // Another model of the same backend, and of another one.
    let Some(To::Backend(backend)) = &rule.fallbacks[1].to else {
        panic!("{rule:?}");
    };
    assert_eq!(*backend, rule.backends[0]);
    assert_eq!(rule.fallbacks[1].model, "tiny");
    assert_eq!(causes(&rule.fallbacks[1]), [Cause::Budget]);
    assert_eq!(rule.fallbacks[2].model, "mini");
    assert_eq!(causes(&rule.fallbacks[2]), [Cause::ModelError]);
    assert_eq!(causes(&rule.fallbacks[3]), [Cause::ServerError]);
    let response = wire::StaticResponse {
        status: 503,
        content_type: "text/html".into(),
        body: "later".into(),
    };
    assert_eq!(rule.fallbacks[3].to, Some(To::Response(response)));
    // Callers of the one need the other, also when its port changes.
    bench.put(&service("small", "{ports: [{port: 9090, protocol: http}]}"));
    let rule = bench.service("default/chat").rules.remove(0);
    assert!(matches!(&rule.fallbacks[0].to, Some(To::Backend(backend)) if backend.port == 9090));
    let compiled = bench.compiler.current();
    let chat = compiled.service("default/chat").unwrap();
    assert_eq!(chat.compiled.backends, ["default/small".into()]);
}

#[test]
fn with_several_ports_requests_stay_on_the_port_they_came_for() {
    let mut bench = bench();
    bench.put(&service(
        "chat",
        "{ports: [{port: 8080, protocol: http}, {port: 80, protocol: http}, {port: 9000, protocol: grpc}]}",
    ));
    bench.put(&route("r", &parent("[{matches: [{path: {value: /v1}}]}]")));
    let rules = bench.service("default/chat").rules;
    for rule in &rules {
        let matched = rule.matches.first().map_or(0, |it| it.port);
        let served = rule.backends[0].port;
        assert!(
            matched == served || (matched == 0 && served == 80),
            "{rule:?}"
        );
    }
    assert_eq!(rules.iter().filter(|it| it.route == "default/r").count(), 3);
    let last = rules.last().unwrap();
    assert!(last.matches.is_empty() && last.backends[0].port == 80);
}

#[test]
fn a_route_for_one_port_leaves_the_others_alone() {
    let mut bench = bench();
    bench.put(&service(
        "chat",
        "{ports: [{port: 80, protocol: http}, {port: 81, protocol: http}]}",
    ));
    bench.put(&route(
        "r",
        "{parentRefs: [{name: chat, port: 81}], rules: [{backendRefs: [{name: other, port: 80}]}]}",
    ));
    let rules = bench.service("default/chat").rules;
    assert_eq!(rules[0].route, "default/r");
    assert_eq!(rules[0].matches[0].port, 81);
    assert!(rules.last().unwrap().route.is_empty());
}

#[test]
fn a_backend_without_port_follows_the_services_default_port() {
    let mut bench = bench();
    bench.put(&service("chat", HTTP));
    bench.put(&route(
        "r",
        &parent("[{backendRefs: [{name: v2, weight: 0, subset: {version: v2}}, {name: v3}]}]"),
    ));
    let ports = |bench: &super::Bench| -> Vec<u32> {
        bench.service("default/chat").rules[0]
            .backends
            .iter()
            .map(|it| it.port)
            .collect()
    };
    assert_eq!(ports(&bench), [80, 80]);
    bench.put(&service("v2", "{ports: [{port: 9000, protocol: http}]}"));
    assert_eq!(ports(&bench), [9000, 80]);
    let backend = bench.service("default/chat").rules[0].backends[0].clone();
    assert_eq!(backend.weight, 0);
    assert_eq!(backend.subset["version"], "v2");
}

#[test]
fn sessions_have_a_key_of_their_own_for_each_service() {
    let mut bench = bench();
    let sticky = "sessionPersistence: {sessionName: Chat, type: Header, absoluteTimeout: 1h}";
    for name in ["chat", "other"] {
        bench.put(&service(name, HTTP));
        let spec = format!("{{parentRefs: [{{name: {name}}}], rules: [{{{sticky}}}]}}");
        bench.put(&route(name, &spec));
    }
    let session = |name: &str| {
        let rules = bench.service(name).rules;
        rules[0].session_persistence.clone().unwrap()
    };
    let (chat, other) = (session("default/chat"), session("default/other"));
    assert_eq!((chat.name.as_str(), chat.key.len()), ("chat", 32));
    assert_eq!(chat.absolute_timeout.unwrap().seconds, 3600);
    assert_ne!(chat.key, other.key);
}
