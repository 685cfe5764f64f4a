//! `status`.

use serde_json::Value;

use crate::testing::{Fake, Runner, State, fixtures, golden};

#[test]
fn for_people() {
    let fake = Fake::start(fixtures::mesh_with_refusal());
    golden("status", &fake.ctl(&["status"]).transcript());
    let fake = Fake::start(fixtures::mesh_with_refusal());
    golden(
        "status-wide",
        &fake.ctl(&["status", "-o", "wide"]).transcript(),
    );
    let fake = Fake::start(fixtures::mesh_with_refusal());
    golden(
        "status-color",
        &fake
            .run(
                &Runner {
                    color: true,
                    ..Runner::default()
                },
                &["status"],
            )
            .transcript(),
    );
}

#[test]
fn of_an_empty_mesh() {
    let state = State {
        sidecars: Vec::new(),
        ..fixtures::mesh()
    };
    golden(
        "status-empty",
        &Fake::start(state).ctl(&["status"]).transcript(),
    );
}

#[test]
fn for_programs() {
    let fake = Fake::start(fixtures::mesh_with_refusal());
    let ran = fake.ctl(&["status", "-o", "json"]);
    let status: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(status["controlPlane"]["configVersion"], 42);
    assert_eq!(status["sidecars"][1]["name"], "web-cccccccc");
    assert_eq!(status["sidecars"][1]["sync"], "rejected");
    assert_eq!(
        status["sidecars"][1]["rejections"][0]["resource"],
        "service/default/chat"
    );
    assert_eq!(status["sidecars"][1]["ackLatencySeconds"], 0.001234);
}

#[test]
fn waits_until_all_are_in_sync() {
    let fake = Fake::start(fixtures::mesh());
    let ran = fake.ctl(&["status", "--wait", "20"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    // In sync from the third time on, and looked at once more.
    assert_eq!(fake.state().asked, 4);
}

#[test]
fn waits_no_longer_than_it_may() {
    let fake = Fake::start(fixtures::mesh());
    let ran = fake.ctl(&["status", "--wait", "10ms"]);
    assert_eq!(ran.code, 1);
    assert_eq!(ran.err, "error: not in sync after 10ms: chat-1a2b3c4d\n");
}
