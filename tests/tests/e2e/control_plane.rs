//! The control plane goes away and comes back; the mesh does not mind.

use std::time::Duration;

use outrigger_tests::load::Load;
use outrigger_tests::upstream::Http;
use outrigger_tests::{ControlPlane, Sidecar, eventually};

use crate::mesh::{Mesh, route, service};

async fn connected(sidecar: &Sidecar, wanted: bool) {
    eventually(
        &format!("connected: {wanted}"),
        Duration::from_secs(30),
        async || {
            let value = sidecar
                .metrics()
                .await
                .get("outrigger_control_plane_connected", &[]);
            if value == Some(f64::from(u8::from(wanted))) {
                Ok(())
            } else {
                Err(format!("{value:?}"))
            }
        },
    )
    .await;
}

#[tokio::test]
async fn traffic_goes_on_without_it_and_sidecars_converge_when_it_is_back() {
    let mut mesh = Mesh::start("").await;
    let load = Load::start(mesh.caller.outbound(), "chat", 6);
    load.runs(50).await;
    mesh.control_plane.kill9();
    connected(&mesh.caller, false).await;
    // Longer than the lease of the endpoints.
    tokio::time::sleep(Duration::from_secs(7)).await;
    load.runs(100).await;

    mesh.control_plane.restart().await;
    connected(&mesh.caller, true).await;
    connected(&mesh.server, true).await;
    load.runs(50).await;
    // What is announced lives on, also after a further lease.
    tokio::time::sleep(Duration::from_secs(6)).await;
    load.runs(50).await;
    load.stop().await.assert_no_failure();

    mesh.control_plane
        .apply(&route("new", "[{backendRefs: [{name: gone, port: 80}]}]"));
    eventually(
        "a change after the restart is in effect",
        Duration::from_secs(5),
        async || {
            let answer = mesh.caller.get("chat", "/").await;
            if answer.reason() == "no-endpoints" {
                Ok(())
            } else {
                Err(format!("{} {}", answer.status, answer.reason()))
            }
        },
    )
    .await;
    mesh.control_plane.ctl(&["status", "--wait", "5s"]);
}

#[tokio::test]
async fn what_changed_while_a_sidecar_was_away_reaches_it() {
    let mut mesh = Mesh::start("").await;
    mesh.control_plane.apply(&service("other", ""));
    assert_eq!(mesh.caller.get("other", "/").await.reason(), "no-endpoints");
    mesh.control_plane.kill9();
    mesh.control_plane.restart().await;
    // At once, while sidecars are perhaps still in their backoff.
    mesh.control_plane.ctl(&["delete", "service/other"]);
    eventually(
        "the deletion arrives",
        Duration::from_secs(30),
        async || {
            let answer = mesh.caller.get("other", "/").await;
            if answer.reason() == "no-route" {
                Ok(())
            } else {
                Err(format!("{} {}", answer.status, answer.reason()))
            }
        },
    )
    .await;
    assert_eq!(mesh.caller.reaches("chat").await.instance(), "chat");
}

#[tokio::test]
async fn a_sidecar_starts_from_its_last_good_config() {
    let mut control_plane = ControlPlane::start().await;
    control_plane.apply(&service("chat", ""));
    let app = Http::start("chat").await;
    let _server = Sidecar::serving(&control_plane, "chat:80", app.address()).await;
    let directory = tempfile::TempDir::new().unwrap();
    let start = async |control_plane: &ControlPlane, token: &str| {
        Sidecar::builder(control_plane, "caller")
            .token(token)
            .data_dir(directory.path().into())
            .start()
            .await
    };
    let token = control_plane.ctl(&["token", "create", "--service-account", "caller"]);
    let builder = Sidecar::builder(&control_plane, "caller")
        .token(token.trim())
        .data_dir(directory.path().into());
    let first = start(&control_plane, token.trim()).await;
    first.reaches("chat").await;
    // The config is written off the path of changes.
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(first);
    control_plane.kill9();
    let again = builder.start().await;
    assert_eq!(again.reaches("chat").await.instance(), "chat");
    control_plane.restart().await;
    connected(&again, true).await;
}
