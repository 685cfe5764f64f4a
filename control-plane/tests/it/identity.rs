use outrigger_proto::identity::v1 as identity;
use rcgen::{CertificateParams, KeyPair, SanType};
use tonic::Code;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use crate::harness::{Mesh, request};

#[tokio::test]
async fn a_sidecar_joins_and_learns_whom_to_trust() {
    let mesh = Mesh::start().await;
    let credentials = mesh.join("chat").await;
    let bundle = credentials.response.trust_bundle.clone().unwrap();
    assert_eq!(bundle.trust_domain, "outrigger.local");
    assert_eq!(bundle.roots_der.len(), 1);
    let asked = mesh
        .identity(None)
        .await
        .get_trust_bundle(identity::GetTrustBundleRequest {})
        .await
        .unwrap();
    assert_eq!(asked.into_inner(), bundle);
}

#[tokio::test]
async fn in_intermediate_mode_the_chain_comes_without_the_root() {
    let mesh = Mesh::start_with(&["--ca-mode=intermediate"]).await;
    let credentials = mesh.join("chat").await;
    assert_eq!(credentials.chain.len(), 2);
    let bundle = credentials.response.trust_bundle.clone().unwrap();
    assert!(
        credentials
            .chain
            .iter()
            .all(|it| **it != bundle.roots_der[0][..])
    );
    // And it is good enough to renew with.
    let request = request(&KeyPair::generate().unwrap(), None);
    let mut client = mesh.identity(Some(&credentials)).await;
    client.issue_certificate(request).await.unwrap();
}

#[tokio::test]
async fn renewal_keeps_the_identity_whatever_is_asked_for() {
    let mesh = Mesh::start().await;
    let credentials = mesh.join("chat").await;
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["anything.example".to_owned()]).unwrap();
    let admin = "spiffe://outrigger.local/ns/outrigger-system/sa/admin";
    params
        .subject_alt_names
        .push(SanType::URI(admin.try_into().unwrap()));
    let csr = params.serialize_request(&key).unwrap();
    let request = identity::IssueCertificateRequest {
        csr_der: csr.der().to_vec(),
        attestation: None,
        lifetime_seconds: 60,
    };
    let mut client = mesh.identity(Some(&credentials)).await;
    let response = client
        .issue_certificate(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        response.spiffe_id,
        "spiffe://outrigger.local/ns/default/sa/chat"
    );
    let (_, certificate) = X509Certificate::from_der(&response.certificate_chain_der[0]).unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    let names = &names.value.general_names;
    assert!(
        matches!(&names[..], [GeneralName::URI(uri)] if *uri == response.spiffe_id),
        "{names:?}"
    );
    let (before, after) = (response.not_before.unwrap(), response.not_after.unwrap());
    // A minute, and five backdated.
    assert!((358..=362).contains(&(after.seconds - before.seconds)));
}

#[tokio::test]
async fn a_token_sent_along_with_a_certificate_is_not_used_up() {
    let mesh = Mesh::start().await;
    let credentials = mesh.join("chat").await;
    let token = mesh.token("chat", 1).await;
    let mut client = mesh.identity(Some(&credentials)).await;
    let key = KeyPair::generate().unwrap();
    client
        .issue_certificate(request(&key, Some(&token)))
        .await
        .unwrap();
    mesh.join_with(&token).await.map(drop).unwrap();

    let other = mesh.token("billing", 1).await;
    let error = client
        .issue_certificate(request(&key, Some(&other)))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied, "{error}");
}

#[tokio::test]
async fn without_attestation_there_is_no_certificate() {
    let mesh = Mesh::start().await;
    let mut client = mesh.identity(None).await;
    let request = request(&KeyPair::generate().unwrap(), None);
    let error = client.issue_certificate(request).await.unwrap_err();
    assert_eq!(error.code(), Code::Unauthenticated);
    assert!(
        error.message().contains("outriggerctl token create"),
        "{error}"
    );
}

#[tokio::test]
async fn a_stolen_public_key_is_not_enough() {
    let mesh = Mesh::start().await;
    let token = mesh.token("chat", 1).await;
    let mut stolen = request(&KeyPair::generate().unwrap(), Some(&token));
    // Another signature over the same content.
    let last = stolen.csr_der.len() - 1;
    stolen.csr_der[last] ^= 1;
    let mut client = mesh.identity(None).await;
    let error = client.issue_certificate(stolen).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("signature"), "{error}");
}
