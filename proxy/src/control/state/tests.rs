#![allow(clippy::unwrap_used)]
use std::sync::Arc;

use super::State;
use crate::control::testing::{delta, endpoint, endpoints, host, mesh, rule_to, service, shared};
use crate::dns::Names;
use crate::shared::Shared;
use crate::telemetry::trace::Teller;

fn state() -> (State, Arc<Shared>) {
    let (shared, queue) = shared();
    let id = "spiffe://outrigger.local/ns/default/sa/chat"
        .parse()
        .unwrap();
    let state = State::new(
        id,
        shared.clone(),
        queue.changed,
        Teller::default(),
        Default::default(),
        None,
        Names::unresolved(Arc::default()),
    );
    (state, shared)
}

fn chat_and_other() -> Vec<outrigger_proto::dataplane::v1::Resource> {
    let mut chat = service("default", "chat", 1);
    if let Some(outrigger_proto::dataplane::v1::resource::Body::Service(body)) = &mut chat.body {
        body.rules[0]
            .backends
            .push(rule_to("default/shared").backends.remove(0));
    }
    vec![
        mesh(1),
        host("chat", "default/chat", 1),
        chat,
        endpoints("default/chat", 1, vec![endpoint("10.0.0.1:80", "a")]),
        service("default", "shared", 1),
        endpoints("default/shared", 1, vec![]),
        host("shared", "default/shared", 1),
    ]
}

#[tokio::test(start_paused = true)]
async fn what_the_control_plane_sent_along_it_takes_back_itself() {
    let (mut state, shared) = state();
    let asked = state
        .ask(&["host/chat".into(), "host/shared".into()])
        .unwrap();
    assert_eq!(asked.names, ["host/chat", "host/shared"]);
    state.apply(delta(1, chat_and_other()));
    assert!(state.ask(&["host/chat".into()]).is_none());
    tokio::time::advance(std::time::Duration::from_secs(16 * 60)).await;
    let message = state.sweep().unwrap();
    let mut unsubscribed = message.unsubscribe;
    unsubscribed.sort();
    assert_eq!(unsubscribed, ["host/chat", "host/shared"]);
    let snapshot = shared.snapshot.load();
    assert!(snapshot.hosts.is_empty());
    // Until the control plane says so: it thinks that they are here.
    assert!(snapshot.services.contains_key("default/chat"));
}

#[tokio::test(start_paused = true)]
async fn what_was_named_in_hello_is_unsubscribed_by_name() {
    let (mut state, shared) = state();
    state.ask(&["host/chat".into(), "host/shared".into()]);
    state.apply(delta(1, chat_and_other()));
    let (held, others) = state.resume();
    assert_eq!((held.len(), others.names.len()), (7, 0));
    // `shared` is used, `chat` is not; `chat` leads to `shared`, too.
    let used = shared.snapshot.load().services["default/shared"].clone();
    state.apply(delta(
        2,
        vec![endpoints(
            "default/shared",
            2,
            vec![endpoint("10.0.0.2:80", "b")],
        )],
    ));
    drop(used);
    let endpoint = shared.snapshot.load().services["default/shared"]
        .upstream
        .endpoints
        .endpoints()[0]
        .clone();
    let _stream = endpoint.begin();
    // A request to `shared` is one of `chat`, as far as anybody can tell: so `chat` loses that backend first.
    state.apply(delta(3, vec![service("default", "chat", 2)]));
    tokio::time::advance(std::time::Duration::from_secs(16 * 60)).await;
    let mut unsubscribed = state.sweep().unwrap().unsubscribe;
    unsubscribed.sort();
    assert_eq!(
        unsubscribed,
        [
            "endpoints/default/chat",
            "host/chat",
            "service/default/chat"
        ]
    );
    let snapshot = shared.snapshot.load();
    assert!(!snapshot.services.contains_key("default/chat"));
    assert!(snapshot.services.contains_key("default/shared"));
    assert!(snapshot.hosts.contains_key("shared"));
}
