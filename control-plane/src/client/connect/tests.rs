#![allow(clippy::unwrap_used)]

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::client::testing::{Authority, CONTROL_PLANE};

fn options() -> ConnectOptions {
    ConnectOptions::default()
}

/// Accepts one TLS connection with a certificate of `authority` for `uri`, and holds it.
async fn tls_server(authority: &Authority, uri: &str) -> String {
    let (leaf, key) = authority.issue(uri);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf, authority.root_der()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let stream = TlsAcceptor::from(Arc::new(config)).accept(tcp).await;
        std::future::pending::<()>().await;
        drop(stream);
    });
    address
}

#[tokio::test]
async fn a_refused_connection_names_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = channel(&Authority::new("root").context(address.clone()), &options())
        .await
        .unwrap_err();
    let refused = |e: &io::Error| e.kind() == io::ErrorKind::ConnectionRefused;
    assert!(
        matches!(&error, ConnectError::Tcp { server, source } if *server == address && refused(source)),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_server_of_another_ca_is_told_by_fingerprints() {
    let (pinned, other) = (Authority::new("root"), Authority::new("root"));
    let address = tls_server(&other, CONTROL_PLANE).await;
    let error = channel(&pinned.context(address), &options())
        .await
        .unwrap_err();
    let text = error.to_string();
    for root in [&pinned, &other] {
        assert!(
            text.contains(&crate::client::fingerprint(&root.root_der())),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_server_of_another_identity_is_told_by_its_id() {
    let authority = Authority::new("root");
    let address = tls_server(&authority, "spiffe://outrigger.local/ns/a/sa/b").await;
    let error = channel(&authority.context(address), &options())
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("spiffe://outrigger.local/ns/a/sa/b"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_without_tls_is_a_tls_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        std::future::pending::<()>().await;
    });
    let error = channel(&Authority::new("root").context(address), &options())
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
}

#[tokio::test]
async fn a_silent_server_is_given_up_on_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let timeout = Duration::from_millis(50);
    let options = ConnectOptions {
        timeout,
        server: Some(address.clone()),
    };
    let error = channel(
        &Authority::new("root").context("unused:1".to_owned()),
        &options,
    )
    .await
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("the control plane at {address} did not answer within 50ms")
    );
}

#[test]
fn addresses_need_a_port_and_nothing_else() {
    for good in ["127.0.0.1:15011", "control-plane:15011", "[::1]:15011"] {
        assert!(endpoint(good).is_ok(), "{good}");
    }
    for bad in ["127.0.0.1", "https://a:1", "a:1/path", "a:99999", "", ":"] {
        assert!(
            matches!(endpoint(bad), Err(ConnectError::Address(_))),
            "{bad}"
        );
    }
}
