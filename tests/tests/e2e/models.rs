//! Models: the example's policy as it stands, and requests to what it says.

use outrigger_tests::upstream::Http;
use outrigger_tests::{ControlPlane, Sidecar, client};
use serde_json::Value;

const EXAMPLE: &str = include_str!("../../../examples/policies/inference.yaml");

#[tokio::test]
async fn the_example_says_which_models_there_are() {
    let control_plane = ControlPlane::start().await;
    control_plane.apply(EXAMPLE);
    let app = Http::start("chat").await;
    let _server = Sidecar::serving(&control_plane, "chat:80", app.address()).await;
    let caller = Sidecar::caller(&control_plane).await;
    caller.reaches("chat").await;

    // No endpoint has a model's label: only the rule for the large one names a model that something serves.
    let list: Value = serde_json::from_str(&caller.get("chat", "/v1/models").await.text()).unwrap();
    let ids: Vec<_> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["id"].clone())
        .collect();
    assert_eq!(ids, ["large"]);

    let ask = |model: &str| {
        let head = http::Request::builder()
            .method("POST")
            .uri("/v1/chat/completions")
            .header("host", "chat")
            .header("content-type", "application/json");
        let body = format!("{{\"model\":\"{model}\",\"messages\":[]}}");
        client::request(caller.outbound(), head, client::full(body))
    };
    let unknown = ask("huge").await;
    assert_eq!(
        (unknown.status.as_u16(), unknown.reason()),
        (404, "unknown-model")
    );
    let nobody = ask("gpt-4o-mini").await;
    assert_eq!(
        (nobody.status.as_u16(), nobody.reason()),
        (503, "no-endpoints")
    );
    let twice = ask("large\",\"model\":\"small").await;
    assert_eq!(
        (twice.status.as_u16(), twice.reason()),
        (400, "bad-request")
    );

    let explain = |model: &str| -> Value {
        let arguments = [
            "explain",
            "--from",
            "default/caller",
            "--model",
            model,
            "POST",
            "http://chat/v1/chat/completions",
            "-o",
            "json",
        ];
        serde_json::from_str(&control_plane.ctl(&arguments)).unwrap()
    };
    assert_eq!(explain("large")["matched"]["model"]["value"], "large");
    assert_eq!(explain("small")["passedOver"][0]["unmet"][0], "model");
}
