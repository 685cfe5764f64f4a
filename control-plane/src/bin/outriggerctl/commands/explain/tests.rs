#![allow(clippy::unwrap_used)]
use outrigger_control_plane::api::convert::to_struct;
use outrigger_proto::api::v1 as api;
use serde_json::json;

use super::{document, parse, text};
use crate::cli::{ExplainArgs, Explained};
use crate::testing::golden;

fn args(url: &str) -> ExplainArgs {
    ExplainArgs {
        model: None,
        from: "default/web".into(),
        method: "post".into(),
        url: url.into(),
        headers: Vec::new(),
        output: Explained::Table,
    }
}

fn routed() -> api::ExplainResponse {
    let endpoint = |address: &str, identity: &str| api::ExplainedEndpoint {
        address: address.into(),
        identity: identity.into(),
        mtls: !identity.is_empty(),
        weight: 1,
    };
    let backend = |service: &str, weight, percent| api::ExplainedBackend {
        service: service.into(),
        port: 80,
        protocol: "http".into(),
        weight,
        percent,
        endpoints: vec![endpoint(
            "10.0.0.7:15006",
            "spiffe://outrigger.local/ns/default/sa/chat",
        )],
        dns: Vec::new(),
    };
    let timeout = |name: &str, seconds, level: &str| api::ExplainedTimeout {
        name: name.into(),
        after: Some(prost_types::Duration { seconds, nanos: 0 }),
        level: level.into(),
    };
    api::ExplainResponse {
        config_version: 42,
        service: "default/chat".into(),
        port: 80,
        route: "default/chat-canary".into(),
        rule: 2,
        rules: 3,
        backends: vec![
            backend("default/chat", 9, 90.0),
            api::ExplainedBackend {
                endpoints: Vec::new(),
                dns: vec!["api.example".into()],
                ..backend("default/outside", 1, 10.0)
            },
        ],
        timeouts: vec![
            timeout("connect", 1, "built-in"),
            timeout("request", 30, "route"),
        ],
        passed_over: vec![api::PassedOverRule {
            rule: 1,
            route: "default/chat-gold".into(),
            unmet: vec!["headers".into()],
        }],
        matched: to_struct(&json!({
            "path": { "type": "prefix", "value": "/v1" }, "method": null, "headers": [],
        })),
        policy: to_struct(&json!({
            "route": "default/chat-canary",
            "retry": { "max_retries": 2, "statuses": [503] },
            "something_new": { "on": true },
        })),
        service_policy: to_struct(
            &json!({ "load_balancing": { "policy": "peak-ewma" }, "tls": null }),
        ),
        ..api::ExplainResponse::default()
    }
}

#[test]
fn where_a_request_goes() {
    let args = args("http://chat.models/v1/chat/completions");
    golden("explain", &text(&args, &routed(), false));
    let document = document(&routed());
    assert_eq!(document["rule"], 2);
    assert_eq!(
        document["timeouts"]["request"],
        json!({ "after": "30s", "level": "route" })
    );
    assert_eq!(document["backends"][1]["dns"][0], "api.example");
    assert_eq!(document["refused"], json!(null));
}

#[test]
fn why_it_goes_nowhere() {
    let response = api::ExplainResponse {
        config_version: 42,
        refused: Some(api::ExplainedRefusal {
            reason: "no-route".into(),
            status: 404,
            detail: "no service answers to the host \"chta\"".into(),
        }),
        hints: vec!["did you mean chat (service/default/chat)?".into()],
        ..api::ExplainResponse::default()
    };
    golden("explain-nowhere", &text(&args("chta"), &response, false));
}

#[test]
fn headers_are_written_as_curl_has_them() {
    let header = parse("x-tier:  gold ").unwrap();
    assert_eq!(
        (header.name.as_str(), header.value.as_str()),
        ("x-tier", "gold")
    );
    let header = parse("x-time: 12:00").unwrap();
    assert_eq!(header.value, "12:00");
    assert!(parse("x-tier").is_err());
}
