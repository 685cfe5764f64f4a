//! Zones, consistent hashing and sticky sessions, with the files that the pages about them show.

use std::collections::BTreeSet;
use std::time::Duration;

use outrigger_tests::client::{self, Answer};
use outrigger_tests::upstream::Http;
use outrigger_tests::{ControlPlane, Sidecar, eventually};

fn example(name: &str) -> String {
    let path = format!(
        "{}/../examples/policies/{name}.yaml",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read_to_string(path).unwrap()
}

/// Replicas of the service of an example, by the zone that each is in, and a caller in the zone `a`.
struct Mesh {
    replicas: Vec<(&'static str, Http, Sidecar)>,
    caller: Sidecar,
    _control_plane: ControlPlane,
}

impl Mesh {
    async fn start(file: &str, replicas: &[(&'static str, &str)]) -> Mesh {
        let control_plane = ControlPlane::start().await;
        control_plane.apply(&example(file));
        let mut started = Vec::new();
        for (name, zone) in replicas {
            let app = Http::start(name).await;
            let sidecar = Sidecar::builder(&control_plane, "chat")
                .serve("chat:80", app.address())
                .flag(&format!("--zone={zone}"))
                .start()
                .await;
            started.push((*name, app, sidecar));
        }
        let caller = Sidecar::builder(&control_plane, "caller")
            .flag("--zone=a")
            .start()
            .await;
        let mesh = Mesh {
            replicas: started,
            caller,
            _control_plane: control_plane,
        };
        mesh.knows(replicas.len()).await;
        mesh
    }

    /// Waits until the caller has so many endpoints.
    async fn knows(&self, count: usize) {
        let what = format!("{count} endpoints");
        eventually(&what, Duration::from_secs(20), async || {
            self.ask("/", &[]).await;
            let page = self.endpoints().await;
            let found = page["endpoints"].as_array().map_or(0, Vec::len);
            if found == count {
                Ok(())
            } else {
                Err(page.to_string())
            }
        })
        .await;
    }

    /// What `/endpoints` says of the service.
    async fn endpoints(&self) -> serde_json::Value {
        self.caller.admin("/endpoints").await.json()["services"][0].clone()
    }

    async fn ask(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut head = http::Request::builder().uri(path).header("host", "chat");
        for (name, value) in headers {
            head = head.header(*name, *value);
        }
        client::request(self.caller.outbound(), head, client::empty()).await
    }

    /// Who answers.
    async fn instance(&self, path: &str, headers: &[(&str, &str)]) -> String {
        let answer = self.ask(path, headers).await;
        assert_eq!(answer.status, 200, "{} {}", answer.reason(), answer.text());
        answer.instance().to_owned()
    }

    /// Drains a replica and waits until the caller has heard of it.
    async fn stop(&mut self, name: &str) {
        let index = self.replicas.iter().position(|it| it.0 == name).unwrap();
        let (_, app, sidecar) = self.replicas.remove(index);
        sidecar.sigterm();
        self.knows(self.replicas.len()).await;
        drop((app, sidecar));
    }

    async fn sum(&self, metric: &str, label: (&str, &str)) -> f64 {
        let labels = [("service", "default/chat"), label];
        self.caller.metrics().await.sum(metric, &labels)
    }
}

#[tokio::test]
async fn the_callers_zone_comes_first_and_others_take_over() {
    let mut mesh = Mesh::start("load-balancing", &[("near", "a"), ("far", "b")]).await;
    for _ in 0..20 {
        assert_eq!(mesh.instance("/", &[]).await, "near");
    }
    let page = mesh.endpoints().await;
    assert_eq!(
        (page["local_share"].as_f64(), page["panic"].as_bool()),
        (Some(1.0), Some(false))
    );
    let zones: BTreeSet<_> = page["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["zone"].as_str().unwrap())
        .collect();
    assert_eq!(zones, BTreeSet::from(["a", "b"]));
    const PICKS: &str = "outrigger_balancing_zone_picks_total";
    assert!(mesh.sum(PICKS, ("zone", "local")).await >= 20.0);
    mesh.stop("near").await;
    for _ in 0..5 {
        assert_eq!(mesh.instance("/", &[]).await, "far");
    }
}

#[tokio::test]
async fn a_user_has_one_replica_and_others_keep_theirs_when_one_goes() {
    let all = [("one", "a"), ("two", "a"), ("three", "b")];
    let mut mesh = Mesh::start("consistent-hashing", &all).await;
    let users: Vec<String> = (0..24).map(|user| format!("user-{user}")).collect();
    let mut owners = Vec::new();
    for user in &users {
        let owner = mesh.instance("/", &[("x-user", user)]).await;
        for _ in 0..3 {
            assert_eq!(
                mesh.instance("/", &[("x-user", user)]).await,
                owner,
                "{user}"
            );
        }
        owners.push(owner);
    }
    let used: BTreeSet<_> = owners.iter().collect();
    assert_eq!(used.len(), 3, "{owners:?}");
    const PICKS: &str = "outrigger_balancing_hash_picks_total";
    assert!(mesh.sum(PICKS, ("result", "owner")).await >= 96.0);

    // Without a user a cookie is made, and is what the client is told by.
    let first = mesh.ask("/", &[]).await;
    let cookie = first.header("set-cookie").to_owned();
    assert!(cookie.starts_with("chat-client="), "{cookie}");
    assert!(
        cookie.ends_with("; Path=/; HttpOnly; Max-Age=3600"),
        "{cookie}"
    );
    let pair = cookie.split(';').next().unwrap();
    for _ in 0..5 {
        let again = mesh.ask("/", &[("cookie", pair)]).await;
        assert_eq!(again.instance(), first.instance());
        assert_eq!(again.header("set-cookie"), "", "it has one");
    }
    let known = mesh.ask("/", &[("x-user", "somebody")]).await;
    assert_eq!(known.header("set-cookie"), "", "the user is enough");

    let gone = owners[0].clone();
    mesh.stop(&gone).await;
    for (user, owner) in users.iter().zip(&owners) {
        let now = mesh.instance("/", &[("x-user", user)]).await;
        assert_ne!(now, gone);
        assert!(
            now == *owner || *owner == gone,
            "{user} moved from {owner} to {now}"
        );
    }
}

#[tokio::test]
async fn a_session_stays_at_its_replica_until_that_is_gone() {
    let all = [("one", "a"), ("two", "a"), ("three", "a")];
    let mut mesh = Mesh::start("sessions", &all).await;
    let first = mesh.ask("/", &[]).await;
    let cookie = first.header("set-cookie").to_owned();
    assert!(cookie.starts_with("chat-session="), "{cookie}");
    assert!(
        cookie.ends_with("; Path=/; HttpOnly; Max-Age=3600"),
        "{cookie}"
    );
    let pair = cookie.split(';').next().unwrap().to_owned();
    for _ in 0..12 {
        let again = mesh.ask("/", &[("cookie", &pair)]).await;
        assert_eq!(again.instance(), first.instance());
        assert_eq!(again.header("set-cookie"), "");
    }
    const SESSIONS: &str = "outrigger_sessions_total";
    assert!(mesh.sum(SESSIONS, ("outcome", "kept")).await >= 12.0);
    // A client cannot write itself one.
    let forged = mesh
        .ask("/", &[("cookie", "chat-session=0000000000000000")])
        .await;
    assert!(forged.header("set-cookie").starts_with("chat-session="));

    // Programs send the header back.
    let program = mesh.ask("/v1/models", &[]).await;
    let token = program.header("x-chat-session").to_owned();
    assert!(!token.is_empty());
    for _ in 0..12 {
        let again = mesh.ask("/v1/models", &[("x-chat-session", &token)]).await;
        assert_eq!(again.instance(), program.instance());
        assert_eq!(again.header("x-chat-session"), "");
    }

    let gone = first.instance().to_owned();
    mesh.stop(&gone).await;
    let moved = mesh.ask("/", &[("cookie", &pair)]).await;
    assert_eq!(moved.status, 200);
    assert_ne!(moved.instance(), gone);
    let cookie = moved.header("set-cookie").to_owned();
    let pair = cookie.split(';').next().unwrap().to_owned();
    assert!(pair.starts_with("chat-session="), "{cookie}");
    for _ in 0..6 {
        assert_eq!(
            mesh.instance("/", &[("cookie", &pair)]).await,
            moved.instance()
        );
    }
    assert!(mesh.sum(SESSIONS, ("outcome", "moved")).await >= 1.0);
}

#[tokio::test]
async fn prompts_that_begin_alike_go_to_one_replica() {
    let all = [("one", "a"), ("two", "a"), ("three", "b")];
    let mesh = Mesh::start("model-balancing", &all).await;
    let ask = async |customer: usize, question: &str, session: Option<&str>| {
        let system = format!("You work for customer {customer}. ").repeat(100);
        let body = serde_json::json!({
            "model": "llama",
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": question}],
        });
        let mut head = http::Request::post("/v1/chat/completions")
            .header("host", "chat")
            .header("content-type", "application/json");
        if let Some(session) = session {
            head = head.header("x-session-id", session);
        }
        let body = client::full(body.to_string());
        let answer = client::request(mesh.caller.outbound(), head, body).await;
        assert_eq!(answer.status, 200, "{} {}", answer.reason(), answer.text());
        answer.instance().to_owned()
    };
    let mut rounds = Vec::new();
    for round in 0..4 {
        let mut owners = Vec::new();
        for customer in 0..16 {
            owners.push(ask(customer, &format!("question {round}"), None).await);
        }
        rounds.push(owners);
    }
    // At first nothing is known of what prompts have in common.
    assert_eq!(rounds[2], rounds[3]);
    let used: BTreeSet<_> = rounds[3].iter().collect();
    assert!(used.len() > 1, "{rounds:?}");
    const PICKS: &str = "outrigger_balancing_hash_picks_total";
    assert!(mesh.sum(PICKS, ("result", "owner")).await >= 32.0);
    let page = mesh.endpoints().await;
    assert_eq!(page["endpoints"][0]["prompt_tokens"], 0, "{page}");
    // A session goes before the prompt.
    let mut sessions = BTreeSet::new();
    for customer in 0..6 {
        sessions.insert(ask(customer, "hello", Some("s-1")).await);
    }
    assert_eq!(sessions.len(), 1, "{sessions:?}");
}
