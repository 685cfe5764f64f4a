#![allow(clippy::unwrap_used)]

use super::parse;

fn show(text: &str) -> String {
    let parsed = parse("f.yaml", text.as_bytes());
    parsed
        .problems
        .iter()
        .map(|problem| format!("{problem}\n"))
        .collect()
}

#[test]
fn try_out() {
    let text = r#"
apiVersion: outrigger.dev/v1alpha1
kind: Service
metadata: {name: Chat_1, lables: {a: 1}}
spec:
  hosts: [chat.models, "chat.models", "Chat.Models", "http://x/y", "a:80", "*.x.*"]
  ports:
  - {name: http, port: 80, protocol: htp}
  - {name: http, port: 80, protocol: http}
  - {port: "80"}
  - 443
  serviceAccounts: chat
  identities: ["spiffe://outrigger.local", "spiffe://outrigger.local/*"]
  endpoints:
    static:
    - {address: "localhost:8000", weight: 0}
    - {address: "0.0.0.0:8000", mtls: yes}
    - address: 10.0.0.5
      labels: {version: 1, 2: x}
      zone: a b
  loadBalancing: {policy: PeakEwma, ewmaDecay: 10}
  timeouts: {connect: 10, request: 5, streamIdle: 0s, idle: 3s}
  retry: {attempts: 100, codes: [200, 503, 503], methods: [get], backoff: 1s, maxBackoff: 10ms, onReset: "yes"}
---
apiVersion: outrigger.dev/v1
kind: route
metadata:
  name: r
  name: s
spec: {}
---
apiVersion: outrigger.dev/v1alpha1
kind: Route
metadata:
  name: r
spec:
  parentRefs: {name: x}
  hostnames: [*.example]
---
apiVersion: outrigger.dev/v1alpha1
kind: Route
metadata:
  name: r
spec:
  parentRefs:
  - {name: x, port: 99999}
  rules:
  - matches:
    - path: {type: Prefix, value: v1}
    - path: {value: v1}
      method: post
    - path: {type: RegularExpression, value: "a(b"}
      headers:
      - {name: ":authority", value: x}
      - {nam: "x y", value: ""}
    backendRefs: [{name: a, weight: 0}, {name: b, weight: 0}]
    timeouts: {request: -5s}
---
kind: Mesh
metadata: {name: foo, namespace: x}
---
kind: Workload
metadata: {name: x}
apiVersion: outrigger.dev/v1alpha1
---
- a: !secret b
  c: .inf
- 5
---
a: b
 c: d
"#;
    eprintln!("{}", show(text));
}
