//! How a sidecar gets its identity.

use std::time::Duration;

use outrigger_tests::{ControlPlane, Sidecar, client, eventually};

/// Starts a sidecar that must not become ready, and returns what it logged or how it ended.
async fn refused(control_plane: &ControlPlane, token: &str) -> String {
    let mut sidecar = Sidecar::builder(control_plane, "chat")
        .token(token)
        .without_waiting()
        .start()
        .await;
    eventually(
        "the sidecar says why it cannot join",
        Duration::from_secs(15),
        async || {
            let ended = sidecar.process().status();
            let log = sidecar.process().stderr();
            if ended.is_some() || log.contains("WARN") || log.contains("ERROR") {
                Ok(())
            } else {
                Err(log)
            }
        },
    )
    .await;
    if sidecar.process().status().is_none() {
        let address = sidecar.metrics_address();
        let head = http::Request::builder()
            .uri("/ready")
            .header("host", address.to_string());
        match client::try_request(address, head, client::empty()).await {
            Ok(answer) => assert_eq!(answer.status, 503, "ready without an identity"),
            // It was about to end.
            Err(_) => {
                sidecar.process().exited(Duration::from_secs(5)).await;
            }
        }
    }
    sidecar.process().stderr()
}

fn create(control_plane: &ControlPlane, arguments: &[&str]) -> String {
    let mut all = vec!["token", "create", "--service-account", "chat"];
    all.extend_from_slice(arguments);
    control_plane.ctl(&all).trim().to_string()
}

#[tokio::test]
async fn a_token_is_for_as_many_sidecars_as_it_says() {
    let control_plane = ControlPlane::start().await;
    let token = create(&control_plane, &["--max-uses", "2"]);
    let _first = Sidecar::builder(&control_plane, "chat")
        .token(&token)
        .start()
        .await;
    let _second = Sidecar::builder(&control_plane, "chat")
        .token(&token)
        .start()
        .await;
    refused(&control_plane, &token).await;
}

#[tokio::test]
async fn a_revoked_or_forged_or_foreign_token_is_refused() {
    let (control_plane, other) = tokio::join!(ControlPlane::start(), ControlPlane::start());

    let revoked = create(&control_plane, &[]);
    let list: serde_json::Value =
        serde_json::from_str(&control_plane.ctl(&["token", "list", "-o", "json"])).unwrap();
    let tokens = list
        .as_array()
        .or_else(|| list["tokens"].as_array())
        .unwrap();
    let id = tokens[0]["id"].as_str().unwrap();
    control_plane.ctl(&["token", "delete", id]);
    refused(&control_plane, &revoked).await;

    // Signed on by another authority: the sidecar must not even send the secret.
    let foreign = create(&other, &[]);
    let log = refused(&control_plane, &foreign).await;
    let secret = foreign.rsplit('.').next().unwrap();
    assert!(!log.contains(secret), "the log has the token's secret");

    refused(&control_plane, "outrigger-join-v1.bm90IGpzb24").await;
    refused(&control_plane, "something else").await;
}

#[tokio::test]
async fn the_identity_survives_a_restart_without_a_token() {
    let control_plane = ControlPlane::start().await;
    let directory = tempfile::TempDir::new().unwrap();
    let token = create(&control_plane, &["--max-uses", "1"]);
    let start = async || {
        Sidecar::builder(&control_plane, "chat")
            .token(&token)
            .data_dir(directory.path().into())
            .start()
            .await
    };
    drop(start().await);
    // The token is used up: it is the identity on disk that lets it in again.
    let _again = start().await;
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        use std::os::unix::fs::PermissionsExt;
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        if entry.path().is_file()
            && std::fs::read_to_string(entry.path()).is_ok_and(|text| text.contains("PRIVATE KEY"))
        {
            assert_eq!(mode, 0o600, "{}", entry.path().display());
        }
    }
}
