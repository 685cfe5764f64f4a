//! `get`, `describe` and `--watch`.

use outrigger_proto::api::v1::WatchEvent;
use outrigger_proto::api::v1::watch_event::Type;
use serde_json::Value;

use crate::testing::{Fake, Runner, fixtures, golden};

#[test]
fn tables() {
    let fake = Fake::start(fixtures::mesh());
    golden("get-services", &fake.ctl(&["get", "services"]).transcript());
    golden(
        "get-services-wide",
        &fake.ctl(&["get", "svc", "-A", "-o", "wide"]).transcript(),
    );
    golden("get-all", &fake.ctl(&["get", "all"]).transcript());
    golden(
        "get-one",
        &fake
            .ctl(&["get", "route", "chat-canary", "--no-headers"])
            .transcript(),
    );
    golden(
        "get-nothing",
        &fake.ctl(&["get", "routes", "-n", "other"]).transcript(),
    );
    golden(
        "get-missing",
        &fake.ctl(&["get", "services", "chat", "chta"]).transcript(),
    );
}

#[test]
fn documents_can_be_applied_again() {
    let fake = Fake::start(fixtures::mesh());
    golden(
        "get-yaml",
        &fake
            .ctl(&["get", "route/default/chat-canary", "-o", "yaml"])
            .transcript(),
    );
    let list: Value =
        serde_json::from_str(&fake.ctl(&["get", "svc,routes", "-o", "json"]).out).unwrap();
    assert_eq!(list["kind"], "List");
    assert_eq!(list["apiVersion"], "outrigger.dev/v1alpha1");
    assert_eq!(list["items"][0]["spec"]["ports"][0]["port"], 80);
    assert_eq!(
        list["items"][1]["metadata"]["creationTimestamp"],
        "2026-11-20T11:59:00Z"
    );

    let yaml = fake
        .ctl(&["get", "svc,routes", "-o", "yaml"])
        .out
        .replace("resourceVersion: '7'", "");
    let again = fake.run(
        &Runner {
            stdin: yaml,
            ..Runner::default()
        },
        &["apply", "-f", "-"],
    );
    assert_eq!(
        again.out, "service/default/chat unchanged\nroute/default/chat-canary unchanged\n",
        "{}",
        again.err
    );
}

#[test]
fn an_empty_list_is_a_document_too() {
    let fake = Fake::start(fixtures::mesh());
    let ran = fake.ctl(&["get", "routes", "-n", "other", "-o", "json"]);
    let list: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, list["items"].as_array().unwrap().len()), (0, 0));
}

#[test]
fn names_are_for_scripts() {
    let fake = Fake::start(fixtures::mesh());
    let names = fake.ctl(&["get", "all", "-A", "-o", "name"]).out;
    assert_eq!(
        names,
        "mesh/default\nservice/default/chat\nroute/default/chat-canary\nworkload/default/chat-1a2b3c4d\n"
    );
    for name in names.lines() {
        assert_eq!(fake.ctl(&["get", name]).code, 0, "{name}");
    }
}

#[test]
fn labels_select() {
    let fake = Fake::start(fixtures::mesh());
    assert_eq!(
        fake.ctl(&["get", "all", "-l", "team=ml", "-o", "name"]).out,
        "service/default/chat\n"
    );
    let none = fake.ctl(&["get", "svc", "-l", "team=web"]);
    assert_eq!((none.code, none.out.as_str()), (0, ""));
    assert!(none.err.contains("with these labels"), "{}", none.err);
}

#[test]
fn described_in_words() {
    let fake = Fake::start(fixtures::mesh());
    for kind in [
        "service/chat",
        "route/chat-canary",
        "mesh",
        "workload/chat-1a2b3c4d",
    ] {
        let name = format!("describe-{}", kind.split('/').next().unwrap());
        golden(&name, &fake.ctl(&["describe", kind]).transcript());
    }
    let missing = fake.ctl(&["describe", "service", "none"]);
    assert_eq!(missing.code, 3, "{missing:?}");
}

#[test]
fn a_refusal_is_told_where_it_is_looked_for() {
    let fake = Fake::start(fixtures::mesh_with_refusal());
    let service = fake.ctl(&["describe", "service", "chat"]).out;
    let route = fake.ctl(&["describe", "route", "chat-canary"]).out;
    for text in [&service, &route] {
        assert!(text.contains("regex `(` does not compile"), "{text}");
    }
    assert!(!fake.ctl(&["describe", "mesh"]).out.contains("regex"));
    golden("describe-refused", &service);
}

#[test]
fn what_a_newer_control_plane_stores_is_shown_as_it_is() {
    let mut state = fixtures::mesh();
    let spec = state.resources[1].spec.as_mut().unwrap();
    spec.fields.insert("fromTheFuture".to_owned(), true.into());
    let fake = Fake::start(state);
    assert!(fake.ctl(&["get", "services"]).out.contains("chat"));
    let described = fake.ctl(&["describe", "service", "chat"]);
    assert!(
        described.out.contains("fromTheFuture: true"),
        "{described:?}"
    );
}

fn watch_state() -> crate::testing::State {
    let mut state = fixtures::mesh();
    let mut other = fixtures::stored(fixtures::ROUTE, 0);
    other.metadata.as_mut().unwrap().name = "a-new-and-longer-name".to_owned();
    let mut changed = fixtures::stored(fixtures::ROUTE, 60);
    changed.metadata.as_mut().unwrap().resource_version = "8".to_owned();
    let event = |kind: Type, resource| WatchEvent {
        r#type: kind.into(),
        resource: Some(resource),
    };
    state.events = vec![
        event(Type::Added, other),
        event(Type::Modified, changed.clone()),
        event(Type::Deleted, changed),
    ];
    state
}

#[test]
fn a_watch_shows_what_is_there_and_every_change() {
    let fake = Fake::start(watch_state());
    golden(
        "watch",
        &fake.ctl(&["get", "routes", "--watch"]).transcript(),
    );
    let fake = Fake::start(watch_state());
    let named = fake.ctl(&[
        "get",
        "routes",
        "a-new-and-longer-name",
        "--watch",
        "-o",
        "name",
    ]);
    assert_eq!(named.out, "ADDED route/default/a-new-and-longer-name\n");
    assert_eq!(named.code, 5, "{}", named.err);
}

#[test]
fn a_watch_in_json_is_a_line_for_each_event() {
    let fake = Fake::start(watch_state());
    let ran = fake.ctl(&["get", "routes", "-w", "-o", "json"]);
    let types: Vec<String> = ran
        .out
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["type"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    // The last one is from the second watch: the fake has not really deleted it.
    assert_eq!(types, ["ADDED", "ADDED", "MODIFIED", "DELETED", "ADDED"]);
}
