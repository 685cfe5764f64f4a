#![allow(clippy::unwrap_used)]
use std::sync::Arc;

use http::Request;

use super::{http1, http2};
use crate::http::arrival::Arrived;
use crate::http::body::Source;
use crate::http::interim::Interim;
use crate::http::server::Client;
use crate::policy::Snapshot;
use crate::runtime::tests::idle_worker;
use crate::telemetry::Direction;
use crate::telemetry::metrics::Wire;

fn arrived(uri: &str, host: Option<&str>) -> Box<Arrived> {
    let worker = idle_worker();
    let address = "127.0.0.1:1".parse().unwrap();
    let client = Client::new(&worker, address, Direction::Outbound, Wire::Http1);
    let mut request = Request::get(uri);
    if let Some(host) = host {
        request = request.header("host", host);
    }
    let request = request.body(Source::Empty).unwrap();
    let interim = Arc::new(Interim::default());
    let (arrived, _) = Arrived::new(&client, &Snapshot::default(), request, interim, None);
    arrived.unwrap()
}

#[test]
fn the_uri_goes_before_host() {
    let request = arrived("http://Chat:80/v1/models?x=1", Some("other"));
    let sent = http1(&request, request.body.body(), None);
    assert_eq!(sent.uri(), "/v1/models?x=1");
    assert_eq!(sent.headers()["host"], "Chat:80");
    let sent = http2(&request, request.body.body(), None);
    assert_eq!(sent.uri(), "http://Chat:80/v1/models?x=1");
    assert!(!sent.headers().contains_key("host"));
}

#[test]
fn origin_form() {
    let request = arrived("/v1/models", Some("chat"));
    let sent = http1(&request, request.body.body(), None);
    assert_eq!(sent.uri(), "/v1/models");
    assert_eq!(sent.headers()["host"], "chat");
    assert_eq!(
        http2(&request, request.body.body(), None).uri(),
        "http://chat/v1/models"
    );
}

#[test]
fn asterisk_form() {
    let request = arrived("*", Some("chat"));
    let sent = http1(&request, request.body.body(), None);
    assert_eq!(sent.uri(), "*");
    assert_eq!(sent.headers()["host"], "chat");
}
