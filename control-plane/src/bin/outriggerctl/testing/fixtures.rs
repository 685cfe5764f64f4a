//! A small mesh: a chat service in two versions with a canary route, served by two sidecars and called by a third.

use outrigger_control_plane::api::convert;
use outrigger_control_plane::model;
use outrigger_proto::api::v1::{
    ControlPlaneStatus, EndpointHealth, Rejection, Resource, Sidecar, SidecarSync,
};

use serde_json::json;

use super::{State, now};

pub const SERVICE: &str = r#"
apiVersion: outrigger.dev/v1alpha1
kind: Service
metadata: {name: chat, labels: {team: ml}}
spec:
  hosts: [chat.models, "*.chat.example"]
  ports:
  - {name: http, port: 80, protocol: http}
  - {port: 50051, protocol: grpc}
  serviceAccounts: [chat]
  endpoints:
    static:
    - {address: "10.0.0.5:8000", labels: {version: v1}}
  timeouts: {request: 2m, streamIdle: 30s}
"#;

pub const ROUTE: &str = r#"
apiVersion: outrigger.dev/v1alpha1
kind: Route
metadata: {name: chat-canary}
spec:
  parentRefs: [{name: chat, port: 80}]
  hostnames: [chat.models]
  rules:
  - name: gold
    matches:
    - path: {value: /v1}
      method: POST
      headers: [{name: x-tier, value: gold}]
    - path: {type: Exact, value: /gold}
    backendRefs: [{name: chat, subset: {version: v2}}]
    timeouts: {request: 30s, backendRequest: 10s}
    retry: {attempts: 2, methods: [GET, POST], grpcCodes: [unavailable]}
  - backendRefs:
    - {name: chat, weight: 90, subset: {version: v1}}
    - {name: chat, weight: 10, subset: {version: v2}}
"#;

pub const MESH: &str = r#"
apiVersion: outrigger.dev/v1alpha1
kind: Mesh
metadata: {name: default}
spec:
  trustDomain: outrigger.local
  mtls: {mode: strict}
  telemetry: {accessLog: errors}
"#;

const WORKLOAD: &str = r#"
apiVersion: outrigger.dev/v1alpha1
kind: Workload
metadata: {name: chat-1a2b3c4d}
spec:
  instance: 1a2b3c4d-0000-4000-8000-000000000000
  identity: spiffe://outrigger.local/ns/default/sa/chat
  address: 10.0.0.7:15006
  labels: {version: v2}
  endpoints:
  - {service: default/chat, port: 80, weight: 1, state: Ready}
"#;

/// A resource as the control plane stores it, created `seconds` before the tests' present.
pub fn stored(yaml: &str, seconds: i64) -> Resource {
    let resource: model::Resource = serde_yaml::from_str(yaml).unwrap();
    let mut resource = convert::to_message(&resource, None);
    let meta = resource.metadata.as_mut().unwrap();
    meta.generation = 1;
    meta.resource_version = "7".to_owned();
    meta.creation_timestamp = ago(seconds);
    resource
}

fn with_status(resource: Resource, status: serde_json::Value) -> Resource {
    Resource {
        status: convert::to_struct(&status),
        ..resource
    }
}

pub fn ago(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp {
        seconds: now().as_second() - seconds,
        nanos: 0,
    })
}

fn sidecar(account: &str, instance: &str, sync: SidecarSync) -> Sidecar {
    let connected = sync != SidecarSync::Disconnected;
    Sidecar {
        instance: format!("{instance}-0000-4000-8000-000000000000"),
        identity: format!("spiffe://outrigger.local/ns/default/sa/{account}"),
        version: "0.1.0".to_owned(),
        connected,
        connected_at: ago(300),
        last_seen: ago(if connected { 1 } else { 45 }),
        sync: sync.into(),
        sent_version: 42,
        acked_version: 42,
        ack_latency: Some(prost_types::Duration {
            seconds: 0,
            nanos: 1_234_000,
        }),
        certificate_expires_at: ago(-12 * 3600),
        ..Sidecar::default()
    }
}

pub fn mesh() -> State {
    let mut caller = sidecar("web", "cccccccc", SidecarSync::Synced);
    caller.subscriptions = vec!["host/chat.models".to_owned()];
    let mut first = sidecar("chat", "1a2b3c4d", SidecarSync::Pending);
    first.address = "10.0.0.7:15006".to_owned();
    first.serves = vec!["default/chat".to_owned()];
    first.acked_version = 41;
    first.ack_latency = None;
    let mut second = sidecar("chat", "5e6f7a8b", SidecarSync::Disconnected);
    second.address = "10.0.0.8:15006".to_owned();
    State {
        resources: vec![
            with_status(stored(MESH, 7200), json!({"acceptedBy": 2, "refusedBy": 0})),
            with_status(
                stored(SERVICE, 330),
                json!({"acceptedBy": 1, "refusedBy": 0, "endpoints": 2}),
            ),
            with_status(stored(ROUTE, 60), json!({"acceptedBy": 1, "refusedBy": 0})),
            stored(WORKLOAD, 300),
        ],
        sidecars: vec![second, caller, first],
        status: ControlPlaneStatus {
            version: "0.1.0".to_owned(),
            trust_domain: "outrigger.local".to_owned(),
            ca_fingerprint: "ab".repeat(32),
            ca_expires_at: ago(-10 * 365 * 24 * 3600),
            config_version: 42,
            connected_sidecars: 2,
            started_at: ago(7200),
            resources: [("Mesh", 1), ("Service", 1), ("Route", 1), ("Workload", 1)]
                .map(|(kind, count)| (kind.to_owned(), count))
                .into_iter()
                .collect(),
            endpoints: Vec::new(),
        },
        ..State::default()
    }
}

/// [`mesh`], with a caller that refused the chat service.
pub fn mesh_with_refusal() -> State {
    let mut state = mesh();
    for resource in &mut state.resources[1..3] {
        resource.status = convert::to_struct(&json!({"acceptedBy": 0, "refusedBy": 1}));
    }
    let caller = &mut state.sidecars[1];
    caller.set_sync(SidecarSync::Rejected);
    caller.rejections = vec![Rejection {
        resource: "service/default/chat".to_owned(),
        reason: "rules[0].matches[0].path: regex `(` does not compile: unclosed group".to_owned(),
        at: ago(20),
    }];
    state
}

/// [`mesh`], with outlier detection and a check, and endpoints of the chat service that sidecars keep away from.
pub fn mesh_with_unavailable_endpoints() -> State {
    let mut state = mesh();
    let watched = format!(
        "{SERVICE}{}",
        r#"  outlierDetection: {maxEjectionPercent: 50, minHealthyPercent: 30}
  healthChecks:
  - http: {path: /health, expectedStatuses: ["200", "300-399"]}
  - {grpc: {service: chat.v1.Chat}, port: 50051, interval: 5s}
"#
    );
    let unavailable = json!([
        {"address": "10.0.0.5:8000", "ejectedBy": 2, "unhealthyBy": 0, "probingBy": 0, "reporting": 3,
         "reason": "consecutive-5xx", "since": "2026-11-20T11:59:00Z"},
        {"address": "10.0.0.7:15006", "ejectedBy": 0, "unhealthyBy": 1, "probingBy": 0, "reporting": 3,
         "reason": "health-check", "detail": "status 500"},
    ]);
    state.resources[1] = with_status(
        stored(&watched, 330),
        json!({"acceptedBy": 1, "refusedBy": 0, "endpoints": 2, "unavailableEndpoints": unavailable}),
    );
    let endpoint = |address: &str, reason: &str| EndpointHealth {
        service: "default/chat".to_owned(),
        address: address.to_owned(),
        reporting: 3,
        reason: reason.to_owned(),
        since: ago(60),
        ..EndpointHealth::default()
    };
    state.status.endpoints = vec![
        EndpointHealth {
            ejected_by: 2,
            ..endpoint("10.0.0.5:8000", "consecutive-5xx")
        },
        EndpointHealth {
            unhealthy_by: 1,
            detail: "status 500".to_owned(),
            ..endpoint("10.0.0.7:15006", "health-check")
        },
    ];
    state
}
