use std::net::SocketAddr;

use outrigger_tests::{ControlPlane, Sidecar, binary};
use tempfile::TempDir;

use super::{Running, version_of};
use crate::wire::Target;

pub(super) fn version() -> String {
    let program = binary("outrigger-proxy");
    version_of(&program, "--version").unwrap_or_else(|error| panic!("{error}"))
}

/// As shipped: all defaults, metrics on. `more` goes into the service's spec.
pub(super) async fn start(application: SocketAddr, core: usize, more: &str) -> Running {
    let control_plane = ControlPlane::start().await;
    control_plane.apply(&format!(
        "kind: Service\nmetadata: {{name: bench}}\nspec: {{ports: [{{port: 80, protocol: http}}]{more}}}\n"
    ));
    let far = Sidecar::builder(&control_plane, "bench")
        .serve("bench:80", application)
        .core(core)
        .start()
        .await;
    let near = Sidecar::builder(&control_plane, "caller")
        .core(core)
        .start()
        .await;
    let running = Running {
        target: Target {
            address: near.outbound(),
            host: "bench".to_string(),
        },
        direct_http2: None,
        processes: Vec::new(),
        sidecars: vec![far, near],
        _control_plane: Some(control_plane),
        _directory: TempDir::new().expect("the temporary directory is writable"),
    };
    running.answers().await;
    running
}
