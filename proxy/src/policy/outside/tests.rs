#![allow(clippy::unwrap_used)]
use std::sync::Arc;

use http::uri::Authority;

use super::Outside;
use crate::tls::{OriginSettings, OriginTls};

fn outside(host: Option<&str>, address: &str, sni: Option<&str>, tls: bool) -> Outside {
    let settings = OriginSettings {
        server_name: sni.map(|name| name.to_owned().try_into().unwrap()),
        ..OriginSettings::default()
    };
    let origin = Arc::new(OriginTls::new(settings).unwrap());
    let tls = tls.then_some(&origin);
    Outside::new(host.map(Arc::from), address.parse().unwrap(), tls).unwrap()
}

fn sent(outside: &Outside, asked: &str) -> String {
    let asked: Authority = asked.parse().unwrap();
    outside.authority(&asked, "default/llm").to_string()
}

#[test]
fn names_of_the_mesh_stay_in_it() {
    let tls = outside(Some("api.example"), "192.0.2.1:443", None, true);
    for asked in [
        "llm",
        "LLM:80",
        "llm.default",
        "llm.default.svc",
        "llm.default.svc.cluster.local:80",
    ] {
        assert_eq!(sent(&tls, asked), "api.example", "{asked}");
    }
    // Hosts that the service is given, and what only looks like a name of the mesh.
    for asked in [
        "api.example",
        "other.example",
        "llm.team",
        "llm.default.example",
    ] {
        assert_eq!(sent(&tls, asked), asked);
    }
}

#[test]
fn the_port_is_the_servers() {
    let plain = outside(Some("api.example"), "192.0.2.1:8080", None, false);
    assert_eq!(sent(&plain, "llm"), "api.example:8080");
    assert_eq!(sent(&plain, "api.example:80"), "api.example:8080");
    let plain = outside(Some("api.example"), "192.0.2.1:80", None, false);
    assert_eq!(sent(&plain, "api.example:8000"), "api.example");
    let tls = outside(Some("api.example"), "192.0.2.1:443", None, true);
    assert_eq!(sent(&tls, "api.example:80"), "api.example");
}

#[test]
fn an_address_is_called_by_its_sni_or_by_itself() {
    let named = outside(None, "192.0.2.1:443", Some("api.example"), true);
    assert_eq!(sent(&named, "llm"), "api.example");
    let bare = outside(None, "192.0.2.1:8443", None, true);
    assert_eq!(sent(&bare, "llm"), "192.0.2.1:8443");
}

#[test]
fn tls_names_the_host_unless_told_otherwise() {
    let name = |outside: Outside| outside.tls.unwrap().server_name.to_str().into_owned();
    assert_eq!(
        name(outside(Some("api.example"), "192.0.2.1:443", None, true)),
        "api.example"
    );
    let other = outside(
        Some("api.example"),
        "192.0.2.1:443",
        Some("sni.example"),
        true,
    );
    assert_eq!(name(other), "sni.example");
    assert_eq!(
        name(outside(None, "192.0.2.1:443", None, true)),
        "192.0.2.1"
    );
}
