#![allow(clippy::unwrap_used)]
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tonic::Status;

use super::{IdentityError, IdentityReceiver, Keeper};
use crate::config::JoinSource;
use crate::control::testing::fake::{Fake, ID, PATIENCE, token};
use crate::control::testing::shared;
use crate::identity::store;
use crate::shared::Shared;
use crate::tls::test_ca::TestCa;

fn open(fake: &Fake, token: Option<String>, dir: Option<&Path>) -> Result<Keeper, IdentityError> {
    Keeper::open(
        fake.address.to_string(),
        token.map(JoinSource::Token).as_ref(),
        dir.map(Path::to_owned),
    )
}

struct Running {
    shared: Arc<Shared>,
    identity: IdentityReceiver,
    task: tokio::task::JoinHandle<IdentityError>,
}

fn run(keeper: Keeper) -> Running {
    let (shared, _queue) = shared();
    let (sender, identity) = watch::channel(None);
    let task = tokio::spawn(keeper.run(shared.clone(), sender));
    Running {
        shared,
        identity,
        task,
    }
}

impl Running {
    async fn next(&mut self) {
        self.identity.borrow_and_update();
        tokio::time::timeout(PATIENCE, self.identity.changed())
            .await
            .expect("no identity came")
            .unwrap();
    }

    async fn ended(self) -> IdentityError {
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .unwrap()
            .unwrap()
    }
}

#[tokio::test]
async fn joins_and_renews_with_a_new_key_each_time() {
    let fake = Fake::start();
    fake.issuer.lifetime.store(2, Ordering::SeqCst);
    let keeper = open(&fake, Some(fake.issuer.token()), None).unwrap();
    assert_eq!(keeper.id().as_str(), ID);
    let mut running = run(keeper);
    running.next().await;
    let first = running.shared.tls.load_full().unwrap();
    assert_eq!(first.id.as_str(), ID);

    let begun = tokio::time::Instant::now();
    running.next().await;
    // 40 to 60 % of two seconds; the certificate's times are whole seconds.
    assert!(
        begun.elapsed() < Duration::from_millis(1900),
        "{:?}",
        begun.elapsed()
    );
    let second = running.shared.tls.load_full().unwrap();
    assert!(
        !Arc::ptr_eq(&first, &second),
        "the TLS state was not replaced"
    );

    let issued = fake.issuer.issued.lock().unwrap().clone();
    assert_eq!(
        issued
            .iter()
            .map(|(_, renewal)| *renewal)
            .collect::<Vec<_>>(),
        [false, true]
    );
    assert_ne!(issued[0].0, issued[1].0);
    assert!(!running.task.is_finished());
}

#[tokio::test]
async fn a_wrong_fingerprint_is_refused_and_final() {
    let fake = Fake::start();
    let other = token(TestCa::new().root_sha256());
    let error = run(open(&fake, Some(other), None).unwrap()).ended().await;
    let text = error.to_string();
    assert!(
        text.contains("fingerprint that the join token names"),
        "{text}"
    );
    assert!(!text.contains('\n'));
    assert!(fake.issuer.issued.lock().unwrap().is_empty());
    assert_eq!(
        fake.issuer.uses.load(Ordering::SeqCst),
        1,
        "the token was sent"
    );
}

#[tokio::test]
async fn a_used_up_token_is_final() {
    let fake = Fake::start();
    fake.issuer.uses.store(0, Ordering::SeqCst);
    let keeper = open(&fake, Some(fake.issuer.token()), None).unwrap();
    let error = run(keeper).ended().await.to_string();
    assert!(error.contains("used up"), "{error}");
    assert!(
        error.starts_with("cannot join the mesh as spiffe://"),
        "{error}"
    );
}

#[tokio::test]
async fn an_unreachable_or_unwell_control_plane_is_tried_again() {
    let fake = Fake::start();
    let (address, issuer) = (fake.address, fake.issuer.clone());
    drop(fake);
    *issuer.trouble.lock().unwrap() = Some(Status::unavailable("not yet"));
    let source = JoinSource::Token(issuer.token());
    let keeper = Keeper::open(address.to_string(), Some(&source), None).unwrap();
    let mut running = run(keeper);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!running.task.is_finished());
    // The address is free again once the old runtime has ended.
    let _fake = loop {
        if std::net::TcpListener::bind(address).is_ok() {
            break Fake::start_at(address, issuer.clone());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!running.task.is_finished());
    *issuer.trouble.lock().unwrap() = None;
    running.next().await;
    assert!(running.shared.tls.load().is_some());
}

#[tokio::test]
async fn a_stored_identity_is_used_and_the_token_is_kept() {
    let fake = Fake::start();
    let dir = tempfile::tempdir().unwrap();
    let mut running = run(open(&fake, Some(fake.issuer.token()), Some(dir.path())).unwrap());
    running.next().await;
    let stored = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(stored) = store::load(dir.path()).unwrap() {
                return stored;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let stored = stored.await.expect("nothing was stored");
    assert_eq!(stored.id.as_str(), ID);
    running.task.abort();
    assert_eq!(fake.issuer.issued.lock().unwrap().len(), 1);

    // With the token, used up by now, and without any.
    for again in [Some(fake.issuer.token()), None] {
        let mut running = run(open(&fake, again, Some(dir.path())).unwrap());
        running.next().await;
        assert_eq!(
            running.identity.borrow().as_ref().unwrap().chain,
            stored.chain
        );
    }
    assert_eq!(
        fake.issuer.issued.lock().unwrap().len(),
        1,
        "nothing was issued"
    );
}

#[tokio::test]
async fn an_ended_identity_needs_a_token() {
    let fake = Fake::start();
    let dir = tempfile::tempdir().unwrap();
    store::save(dir.path(), &fake.issuer.ca.identity_for(ID, (-120, -60))).unwrap();
    let error = open(&fake, None, Some(dir.path())).unwrap_err();
    assert!(matches!(error, IdentityError::Ended(_)), "{error}");
    let mut running = run(open(&fake, Some(fake.issuer.token()), Some(dir.path())).unwrap());
    running.next().await;
    assert!(!running.identity.borrow().as_ref().unwrap().is_expired());
}

#[tokio::test]
async fn another_identity_than_the_tokens_is_not_used() {
    let fake = Fake::start();
    let dir = tempfile::tempdir().unwrap();
    let other = fake
        .issuer
        .ca
        .identity("spiffe://outrigger.local/ns/default/sa/other");
    store::save(dir.path(), &other).unwrap();
    let keeper = open(&fake, Some(fake.issuer.token()), Some(dir.path())).unwrap();
    assert_eq!(keeper.id().as_str(), ID);
    let mut running = run(keeper);
    running.next().await;
    assert_eq!(running.identity.borrow().as_ref().unwrap().id.as_str(), ID);
}

#[tokio::test]
async fn nothing_to_start_with_is_an_error() {
    let fake = Fake::start();
    assert!(matches!(
        open(&fake, None, None),
        Err(IdentityError::Nothing)
    ));
    let missing = JoinSource::File("/nonexistent/token".into());
    let error = Keeper::open(fake.address.to_string(), Some(&missing), None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot read the join token from /nonexistent/token: No such file or directory (os error 2)"
    );
}

#[tokio::test]
async fn a_renewal_that_fails_keeps_the_identity_and_goes_on() {
    let fake = Fake::start();
    fake.issuer.lifetime.store(4, Ordering::SeqCst);
    // On a busy machine the certificate may end before the next try: then the token has to do.
    fake.issuer.uses.store(2, Ordering::SeqCst);
    let mut running = run(open(&fake, Some(fake.issuer.token()), None).unwrap());
    running.next().await;
    let first = running.shared.tls.load_full().unwrap();
    *fake.issuer.trouble.lock().unwrap() = Some(Status::permission_denied("no"));
    tokio::time::sleep(Duration::from_millis(2700)).await;
    assert!(!running.task.is_finished());
    assert!(Arc::ptr_eq(
        &first,
        &running.shared.tls.load_full().unwrap()
    ));
    *fake.issuer.trouble.lock().unwrap() = None;
    running.next().await;
    assert!(!running.task.is_finished());
}
