//! Which request goes where.

use std::time::Duration;

use outrigger_tests::upstream::Http;
use outrigger_tests::{ControlPlane, Sidecar, client, eventually};

use crate::mesh::{Mesh, route, service};

#[tokio::test]
async fn every_name_of_a_service_reaches_it() {
    let mesh = Mesh::start("hosts: [chat.models, \"*.chat.example\", special.chat.example]").await;
    mesh.control_plane.apply(&service(
        "other",
        "hosts: [\"*.very.special.chat.example\"]",
    ));
    for host in [
        "chat",
        "chat:80",
        "CHAT",
        "chat.default",
        "chat.default:80",
        "chat.default.svc",
        "chat.default.svc.cluster.local",
        "chat.models",
        "chat.models:80",
        "a.chat.example",
        "a.b.chat.example",
        "special.chat.example",
    ] {
        let answer = mesh.caller.get(host, "/").await;
        assert_eq!(
            answer.status,
            200,
            "{host}: {} {}",
            answer.reason(),
            answer.text()
        );
        assert_eq!(answer.instance(), "chat", "{host}");
    }
    for host in [
        "nobody",
        "chat:81",
        "chat.elsewhere",
        "chat.example",
        "chat.models.more",
        "10.1.2.3",
        "[::1]:80",
    ] {
        let answer = mesh.caller.get(host, "/").await;
        assert_eq!(
            (answer.status.as_u16(), answer.reason()),
            (404, "no-route"),
            "{host}: {}",
            answer.text()
        );
    }
    // The longer suffix wins, also where that service has nobody to answer.
    let answer = mesh.caller.get("x.very.special.chat.example", "/").await;
    assert_eq!(
        (answer.status.as_u16(), answer.reason()),
        (503, "no-endpoints"),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn a_short_name_is_of_the_callers_namespace() {
    let mesh = Mesh::start("").await;
    let stranger = Sidecar::builder_in(&mesh.control_plane, "team", "caller")
        .start()
        .await;
    let answer = stranger.get("chat", "/").await;
    assert_eq!(
        (answer.status.as_u16(), answer.reason()),
        (404, "no-route"),
        "{}",
        answer.text()
    );
    assert_eq!(stranger.reaches("chat.default").await.instance(), "chat");
}

#[tokio::test]
async fn works_as_forward_proxy_and_over_http2() {
    let mesh = Mesh::start("").await;
    // What a client with HTTP_PROXY sends: the Host header repeats the URI's authority, or is wrong and must be ignored.
    for host in ["chat", "misleading.example"] {
        let head = http::Request::builder()
            .uri("http://chat/a?b=c")
            .header("host", host);
        let answer = client::request(mesh.caller.outbound(), head, client::empty()).await;
        assert_eq!(answer.status, 200, "{} {}", answer.reason(), answer.text());
        let seen = answer.json();
        assert_eq!(
            (seen["path"].as_str(), seen["query"].as_str()),
            (Some("/a"), Some("b=c"))
        );
        assert_eq!(seen["headers"]["host"], "chat");
    }
    let mut connection = client::Connection::http2(mesh.caller.outbound())
        .await
        .unwrap();
    let answer = connection.get("chat", "/a?b=c").await.unwrap();
    assert_eq!(answer.status, 200, "{} {}", answer.reason(), answer.text());
    let seen = answer.json();
    // The port says `http`: the application gets HTTP/1.1 whatever the caller speaks.
    assert_eq!(
        (seen["version"].as_str(), seen["headers"]["host"].as_str()),
        (Some("HTTP/1.1"), Some("chat"))
    );
}

/// Three services, one application each.
async fn three() -> (ControlPlane, Vec<Http>, Vec<Sidecar>, Sidecar) {
    let control_plane = ControlPlane::start().await;
    let (mut apps, mut sidecars) = (Vec::new(), Vec::new());
    for name in ["chat", "second", "third"] {
        control_plane.apply(&service(name, ""));
        let app = Http::start(name).await;
        sidecars.push(Sidecar::serving(&control_plane, &format!("{name}:80"), app.address()).await);
        apps.push(app);
    }
    let caller = Sidecar::caller(&control_plane).await;
    for name in ["chat", "second", "third"] {
        caller.reaches(name).await;
    }
    (control_plane, apps, sidecars, caller)
}

#[tokio::test]
async fn rules_match_in_the_order_of_precedence() {
    let (control_plane, _apps, _sidecars, caller) = three().await;
    control_plane.apply(&route(
        "by-path",
        "[{matches: [{path: {type: PathPrefix, value: /v1}}], backendRefs: [{name: second, port: 80}]}, \
          {matches: [{path: {type: Exact, value: /v1/exact}}], backendRefs: [{name: third, port: 80}]}, \
          {matches: [{path: {type: RegularExpression, value: \"/v1/re[0-9]+\"}}], backendRefs: [{name: third, port: 80}]}, \
          {matches: [{path: {type: PathPrefix, value: /v1/longer}}], backendRefs: [{name: chat, port: 80}]}, \
          {matches: [{path: {type: PathPrefix, value: /by}, method: DELETE}], backendRefs: [{name: second, port: 80}]}, \
          {matches: [{path: {type: PathPrefix, value: /by}, headers: [{name: x-tier, value: gold}]}, \
                     {path: {type: PathPrefix, value: /by}, headers: [{type: RegularExpression, name: x-user, value: \"a.*z\"}]}], \
           backendRefs: [{name: third, port: 80}]}]",
    ));
    eventually(
        "the route is in effect",
        Duration::from_secs(5),
        async || {
            let instance = caller.get("chat", "/v1").await.instance().to_string();
            if instance == "second" {
                Ok(())
            } else {
                Err(instance)
            }
        },
    )
    .await;
    for (path, expected) in [
        ("/v1/models", "second"),
        ("/v1?x=/v1/exact", "second"),
        ("/v10", "chat"),
        ("/", "chat"),
        ("/v1/exact", "third"),
        ("/v1/exact/more", "second"),
        ("/v1/re7", "third"),
        ("/v1/re7x", "second"),
        ("/v1/longer/path", "chat"),
    ] {
        assert_eq!(
            caller.get("chat", path).await.instance(),
            expected,
            "{path}"
        );
    }
    for (method, header, expected) in [
        ("GET", ("x-none", "1"), "chat"),
        ("DELETE", ("x-none", "1"), "second"),
        ("GET", ("x-tier", "gold"), "third"),
        ("GET", ("x-tier", "golden"), "chat"),
        ("GET", ("x-user", "abcz"), "third"),
        ("GET", ("x-user", "abczd"), "chat"),
        // A match on the method is worth more than one on headers.
        ("DELETE", ("x-tier", "gold"), "second"),
    ] {
        let head = http::Request::builder()
            .method(method)
            .uri("/by/x")
            .header("host", "chat")
            .header(header.0, header.1);
        let answer = client::request(caller.outbound(), head, client::empty()).await;
        assert_eq!(answer.instance(), expected, "{method} {header:?}");
    }
    control_plane.ctl(&["delete", "route/by-path"]);
    eventually("the route is gone", Duration::from_secs(5), async || {
        let instance = caller.get("chat", "/v1").await.instance().to_string();
        if instance == "chat" {
            Ok(())
        } else {
            Err(instance)
        }
    })
    .await;
}

#[tokio::test]
async fn weights_split_and_zero_means_none() {
    let (control_plane, apps, _sidecars, caller) = three().await;
    control_plane.apply(&route(
        "split",
        "[{backendRefs: [{name: chat, port: 80, weight: 0}, {name: second, port: 80, weight: 75}, {name: third, port: 80, weight: 25}]}]",
    ));
    eventually(
        "the split is in effect",
        Duration::from_secs(5),
        async || {
            let instance = caller.get("chat", "/").await.instance().to_string();
            if instance == "chat" {
                Err(instance)
            } else {
                Ok(())
            }
        },
    )
    .await;
    let before: Vec<u64> = apps.iter().map(Http::requests).collect();
    let mut connection = client::Connection::http1(caller.outbound()).await.unwrap();
    for _ in 0..1000 {
        assert_eq!(connection.get("chat", "/").await.unwrap().status, 200);
    }
    let got: Vec<u64> = apps
        .iter()
        .zip(before)
        .map(|(app, before)| app.requests() - before)
        .collect();
    assert_eq!(got, [0, 750, 250], "any run of 100 requests is exact");
}

#[tokio::test]
async fn a_subset_is_the_endpoints_with_its_labels() {
    let control_plane = ControlPlane::start().await;
    control_plane.apply(&service("chat", "loadBalancing: {policy: round-robin}"));
    let (mut apps, mut sidecars) = (Vec::new(), Vec::new());
    for (name, version) in [("one", "v1"), ("two", "v1"), ("three", "v2")] {
        let app = Http::start(name).await;
        let sidecar = Sidecar::builder(&control_plane, "chat")
            .serve("chat:80", app.address())
            .label("version", version);
        sidecars.push(sidecar.start().await);
        apps.push(app);
    }
    let caller = Sidecar::caller(&control_plane).await;
    control_plane.apply(&route(
        "subsets",
        "[{matches: [{path: {type: PathPrefix, value: /v1}}], backendRefs: [{name: chat, port: 80, subset: {version: v1}}]}, \
          {matches: [{path: {type: PathPrefix, value: /v2}}], backendRefs: [{name: chat, port: 80, subset: {version: v2}}]}, \
          {matches: [{path: {type: PathPrefix, value: /v3}}], backendRefs: [{name: chat, port: 80, subset: {version: v3}}]}]",
    ));
    let instances = async |path: &str| {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..12 {
            seen.insert(caller.get("chat", path).await.instance().to_string());
        }
        seen.into_iter().collect::<Vec<_>>()
    };
    eventually(
        "all three replicas and the route are there",
        Duration::from_secs(10),
        async || {
            let all = instances("/").await;
            if all == ["one", "three", "two"] && instances("/v2").await == ["three"] {
                Ok(())
            } else {
                Err(format!("{all:?}"))
            }
        },
    )
    .await;
    assert_eq!(instances("/v1").await, ["one", "two"]);
    let answer = caller.get("chat", "/v3").await;
    assert_eq!(
        (answer.status.as_u16(), answer.reason()),
        (503, "no-endpoints"),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn each_balancing_policy_uses_all_replicas() {
    let control_plane = ControlPlane::start().await;
    control_plane.apply(&service("chat", ""));
    let (one, two) = (Http::start("one").await, Http::start("two").await);
    let _first = Sidecar::serving(&control_plane, "chat:80", one.address()).await;
    let _second = Sidecar::serving(&control_plane, "chat:80", two.address()).await;
    let caller = Sidecar::caller(&control_plane).await;
    caller.reaches("chat").await;
    for policy in ["peak-ewma", "least-request", "round-robin", "random"] {
        control_plane.apply(&service(
            "chat",
            &format!("loadBalancing: {{policy: {policy}}}"),
        ));
        eventually(
            &format!("{policy} is in effect"),
            Duration::from_secs(5),
            async || {
                let text = caller.admin("/endpoints").await.text();
                if text.contains(policy) {
                    Ok(())
                } else {
                    Err(text)
                }
            },
        )
        .await;
        let before = (one.requests(), two.requests());
        // At the same time: who waits for each answer gives peak EWMA no reason to leave the quicker replica.
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let to = caller.outbound();
            callers.spawn(async move {
                let mut connection = client::Connection::http1(to).await.unwrap();
                for _ in 0..25 {
                    assert_eq!(
                        connection.get("chat", "/slow?ms=5").await.unwrap().status,
                        200
                    );
                }
            });
        }
        callers.join_all().await;
        let (first, second) = (one.requests() - before.0, two.requests() - before.1);
        if policy == "round-robin" {
            assert_eq!((first, second), (100, 100));
        }
        assert!(
            first >= 20 && second >= 20,
            "{policy}: {first} and {second} of 200"
        );
    }
}
