use outrigger_proto::dataplane::v1 as wire;
use wire::filter::Kind;

use super::{HTTP, bench, route, service};

fn filters(rule: &str) -> Vec<Vec<Kind>> {
    let mut bench = bench();
    bench.put(&service("chat", HTTP));
    bench.put(&service(
        "shadow",
        "{ports: [{port: 8080, protocol: http}]}",
    ));
    bench.put(&route(
        "r",
        &format!("{{parentRefs: [{{name: chat}}], rules: [{rule}]}}"),
    ));
    let rules = bench.service("default/chat").rules.into_iter();
    rules
        .map(|rule| {
            rule.filters
                .into_iter()
                .map(|filter| filter.kind.unwrap())
                .collect()
        })
        .collect()
}

#[test]
fn a_replaced_prefix_is_that_of_each_match() {
    let compiled = filters(
        "{matches: [{path: {value: /v1}}, {path: {value: /v1/long}}, {method: GET}], \
          filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /x}}}]}",
    );
    let prefix = |kinds: &Vec<Kind>| match kinds.first() {
        Some(Kind::UrlRewrite(wire::UrlRewrite {
            path: Some(path), ..
        })) => match &path.kind {
            Some(wire::path_modifier::Kind::Prefix(it)) => {
                format!("{} {}", it.prefix, it.replacement)
            }
            other => panic!("{other:?}"),
        },
        None => String::new(),
        other => panic!("{other:?}"),
    };
    let prefixes: Vec<String> = compiled.iter().map(prefix).collect();
    // The last rule is the service's own and has no filters.
    assert_eq!(prefixes, ["/v1/long /x", "/v1 /x", "/ /x", ""]);
}

#[test]
fn filters_stay_in_order_with_defaults_filled_in() {
    let compiled = filters(
        "{filters: [\
          {type: FaultInjection, faultInjection: {abort: {grpcStatus: unavailable}, truncate: {afterBytes: 7, percent: 3}}}, \
          {type: RequestMirror, requestMirror: {backendRef: {name: shadow}}}, \
          {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-A, value: b}], remove: [X-B]}}, \
          {type: DirectResponse, directResponse: {statusCode: 410, body: gone}}]}",
    );
    let [
        Kind::FaultInjection(fault),
        Kind::Mirror(mirror),
        Kind::RequestHeaders(headers),
        Kind::DirectResponse(direct),
    ] = compiled[0].as_slice()
    else {
        panic!("{compiled:?}")
    };
    let abort = fault.abort.as_ref().unwrap();
    assert_eq!(
        abort.status,
        Some(wire::fault_injection::abort::Status::Grpc(14))
    );
    assert_eq!(abort.fraction.unwrap().numerator, 100);
    assert_eq!(fault.truncate.unwrap().fraction.unwrap().numerator, 3);
    let backend = mirror.backend.as_ref().unwrap();
    assert_eq!(
        (backend.service.as_str(), backend.port),
        ("default/shadow", 8080)
    );
    assert_eq!(
        (headers.set[0].name.as_str(), headers.remove[0].as_str()),
        ("x-a", "x-b")
    );
    assert_eq!(direct.content_type, "text/plain; charset=utf-8");
}

#[test]
fn sidecars_get_the_services_that_copies_go_to() {
    let mut bench = bench();
    bench.put(&service("chat", HTTP));
    bench.put(&route("r", "{parentRefs: [{name: chat}], rules: [{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: shadow}}}]}]}"));
    let backends = |bench: &super::Bench| {
        let state = bench.compiler.current();
        state
            .service("default/chat")
            .unwrap()
            .compiled
            .backends
            .clone()
    };
    assert_eq!(backends(&bench), ["default/shadow".into()]);
    // When the service comes, the route is compiled again: with its port.
    bench.put(&service(
        "shadow",
        "{ports: [{port: 8080, protocol: http}]}",
    ));
    let Some(Kind::Mirror(mirror)) = &bench.service("default/chat").rules[0].filters[0].kind else {
        panic!("no mirror")
    };
    assert_eq!(mirror.backend.as_ref().unwrap().port, 8080);
}
