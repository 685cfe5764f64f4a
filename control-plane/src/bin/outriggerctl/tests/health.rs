//! What is shown of endpoints that sidecars keep away from.

use serde_json::Value;

use crate::testing::{Fake, fixtures, golden};

#[test]
fn for_people() {
    let fake = Fake::start(fixtures::mesh_with_unavailable_endpoints());
    golden("status-unavailable", &fake.ctl(&["status"]).transcript());
    golden(
        "describe-service-unavailable",
        &fake.ctl(&["describe", "service", "chat"]).transcript(),
    );
}

#[test]
fn for_programs() {
    let fake = Fake::start(fixtures::mesh_with_unavailable_endpoints());
    let out = fake.ctl(&["status", "-o", "json"]).out;
    let status: Value = serde_json::from_str(&out).unwrap();
    let endpoints = status["unavailableEndpoints"].as_array().unwrap();
    assert_eq!(endpoints.len(), 2);
    assert_eq!(endpoints[0]["ejectedBy"], 2);
    assert_eq!(endpoints[1]["detail"], "status 500");
}
