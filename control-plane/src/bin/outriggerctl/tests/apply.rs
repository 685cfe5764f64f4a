//! `apply`, `delete` and `validate`.

use std::path::{Path, PathBuf};

use outrigger_proto::api::v1::Problem;

use crate::testing::{Fake, Ran, Runner, State, ctl, fixtures, golden};

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn without_dir(mut ran: Ran, dir: &Path) -> Ran {
    for text in [&mut ran.out, &mut ran.err] {
        *text = text.replace(dir.to_str().unwrap(), "policies");
    }
    ran
}

#[test]
fn created_then_unchanged_then_configured() {
    let fake = Fake::start(State::default());
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "b.yaml", fixtures::ROUTE);
    write(
        dir.path(),
        "a.yaml",
        &format!("{}\n---\n{}", fixtures::MESH, fixtures::SERVICE),
    );
    let path = dir.path().to_str().unwrap();
    let dry = fake.ctl(&["apply", "-f", path, "--dry-run"]);
    assert_eq!(
        dry.out,
        "mesh/default created (dry run)\nservice/default/chat created (dry run)\nroute/default/chat-canary created (dry run)\n",
        "{}",
        dry.err
    );
    assert!(fake.state().resources.is_empty());
    let created = fake.ctl(&["apply", "-f", path]);
    assert_eq!(created.out, dry.out.replace(" (dry run)", ""));
    write(
        dir.path(),
        "b.yaml",
        &fixtures::ROUTE.replace("weight: 90", "weight: 80"),
    );
    let changed = fake.ctl(&["apply", "-f", path]);
    assert_eq!(
        changed.out,
        "mesh/default unchanged\nservice/default/chat unchanged\nroute/default/chat-canary configured\n"
    );
}

#[test]
fn stdin_and_json() {
    let fake = Fake::start(State::default());
    let json = r#"{"apiVersion": "outrigger.dev/v1alpha1", "kind": "Mesh", "metadata": {"name": "default"}}"#;
    let ran = fake.run(
        &Runner {
            stdin: json.to_owned(),
            ..Runner::default()
        },
        &["apply", "-f", "-"],
    );
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (0, "mesh/default created\n"),
        "{}",
        ran.err
    );
}

#[test]
fn warnings_go_to_stderr_with_their_place() {
    let fake = Fake::start(State::default());
    fake.state().warnings = vec!["spec.parentRefs[0]: there is no service/default/chat; the route does nothing until there is".to_owned()];
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), "route.yaml", fixtures::ROUTE);
    let ran = fake.ctl(&["apply", "-f", file.to_str().unwrap()]);
    golden("apply-warning", &without_dir(ran, dir.path()).transcript());
}

#[test]
fn all_problems_of_all_files_at_once() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        "a-service.yaml",
        &fixtures::SERVICE
            .replace("request: 2m", "requst: 2m")
            .replace("port: 80,", "port: 80000,"),
    );
    write(
        dir.path(),
        "b-route.yaml",
        &fixtures::ROUTE
            .replace("request: 30s", "request: 30 seconds")
            .replace("kind: Route", "kind: Rout"),
    );
    write(
        dir.path(),
        "c-syntax.yaml",
        "apiVersion: outrigger.dev/v1alpha1\nkind: [Mesh\nmetadata: {}\n",
    );
    write(dir.path(), "d-good.yaml", fixtures::MESH);
    let validated = ctl(&["validate", "-f", dir.path().to_str().unwrap()]);
    golden(
        "validate-problems",
        &without_dir(validated, dir.path()).transcript(),
    );
    // Nothing is sent, so that no control plane is needed to learn of them.
    let applied = ctl(&[
        "--context",
        "/none",
        "apply",
        "-f",
        dir.path().to_str().unwrap(),
    ]);
    assert_eq!(applied.code, 1);
    assert!(
        applied.err.ends_with("; nothing was applied\n"),
        "{}",
        applied.err
    );
}

#[test]
fn a_resource_that_is_given_twice() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.yaml", fixtures::ROUTE);
    write(
        dir.path(),
        "b.yaml",
        &format!("{}---{}", fixtures::SERVICE, fixtures::ROUTE),
    );
    let ran = ctl(&["validate", "-f", dir.path().to_str().unwrap()]);
    golden("validate-twice", &without_dir(ran, dir.path()).transcript());
}

#[test]
fn the_control_planes_objections_get_their_place_too() {
    let fake = Fake::start(State::default());
    fake.state().problems = vec![Problem {
        index: 1,
        field: "spec.rules[1].backendRefs[0].weight".to_owned(),
        message: "90 is too much today".to_owned(),
        ..Problem::default()
    }];
    let dir = tempfile::tempdir().unwrap();
    let file = write(
        dir.path(),
        "all.yaml",
        &format!("{}---\n{}", fixtures::SERVICE, fixtures::ROUTE),
    );
    let ran = fake.ctl(&["apply", "-f", file.to_str().unwrap()]);
    golden("apply-refused", &without_dir(ran, dir.path()).transcript());
}

#[test]
fn validate_needs_nobody() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "service.yaml", fixtures::SERVICE);
    let route = write(dir.path(), "route.yml", fixtures::ROUTE);
    let all = ctl(&["validate", "-f", dir.path().to_str().unwrap()]);
    assert_eq!(
        (all.code, all.out.as_str(), all.err.as_str()),
        (0, "2 resources in 2 files: valid\n", "")
    );
    // Alone, the route refers to services that are not in the files: they may be in the mesh.
    let alone = ctl(&["validate", "-f", route.to_str().unwrap()]);
    assert_eq!(alone.code, 0);
    golden(
        "validate-warnings",
        &without_dir(alone, dir.path()).transcript(),
    );
}

#[test]
fn files_without_resources() {
    let dir = tempfile::tempdir().unwrap();
    let empty = write(dir.path(), "empty.yaml", "# nothing\n---\n");
    let ran = ctl(&["apply", "-f", empty.to_str().unwrap()]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("no resource"), "{}", ran.err);
    let missing = ctl(&["validate", "-f", "/none.yaml"]);
    assert_eq!(missing.code, 1);
    assert!(missing.err.contains("/none.yaml"), "{}", missing.err);
}

#[test]
fn deleted_by_name_and_by_file() {
    let fake = Fake::start(fixtures::mesh());
    let dry = fake.ctl(&["delete", "route", "chat-canary", "--dry-run"]);
    assert_eq!(dry.out, "route/default/chat-canary deleted (dry run)\n");
    assert_eq!(fake.state().resources.len(), 4);
    let dir = tempfile::tempdir().unwrap();
    let text = format!("{}---\n{}", fixtures::SERVICE, fixtures::ROUTE);
    let file = write(dir.path(), "all.yaml", &text);
    let file = file.to_str().unwrap();
    let deleted = fake.ctl(&["delete", "-f", file]);
    assert_eq!(
        deleted.out, "route/default/chat-canary deleted\nservice/default/chat deleted\n",
        "{}",
        deleted.err
    );
    let again = fake.ctl(&["delete", "-f", file]);
    golden("delete-missing", &again.transcript());
    let ignored = fake.ctl(&["delete", "-f", file, "--ignore-not-found"]);
    assert_eq!(
        (ignored.code, ignored.out.as_str(), ignored.err.as_str()),
        (0, "", "")
    );
}

#[test]
fn what_is_to_be_deleted_need_not_be_valid() {
    let fake = Fake::start(fixtures::mesh());
    let dir = tempfile::tempdir().unwrap();
    let file = write(
        dir.path(),
        "route.yaml",
        &fixtures::ROUTE.replace("weight: 90", "weight: many"),
    );
    let ran = fake.ctl(&["delete", "-f", file.to_str().unwrap()]);
    assert_eq!(
        ran.out, "route/default/chat-canary deleted\n",
        "{}",
        ran.err
    );
}

#[test]
fn what_cannot_be_deleted() {
    let fake = Fake::start(fixtures::mesh());
    golden(
        "delete-workload",
        &fake
            .ctl(&["delete", "workload", "chat-1a2b3c4d"])
            .transcript(),
    );
}

#[test]
fn a_conflict_is_exit_code_4() {
    let fake = Fake::start(fixtures::mesh());
    fake.state().conflict = true;
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), "route.yaml", fixtures::ROUTE);
    golden(
        "apply-conflict",
        &fake
            .ctl(&["apply", "-f", file.to_str().unwrap()])
            .transcript(),
    );
    assert_eq!(fake.ctl(&["delete", "route", "chat-canary"]).code, 4);
}
