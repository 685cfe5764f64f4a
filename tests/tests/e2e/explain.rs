//! `outriggerctl explain` against what requests meet.

use outrigger_tests::upstream::Http;
use outrigger_tests::{ControlPlane, Sidecar, client};
use serde_json::Value;

use crate::mesh::{Mesh, route};

const EXAMPLE: &str = include_str!("../../../examples/policies/header-routing.yaml");

fn explain(control_plane: &ControlPlane, arguments: &[&str]) -> Value {
    let arguments: Vec<&str> = [
        &["explain", "--from", "default/caller"],
        arguments,
        &["-o", "json"],
    ]
    .concat();
    serde_json::from_str(&control_plane.ctl(&arguments)).unwrap()
}

/// The example as it stands, and requests by hand: what is explained is what the access log says.
#[tokio::test]
async fn the_example_is_explained_as_it_acts() {
    let control_plane = ControlPlane::start().await;
    control_plane.apply(EXAMPLE);
    let names: Vec<String> = control_plane
        .ctl(&["get", "services", "-o", "name"])
        .lines()
        .map(|line| line.rsplit('/').next().unwrap().to_owned())
        .collect();
    let (mut apps, mut sidecars) = (Vec::new(), Vec::new());
    for name in &names {
        let app = Http::start(name).await;
        let serve = format!("{name}:80");
        sidecars.push(Sidecar::serving(&control_plane, &serve, app.address()).await);
        apps.push(app);
    }
    let caller = Sidecar::caller(&control_plane).await;
    for name in &names {
        caller.reaches(name).await;
    }
    let mut backends_met = std::collections::BTreeSet::new();
    for path in ["/", "/v1/models", "/v1/chat/completions", "/other?x=1"] {
        for method in ["GET", "POST"] {
            for tier in ["", "gold", "silver", "free"] {
                let url = format!("http://chat{path}");
                let header = format!("x-tier: {tier}");
                let told = explain(&control_plane, &[method, &url, "-H", &header]);
                let head = http::Request::builder()
                    .method(method)
                    .uri(path)
                    .header("host", "chat")
                    .header("x-tier", tier);
                let met = client::request(caller.outbound(), head, client::empty()).await;
                assert_eq!(met.status, 200, "{} {}", met.reason(), met.text());
                let backends: Vec<&str> = told["backends"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter(|backend| backend["weight"] != 0)
                    .map(|backend| backend["service"].as_str().unwrap())
                    .collect();
                let instance = format!("default/{}", met.instance());
                assert!(
                    backends.contains(&&*instance),
                    "{method} {path} {tier}: {instance}, told {told:#}"
                );
                backends_met.insert(instance);
            }
        }
    }
    assert!(backends_met.len() > 1, "{backends_met:?}");
}

#[tokio::test]
async fn it_says_why_and_where_from() {
    let mesh = Mesh::start("hosts: [chat.models]\ntimeouts: {responseHeaders: 20s}").await;
    mesh.control_plane.apply(&route(
        "by-path",
        "[{matches: [{path: {value: /v1}, method: POST}], timeouts: {request: 30s}}]",
    ));
    let told = explain(&mesh.control_plane, &["POST", "http://chat.models/v1/x"]);
    assert_eq!(told["service"], "default/chat");
    assert_eq!(
        (&told["route"], &told["rule"]),
        (&"default/by-path".into(), &1.into())
    );
    assert_eq!(told["timeouts"]["request"]["level"], "route");
    assert_eq!(told["timeouts"]["responseHeaders"]["level"], "service");
    assert_eq!(told["timeouts"]["streamIdle"]["level"], "built-in");
    let endpoint = &told["backends"][0]["endpoints"][0];
    assert_eq!(endpoint["address"], mesh.server.inbound().to_string());
    assert_eq!(
        endpoint["identity"],
        "spiffe://outrigger.local/ns/default/sa/chat"
    );

    let told = explain(&mesh.control_plane, &["GET", "http://chat/v1/x"]);
    assert_eq!((&told["route"], &told["rule"]), (&"".into(), &2.into()));
    assert_eq!(
        told["passedOver"][0]["unmet"],
        serde_json::json!(["method"])
    );

    let told = explain(&mesh.control_plane, &["GET", "http://chta/"]);
    assert_eq!(told["refused"]["reason"], "no-route");
    assert!(
        told["hints"][0].as_str().unwrap().contains("chat"),
        "{told:#}"
    );
    let told = explain(&mesh.control_plane, &["GET", "http://chat:81/"]);
    assert!(
        told["hints"][0].as_str().unwrap().contains("no port 81"),
        "{told:#}"
    );

    let stranger =
        mesh.control_plane
            .ctl(&["explain", "--from", "team/web", "GET", "http://chat/"]);
    assert!(stranger.contains("404 no-route"), "{stranger}");
    assert!(stranger.contains("chat.default"), "{stranger}");
    let refused =
        mesh.control_plane
            .try_ctl(&["explain", "--from", "nobody", "GET", "http://chat/"]);
    assert_eq!(refused.status.code(), Some(1));
}
