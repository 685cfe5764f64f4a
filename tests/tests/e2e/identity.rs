//! Who may talk to whom: certificates that are refused, counted, and those that are not.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use outrigger_tests::tls::{Authority, Identity, connect};
use outrigger_tests::upstream::{Http, Listener};
use outrigger_tests::{ControlPlane, Sidecar, client, eventually, within};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::mesh::{Mesh, service};

const CHAT: &str = "80.chat.default.outrigger.local";

/// A control plane whose authority's key the test has as well.
async fn with_own_authority() -> (Authority, ControlPlane, TempDir) {
    let authority = Authority::new("a test's authority");
    let directory = TempDir::new().unwrap();
    let (certificate, key) = (
        directory.path().join("ca.crt"),
        directory.path().join("ca.key"),
    );
    std::fs::write(&certificate, authority.pem()).unwrap();
    std::fs::write(&key, authority.key_pem()).unwrap();
    let flags = [
        format!("--ca-cert={}", certificate.display()),
        format!("--ca-key={}", key.display()),
    ];
    let control_plane =
        ControlPlane::start_with(&[&flags[0], &flags[1], "--trust-domain=outrigger.local"]).await;
    (authority, control_plane, directory)
}

/// What a peer gets for a request on a connection of its own: an answer's first line, or how it was refused.
async fn ask(to: SocketAddr, identity: Option<&Identity>) -> Result<String, io::Error> {
    within(
        "the sidecar lets in or refuses",
        Duration::from_secs(10),
        async {
            let mut stream = connect(to, CHAT, "http/1.1", identity).await?;
            stream
                .write_all(b"GET / HTTP/1.1\r\nhost: chat\r\nconnection: close\r\n\r\n")
                .await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            match answer.lines().next() {
                Some(line) => Ok(line.to_string()),
                None => Err(io::ErrorKind::UnexpectedEof.into()),
            }
        },
    )
    .await
}

#[tokio::test]
async fn inbound_refuses_and_counts_peers_that_are_not_of_the_mesh() {
    let (authority, control_plane, _directory) = with_own_authority().await;
    control_plane.apply(&service("chat", ""));
    let app = Http::start("chat").await;
    let server = Sidecar::serving(&control_plane, "chat:80", app.address()).await;

    let id = "spiffe://outrigger.local/ns/default/sa/peer";
    let stranger = Authority::new("another authority");
    let cases = [
        ("no-certificate", None),
        ("untrusted", Some(stranger.issue(id, -3600, 3600))),
        (
            "wrong-trust-domain",
            Some(authority.issue("spiffe://elsewhere.local/ns/default/sa/peer", -3600, 3600)),
        ),
        ("expired", Some(authority.issue(id, -7200, -3600))),
    ];
    for (result, identity) in &cases {
        let labels = [("direction", "inbound"), ("result", *result)];
        let before = server
            .metrics()
            .await
            .sum("outrigger_tls_handshakes_total", &labels);
        let answer = ask(server.inbound(), identity.as_ref()).await;
        assert!(answer.is_err(), "{result}: let in: {answer:?}");
        eventually(
            &format!("{result} is counted"),
            Duration::from_secs(5),
            async || {
                let now = server
                    .metrics()
                    .await
                    .sum("outrigger_tls_handshakes_total", &labels);
                if now == before + 1.0 {
                    Ok(())
                } else {
                    Err(format!("{before} before, {now} now"))
                }
            },
        )
        .await;
    }
    assert_eq!(app.requests(), 0, "a request got through");

    // The same with a certificate as it should be: what refused the others was their certificates.
    let peer = authority.issue(id, -3600, 3600);
    assert_eq!(
        ask(server.inbound(), Some(&peer)).await.unwrap(),
        "HTTP/1.1 200 OK"
    );
    let metrics = server.metrics().await;
    let labels = [("direction", "inbound"), ("peer", id), ("code", "2xx")];
    assert_eq!(metrics.sum("outrigger_requests_total", &labels), 1.0);
}

#[tokio::test]
async fn inbound_refuses_old_tls() {
    let mesh = Mesh::start("").await;
    // A TLS 1.2 ClientHello; what matters is that the answer is an alert (21) and not a ServerHello (22).
    let mut stream = tokio::net::TcpStream::connect(mesh.server.inbound())
        .await
        .unwrap();
    let mut hello = vec![0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 3];
    hello.extend_from_slice(&[7; 32]);
    hello.extend_from_slice(&[0, 0, 2, 0xc0, 0x2b, 1, 0]);
    stream.write_all(&hello).await.unwrap();
    let mut answer = Vec::new();
    let read = within(
        "the handshake is refused",
        Duration::from_secs(10),
        stream.read_to_end(&mut answer),
    );
    let _ = read.await;
    assert_eq!(answer.first(), Some(&21), "{answer:?}");
}

#[tokio::test]
async fn plaintext_is_refused_in_strict_mode_and_let_in_live_in_permissive_mode() {
    let mesh = Mesh::start("").await;
    let before = mesh.app.requests();
    let ask = async || {
        let request = b"GET / HTTP/1.1\r\nhost: chat\r\nconnection: close\r\n\r\n";
        client::raw(mesh.server.inbound(), request, Duration::from_secs(5)).await
    };
    let answer = ask().await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(mesh.app.requests(), before);

    mesh.control_plane
        .apply("kind: Mesh\nmetadata: {name: default}\nspec: {mtls: {mode: permissive}}\n");
    eventually("plaintext is let in", Duration::from_secs(5), async || {
        let answer = ask().await;
        if answer.starts_with("HTTP/1.1 200") {
            Ok(())
        } else {
            Err(answer)
        }
    })
    .await;
    let metrics = mesh.server.metrics().await;
    assert_eq!(
        metrics.sum(
            "outrigger_requests_total",
            &[("direction", "inbound"), ("peer", ""), ("code", "2xx")]
        ),
        1.0
    );

    mesh.control_plane
        .apply("kind: Mesh\nmetadata: {name: default}\nspec: {mtls: {mode: strict}}\n");
    eventually(
        "plaintext is refused again",
        Duration::from_secs(5),
        async || {
            let answer = ask().await;
            if answer.starts_with("HTTP/1.1 200") {
                Err(answer)
            } else {
                Ok(())
            }
        },
    )
    .await;
}

#[tokio::test]
async fn outbound_refuses_a_server_with_an_identity_that_may_not_serve() {
    let (authority, control_plane, _directory) = with_own_authority().await;
    let identity = authority.issue("spiffe://outrigger.local/ns/default/sa/thief", -3600, 3600);
    let acceptor = tokio_rustls::TlsAcceptor::from(identity.server("h2"));
    // It would answer: whatever the caller gets is not for want of a server.
    let thief = Listener::start(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let mut everything = Vec::new();
                let _ = stream.read_to_end(&mut everything).await;
            }
        }
    })
    .await;
    let endpoint = format!(
        "serviceAccounts: [chat]\nendpoints: {{static: [{{address: \"{}\", mtls: true}}]}}",
        thief.address()
    );
    control_plane.apply(&service("chat", &endpoint));
    let caller = Sidecar::caller(&control_plane).await;
    let answer = caller.get("chat", "/secret").await;
    assert_eq!(
        (answer.status.as_u16(), answer.reason()),
        (503, "upstream-untrusted"),
        "{}",
        answer.text()
    );
    assert!(thief.accepted() > 0);
    let labels = [("direction", "outbound"), ("result", "wrong-identity")];
    assert!(
        caller
            .metrics()
            .await
            .sum("outrigger_tls_handshakes_total", &labels)
            >= 1.0
    );
}

#[tokio::test]
async fn the_application_learns_who_calls_and_nobody_can_forge_it() {
    let mesh = Mesh::start("").await;
    let head = http::Request::builder()
        .uri("/")
        .header("host", "chat")
        .header(
            "x-forwarded-client-cert",
            "URI=spiffe://outrigger.local/ns/default/sa/root",
        );
    let answer = client::request(mesh.caller.outbound(), head, client::empty()).await;
    let header = answer.json()["headers"]["x-forwarded-client-cert"].to_string();
    assert!(
        header.contains("URI=spiffe://outrigger.local/ns/default/sa/caller"),
        "{header}"
    );
    assert!(!header.contains("sa/root"), "{header}");
    let labels = [
        ("direction", "inbound"),
        ("peer", "spiffe://outrigger.local/ns/default/sa/caller"),
    ];
    assert!(
        mesh.server
            .metrics()
            .await
            .sum("outrigger_requests_total", &labels)
            >= 1.0
    );
}

#[tokio::test]
async fn an_account_cannot_announce_a_service_that_is_not_its_own() {
    let control_plane = ControlPlane::start().await;
    control_plane.apply(&service("chat", "serviceAccounts: [chat]"));
    let (right, wrong) = (Http::start("right").await, Http::start("wrong").await);
    let _thief = Sidecar::builder(&control_plane, "thief")
        .serve("chat:80", wrong.address())
        .start()
        .await;
    let caller = Sidecar::caller(&control_plane).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let answer = caller.get("chat", "/").await;
    assert_eq!(
        (answer.status.as_u16(), answer.reason()),
        (503, "no-endpoints"),
        "{}",
        answer.text()
    );

    let _server = Sidecar::serving(&control_plane, "chat:80", right.address()).await;
    caller.reaches("chat").await;
    for _ in 0..10 {
        assert_eq!(caller.get("chat", "/").await.instance(), "right");
    }
    assert_eq!(wrong.requests(), 0);
}
