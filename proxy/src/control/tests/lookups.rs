//! Hosts met for the first time.
#![allow(clippy::unwrap_used)]

use outrigger_proto::dataplane::v1 as wire;
use wire::discover_request::Message as Up;

use super::super::lookup::PATIENCE as LOOKUP;
use super::super::subscriptions::MAX_LOOKED_UP;
use super::*;

fn ask(side: &Side, authority: &str) -> tokio::task::JoinHandle<Option<HostEntry>> {
    let shared = side.shared.clone();
    let authority = authority.to_owned();
    tokio::spawn(async move { shared.lookups.host(&shared, &authority).await })
}

fn gone(version: u64, name: &str) -> wire::Delta {
    let mut delta = delta(version, Vec::new());
    delta.removed.push(name.into());
    delta
}

#[tokio::test]
async fn a_host_is_looked_up_once_for_all_who_wait() {
    let mut fake = Fake::start();
    let side = start(&fake, settings(&fake));
    let mut stream = stream(&mut fake).await;
    let waiting = [ask(&side, "chat"), ask(&side, "CHAT"), ask(&side, "chat")];
    assert_eq!(stream.subscribe().await.names, ["host/chat"]);
    stream.delta(chat(1)).await;
    for one in waiting {
        let Some(HostEntry::Service { service, port }) = one.await.unwrap() else {
            panic!("not found")
        };
        assert_eq!((&*service.name, port), ("default/chat", 80));
    }
    // Nothing more was asked for.
    let heartbeat = stream
        .find(|up| matches!(up, Up::Heartbeat(_) | Up::Subscribe(_)))
        .await;
    assert!(matches!(heartbeat, Up::Heartbeat(_)));
    assert!(ask(&side, "chat").await.unwrap().is_some());
}

#[tokio::test]
async fn an_absent_host_is_answered_at_once_and_found_when_it_comes() {
    let mut fake = Fake::start();
    let side = start(&fake, settings(&fake));
    let mut stream = stream(&mut fake).await;
    let waiting = ask(&side, "chat");
    stream.subscribe().await;
    stream.delta(gone(1, "host/chat")).await;
    assert!(matches!(waiting.await.unwrap(), Some(HostEntry::Absent)));
    assert!(matches!(
        ask(&side, "chat").await.unwrap(),
        Some(HostEntry::Absent)
    ));
    // Created late.
    stream.delta(chat(2)).await;
    assert!(has_host(&side.shared.snapshot.load(), "chat"));
}

#[tokio::test]
async fn no_answer_is_not_waited_for_without_end() {
    let mut fake = Fake::start();
    let side = start(&fake, settings(&fake));
    let mut stream = stream(&mut fake).await;
    let begun = std::time::Instant::now();
    let waiting = ask(&side, "chat");
    stream.subscribe().await;
    assert!(waiting.await.unwrap().is_none());
    assert!(begun.elapsed() >= LOOKUP && begun.elapsed() < LOOKUP * 2);
}

#[tokio::test]
async fn a_refused_service_does_not_make_requests_wait() {
    let mut fake = Fake::start();
    let side = start(&fake, settings(&fake));
    let mut stream = stream(&mut fake).await;
    let waiting = ask(&side, "chat");
    stream.subscribe().await;
    let mut bad = chat(1);
    if let Some(wire::resource::Body::Service(service)) = &mut bad.resources[2].body {
        service.server_identities.clear();
    }
    let begun = std::time::Instant::now();
    assert!(matches!(stream.delta(bad).await, Up::Nack(_)));
    assert!(waiting.await.unwrap().is_none());
    assert!(ask(&side, "chat").await.unwrap().is_none());
    assert!(begun.elapsed() < LOOKUP / 2);
}

#[tokio::test]
async fn what_is_asked_while_nobody_answers_is_asked_of_the_next_stream() {
    let fake = Fake::start();
    let (address, issuer) = (fake.address, fake.issuer.clone());
    let side = start(&fake, settings(&fake));
    drop(fake);
    let waiting = ask(&side, "chat");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut fake = again(address, issuer).await;
    let mut stream = stream(&mut fake).await;
    assert_eq!(stream.subscribe().await.names, ["host/chat"]);
    stream.delta(chat(1)).await;
    assert!(waiting.await.unwrap().is_some());
}

#[tokio::test]
async fn services_of_listeners_are_subscribed_from_the_start() {
    let mut fake = Fake::start();
    let called = Settings {
        called: vec!["data/db".into()],
        ..settings(&fake)
    };
    let side = start(&fake, called);
    let mut stream = stream(&mut fake).await;
    assert_eq!(stream.subscribe().await.names, ["service/data/db"]);
    stream.delta(gone(1, "service/data/db")).await;
    let shared = &side.shared;
    assert!(shared.lookups.service(shared, "data/db").await.is_none());
    stream.delta(delta(2, vec![service("data", "db", 2)])).await;
    let found = shared.lookups.service(shared, "data/db").await;
    assert_eq!(&*found.unwrap().name, "data/db");
}

#[tokio::test]
async fn made_up_hosts_are_bounded() {
    let mut fake = Fake::start();
    let side = start(&fake, settings(&fake));
    let mut stream = stream(&mut fake).await;
    let waiting = ask(&side, "chat");
    stream.subscribe().await;
    stream.delta(chat(1)).await;
    waiting.await.unwrap().unwrap();

    let (mut subscribed, mut unsubscribed) = (1, std::collections::HashSet::new());
    let flood = {
        let shared = side.shared.clone();
        tokio::spawn(async move {
            let asked = (0..MAX_LOOKED_UP + 100).map(|number| {
                let shared = shared.clone();
                tokio::spawn(async move {
                    let host = format!("made-up-{number}");
                    shared.lookups.host(&shared, &host).await
                })
            });
            let asked: Vec<_> = asked.collect();
            for one in asked {
                let _ = one.await;
            }
        })
    };
    while unsubscribed.is_empty() || subscribed < MAX_LOOKED_UP + 101 {
        let subscribe = stream.subscribe().await;
        subscribed += subscribe.names.len();
        let mut delta = delta(2, Vec::new());
        delta.removed.clone_from(&subscribe.names);
        unsubscribed.extend(subscribe.unsubscribe);
        if !delta.removed.is_empty() {
            stream
                .send(wire::discover_response::Message::Delta(delta))
                .await;
        }
    }
    flood.abort();
    assert!(!unsubscribed.contains("host/chat"), "what exists goes last");
    until(&side.shared, "absent hosts are forgotten", |snapshot| {
        snapshot.hosts.len() <= MAX_LOOKED_UP && has_host(snapshot, "chat")
    })
    .await;
}
