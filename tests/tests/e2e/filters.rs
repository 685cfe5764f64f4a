//! Matches and filters of routes, with the files that the pages about them show.

use std::time::{Duration, Instant};

use outrigger_tests::client::{self, Answer};
use outrigger_tests::upstream::Http;
use outrigger_tests::{ControlPlane, Sidecar, eventually};

fn example(name: &str) -> String {
    let path = format!(
        "{}/../examples/policies/{name}.yaml",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read_to_string(path).unwrap()
}

/// A mesh with the services of an example and its route.
struct Mesh {
    apps: Vec<Http>,
    caller: Sidecar,
    _sidecars: Vec<Sidecar>,
    control_plane: ControlPlane,
}

impl Mesh {
    async fn start(file: &str, services: &[&str]) -> Mesh {
        let control_plane = ControlPlane::start().await;
        control_plane.apply(&example(file));
        let (mut apps, mut sidecars) = (Vec::new(), Vec::new());
        for name in services {
            let app = Http::start(name).await;
            let serve = format!("{name}:80");
            sidecars.push(Sidecar::serving(&control_plane, &serve, app.address()).await);
            apps.push(app);
        }
        let caller = Sidecar::caller(&control_plane).await;
        for name in services {
            caller.reaches(name).await;
        }
        Mesh {
            apps,
            caller,
            _sidecars: sidecars,
            control_plane,
        }
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut head = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "chat");
        for (name, value) in headers {
            head = head.header(*name, *value);
        }
        client::request(self.caller.outbound(), head, client::empty()).await
    }

    async fn counts(&self, metric: &str, labels: &[(&str, &str)], at_least: f64) {
        eventually(metric, Duration::from_secs(10), async || {
            let sum = self.caller.metrics().await.sum(metric, labels);
            if sum >= at_least {
                Ok(())
            } else {
                Err(sum.to_string())
            }
        })
        .await;
    }
}

#[tokio::test]
async fn query_parameters_and_grpc_calls_choose_the_backend() {
    let mesh = Mesh::start("query-and-grpc", &["chat", "chat-beta"]).await;
    let grpc = [("content-type", "application/grpc")];
    let infer = "/inference.GRPCInferenceService/ModelInfer";
    for (path, headers, expected) in [
        ("/v1?beta=yes", &[][..], "chat-beta"),
        ("/v1/models?a=b&%62eta=%79es&beta=no", &[], "chat-beta"),
        ("/v1?beta=no&beta=yes", &[], "chat"),
        ("/v1?xbeta=yes", &[], "chat"),
        ("/v2?beta=yes", &[], "chat"),
        (infer, &[], "chat"),
        ("/inference.GRPCInferenceService/ModelReady", &grpc, "chat"),
    ] {
        let answer = mesh.ask("POST", path, headers).await;
        assert_eq!(answer.instance(), expected, "{path}");
    }
    let before = mesh.apps[1].requests();
    mesh.ask("POST", infer, &grpc).await;
    assert_eq!(mesh.apps[1].requests(), before + 1);
    let words = mesh.control_plane.ctl(&["describe", "route/chat-beta"]);
    assert!(words.contains("query parameter beta is \"yes\""), "{words}");
    assert!(
        words.contains("gRPC service is inference.GRPCInferenceService"),
        "{words}"
    );
}

#[tokio::test]
async fn requests_and_responses_are_changed_redirected_and_answered() {
    let mesh = Mesh::start("filters", &["chat"]).await;
    let answer = mesh
        .ask(
            "GET",
            "/openai/v1/models?a=b",
            &[("x-team", "other"), ("x-debug", "1")],
        )
        .await;
    let seen = answer.json();
    assert_eq!(seen["path"], "/v1/models");
    assert_eq!(seen["query"], "a=b");
    assert_eq!(seen["headers"]["host"], "chat.internal");
    assert_eq!(seen["headers"]["x-team"], "search");
    assert!(seen["headers"]["x-debug"].is_null(), "{seen}");
    assert_eq!(answer.header("x-served-by"), "mesh");

    let answer = mesh.ask("POST", "/old/chat?a=b", &[]).await;
    assert_eq!(answer.status, 308);
    assert_eq!(answer.header("location"), "http://chat/v1/chat?a=b");

    let answer = mesh.ask("POST", "/v1/fine-tuning", &[]).await;
    assert_eq!(answer.status, 501);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.json()["error"]["message"], "not offered here");

    let before = mesh.apps[0].requests();
    let origin = ("origin", "https://ui.chat.example");
    let preflight = [origin, ("access-control-request-method", "POST")];
    let answer = mesh.ask("OPTIONS", "/web/chat", &preflight).await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), origin.1);
    assert_eq!(answer.header("access-control-allow-methods"), "GET, POST");
    assert_eq!(
        mesh.apps[0].requests(),
        before,
        "the sidecar answers preflights"
    );
    let answer = mesh.ask("GET", "/web/chat", &[origin]).await;
    assert_eq!(answer.instance(), "chat");
    assert_eq!(answer.header("access-control-allow-origin"), origin.1);
    assert_eq!(answer.header("access-control-allow-credentials"), "true");

    let actions = "outrigger_filter_actions_total";
    for action in ["redirect", "direct-response", "cors-preflight"] {
        mesh.counts(
            actions,
            &[("route", "default/chat-filters"), ("action", action)],
            1.0,
        )
        .await;
    }
    let words = mesh.control_plane.ctl(&["describe", "route/chat-filters"]);
    for part in [
        "remove request header x-debug",
        "prefix of the path becomes /v1",
        "redirect with 308",
        "answer 501 with 40 bytes",
        "let pages of https://*.chat.example call, with credentials",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
}

#[tokio::test]
async fn copies_go_to_the_mirror_and_answers_come_from_the_original() {
    let mesh = Mesh::start("mirroring", &["chat", "chat-shadow"]).await;
    let before: Vec<u64> = mesh.apps.iter().map(Http::requests).collect();
    for _ in 0..20 {
        let head = http::Request::builder()
            .method("POST")
            .uri("/v1")
            .header("host", "chat");
        let answer = client::request(mesh.caller.outbound(), head, client::full("a prompt")).await;
        assert_eq!((answer.status.as_u16(), answer.instance()), (200, "chat"));
    }
    eventually("the copies arrive", Duration::from_secs(10), async || {
        let copies = mesh.apps[1].requests() - before[1];
        if copies == 20 {
            Ok(())
        } else {
            Err(copies.to_string())
        }
    })
    .await;
    assert_eq!(mesh.apps[0].requests() - before[0], 20);
    let labels = [("backend", "default/chat-shadow"), ("outcome", "ok")];
    mesh.counts("outrigger_mirrored_requests_total", &labels, 20.0)
        .await;
}

#[tokio::test]
async fn faults_happen_to_those_who_ask_for_them() {
    let mesh = Mesh::start("fault-injection", &["chat"]).await;
    assert_eq!(mesh.ask("GET", "/", &[]).await.status, 200);
    let begun = Instant::now();
    assert_eq!(
        mesh.ask("GET", "/", &[("x-chaos", "slow")]).await.status,
        200
    );
    assert!(begun.elapsed() >= Duration::from_millis(300));

    let before = mesh.apps[0].requests();
    let answer = mesh.ask("GET", "/", &[("x-chaos", "error")]).await;
    assert_eq!(
        (answer.status.as_u16(), answer.reason()),
        (503, "fault-abort")
    );
    assert_eq!(mesh.apps[0].requests(), before);

    let head = http::Request::builder()
        .uri("/")
        .header("host", "chat")
        .header("x-chaos", "cut");
    let broken = client::try_request(mesh.caller.outbound(), head, client::empty()).await;
    assert!(broken.is_err(), "{broken:?}");
    for action in ["fault-delay", "fault-abort", "fault-truncate"] {
        mesh.counts("outrigger_filter_actions_total", &[("action", action)], 1.0)
            .await;
    }
    let reasons = [("direction", "outbound"), ("reason", "fault-truncate")];
    mesh.counts("outrigger_requests_total", &reasons, 1.0).await;
}
