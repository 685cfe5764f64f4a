use super::super::hosts::{Authority, by_own_name};
use super::{bench, service};

#[test]
fn authorities_are_split() {
    let parse = |text| Authority::parse(text).map(|it| (it.host, it.port));
    assert_eq!(parse("chat"), Some(("chat", None)));
    assert_eq!(parse("chat:80"), Some(("chat", Some(80))));
    assert_eq!(parse("chat.default."), Some(("chat.default", None)));
    assert_eq!(parse("[::1]:80"), Some(("[::1]", Some(80))));
    assert_eq!(parse("[::1]"), Some(("[::1]", None)));
    for text in ["", ":80", "chat:", "chat:0", "chat:65536", "chat:http", "."] {
        assert_eq!(parse(text), None, "{text:?}");
    }
}

#[test]
fn names_in_dns_form_mean_services() {
    let name = |host| by_own_name(host, "shop");
    assert_eq!(name("chat").as_deref(), Some("shop/chat"));
    assert_eq!(name("chat.default").as_deref(), Some("default/chat"));
    assert_eq!(name("chat.default.svc").as_deref(), Some("default/chat"));
    assert_eq!(
        name("chat.default.svc.cluster.local").as_deref(),
        Some("default/chat")
    );
    for host in [
        "",
        ".default",
        "chat.",
        "chat.default.example",
        "chat.default.svc.cluster",
        "a.b.svc.cluster.local.x",
    ] {
        assert_eq!(name(host), None, "{host:?}");
    }
}

fn resolve(bench: &super::Bench, host: &str, namespace: &str) -> Option<(String, u32)> {
    let host = bench.compiler.current().resolve(host, namespace)?;
    Some((host.service, host.port))
}

#[test]
fn exact_hosts_win_over_the_longest_suffix() {
    let mut bench = bench();
    bench.put(&service(
        "wide",
        "{hosts: ['*.models'], ports: [{port: 80, protocol: http}]}",
    ));
    bench.put(&service(
        "narrow",
        "{hosts: ['*.chat.models'], ports: [{port: 80, protocol: http}]}",
    ));
    bench.put(&service(
        "exact",
        "{hosts: [a.chat.models], ports: [{port: 80, protocol: http}]}",
    ));
    let name = |host: &str| resolve(&bench, host, "default").map(|it| it.0);
    assert_eq!(name("a.chat.models").as_deref(), Some("default/exact"));
    assert_eq!(name("A.Chat.Models").as_deref(), Some("default/exact"));
    assert_eq!(name("b.chat.models").as_deref(), Some("default/narrow"));
    assert_eq!(name("x.y.chat.models").as_deref(), Some("default/narrow"));
    assert_eq!(name("chat.models").as_deref(), Some("default/wide"));
    assert_eq!(name("models"), None);
}

#[test]
fn the_older_service_keeps_a_contested_host_and_loses_it_when_it_goes() {
    let mut bench = bench();
    let spec = "{hosts: [chat.models], ports: [{port: 80, protocol: http}]}";
    bench.put(&service("z-older", spec));
    bench.put(&service("a-younger", spec));
    let name = |bench: &super::Bench| resolve(bench, "chat.models", "default").map(|it| it.0);
    assert_eq!(name(&bench).as_deref(), Some("default/z-older"));
    bench.delete(crate::model::ResourceKey::service("default", "z-older"));
    assert_eq!(name(&bench).as_deref(), Some("default/a-younger"));
    bench.put(&service(
        "a-younger",
        "{ports: [{port: 80, protocol: http}]}",
    ));
    assert_eq!(name(&bench), None);
}

#[test]
fn no_service_takes_anothers_own_name() {
    let mut bench = bench();
    bench.put(&service(
        "thief",
        "{hosts: [chat.default], ports: [{port: 80, protocol: http}]}",
    ));
    bench.put(&service("chat", "{ports: [{port: 80, protocol: http}]}"));
    assert_eq!(
        resolve(&bench, "chat.default", "default").unwrap().0,
        "default/chat"
    );
}

#[test]
fn ports_are_the_services_own() {
    let mut bench = bench();
    bench.put(&service("one", "{ports: [{port: 9000, protocol: grpc}]}"));
    bench.put(&service("mixed", "{ports: [{port: 5432, protocol: tcp}, {port: 8080, protocol: http}, {port: 8081, protocol: http}]}"));
    bench.put(&service(
        "eighty",
        "{ports: [{port: 8080, protocol: http}, {port: 80, protocol: http}]}",
    ));
    let port = |host: &str| resolve(&bench, host, "default").map(|it| it.1);
    assert_eq!(port("one"), Some(9000));
    assert_eq!(port("one:80"), None);
    assert_eq!(port("mixed"), Some(8080));
    assert_eq!(port("mixed:5432"), Some(5432));
    assert_eq!(port("eighty"), Some(80));
    assert_eq!(port("eighty:8080"), Some(8080));
}
