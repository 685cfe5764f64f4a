use std::time::Duration;

use outrigger_proto::api::v1 as api;
use outrigger_proto::identity::v1::issue_certificate_request::Attestation;
use rcgen::KeyPair;
use tonic::Code;

use crate::harness::{Mesh, decode, request};

#[tokio::test(flavor = "multi_thread")]
async fn of_joins_that_race_for_a_single_use_token_exactly_one_wins() {
    let mesh = Mesh::start().await;
    let token = mesh.token("chat", 1).await;
    let attempts = (0..12).map(|_| mesh.join_with(&token));
    let results = futures_util::future::join_all(attempts).await;
    let won = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(won, 1);
    for error in results.into_iter().filter_map(Result::err) {
        assert_eq!(error.code(), Code::Unauthenticated);
        assert!(error.message().contains("used up"), "{error}");
    }
}

#[tokio::test]
async fn a_token_gives_so_many_certificates_and_no_more() {
    let mesh = Mesh::start().await;
    let token = mesh.token("chat", 3).await;
    for _ in 0..3 {
        mesh.join_with(&token).await.map(drop).unwrap();
    }
    let error = mesh.join_with(&token).await.map(drop).unwrap_err();
    assert_eq!(error.code(), Code::Unauthenticated);
    let tokens = mesh
        .client
        .tokens()
        .list_tokens(api::ListTokensRequest {})
        .await
        .unwrap();
    let info = &tokens.get_ref().tokens[0];
    assert_eq!((info.uses, info.max_uses), (3, 3));
    assert_eq!(
        info.spiffe_id,
        "spiffe://outrigger.local/ns/default/sa/chat"
    );
}

#[tokio::test]
async fn a_request_that_is_refused_does_not_use_the_token_up() {
    let mesh = Mesh::start().await;
    let token = mesh.token("chat", 1).await;
    let mut broken = request(&KeyPair::generate().unwrap(), Some(&token));
    broken.csr_der.truncate(40);
    let mut client = mesh.identity(None).await;
    let error = client.issue_certificate(broken).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    mesh.join_with(&token).await.map(drop).unwrap();
}

#[tokio::test]
async fn expired_tokens_are_refused() {
    let mesh = Mesh::start().await;
    let ttl = Some(prost_types::Duration {
        seconds: 0,
        nanos: 100_000_000,
    });
    let create = api::CreateTokenRequest {
        service_account: "chat".to_owned(),
        ttl,
        ..Default::default()
    };
    let token = mesh
        .client
        .tokens()
        .create_token(create)
        .await
        .unwrap()
        .into_inner()
        .token;
    tokio::time::sleep(Duration::from_millis(150)).await;
    let error = mesh.join_with(&token).await.map(drop).unwrap_err();
    assert_eq!(error.code(), Code::Unauthenticated);
    assert!(error.message().contains("expired"), "{error}");
}

#[tokio::test]
async fn wrong_secrets_unknown_ids_and_revoked_tokens_look_the_same() {
    let mesh = Mesh::start().await;
    let token = mesh.token("chat", 5).await;
    let other = mesh.token("chat", 5).await;
    let mut wrong_secret = decode(&token);
    wrong_secret.secret = decode(&other).secret;
    let mut unknown = decode(&token);
    unknown.id = "0123456789abcdef".to_owned();
    let id = decode(&other).id;
    mesh.client
        .tokens()
        .delete_token(api::DeleteTokenRequest { id: id.clone() })
        .await
        .unwrap();
    let mut messages = Vec::new();
    for token in [wrong_secret.encode(), unknown.encode(), other] {
        let error = mesh.join_with(&token).await.map(drop).unwrap_err();
        assert_eq!(error.code(), Code::Unauthenticated);
        messages.push(error.message().to_owned());
    }
    messages.dedup();
    assert_eq!(messages.len(), 1, "{messages:?}");
    let again = mesh
        .client
        .tokens()
        .delete_token(api::DeleteTokenRequest { id })
        .await;
    assert_eq!(again.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn what_a_token_says_of_its_identity_does_not_count() {
    let mesh = Mesh::start().await;
    let mut bent = decode(&mesh.token("chat", 1).await);
    bent.id_for = "spiffe://outrigger.local/ns/outrigger-system/sa/admin".to_owned();
    let credentials = mesh.join_with(&bent.encode()).await.unwrap();
    assert_eq!(
        credentials.response.spiffe_id,
        "spiffe://outrigger.local/ns/default/sa/chat"
    );
}

#[tokio::test]
async fn tokens_survive_a_restart_and_so_does_what_was_used() {
    let mut mesh = Mesh::start().await;
    let token = mesh.token("chat", 2).await;
    mesh.join_with(&token).await.map(drop).unwrap();
    mesh.restart().await;
    mesh.join_with(&token).await.map(drop).unwrap();
    mesh.join_with(&token).await.map(drop).unwrap_err();
}

#[tokio::test]
async fn senseless_tokens_are_not_made() {
    let mesh = Mesh::start().await;
    let days = |days: i64| {
        Some(prost_types::Duration {
            seconds: days * 24 * 3600,
            nanos: 0,
        })
    };
    let create = |account: &str, namespace: &str, ttl, max_uses| api::CreateTokenRequest {
        namespace: namespace.to_owned(),
        service_account: account.to_owned(),
        ttl,
        max_uses,
    };
    for request in [
        create("", "", None, 0),
        create("Chat", "", None, 0),
        create("chat", "a/b", None, 0),
        create("chat", "", days(31), 0),
        create("chat", "", days(0), 0),
        create("chat", "", days(-1), 0),
        create("chat", "", None, u32::MAX),
        create("control-plane", "outrigger-system", None, 0),
    ] {
        let text = format!("{request:?}");
        let error = mesh
            .client
            .tokens()
            .create_token(request)
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{text}");
    }
}

#[tokio::test]
async fn a_token_of_another_mesh_is_told_apart() {
    let (one, other) = (Mesh::start().await, Mesh::start().await);
    let token = one.token("chat", 1).await;
    let error = other.join_with(&token).await.map(drop).unwrap_err();
    assert_eq!(error.code(), Code::Unauthenticated);
    assert!(error.message().contains("another mesh"), "{error}");
    let mut client = other.identity(None).await;
    let mut none = request(&KeyPair::generate().unwrap(), None);
    none.attestation = Some(Attestation::JoinToken("hunter2".to_owned()));
    let error = client.issue_certificate(none).await.unwrap_err();
    assert!(error.message().contains("outrigger-join-v1."), "{error}");
}
