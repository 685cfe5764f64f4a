#![allow(clippy::unwrap_used)]

use super::*;

fn request(uri: &str, headers: &[(&str, &str)]) -> Request<()> {
    headers
        .iter()
        .fold(Request::get(uri), |request, (name, value)| {
            request.header(*name, *value)
        })
        .body(())
        .unwrap()
}

#[test]
fn tools_on_this_machine_are_served() {
    for host in [
        "127.0.0.1:15000",
        "127.0.0.1",
        "localhost:15000",
        "LocalHost",
        "[::1]:15000",
        "[::1]",
        "10.1.2.3:15000",
    ] {
        assert_eq!(
            check(&request("/config", &[("host", host)])),
            Ok(()),
            "{host}"
        );
    }
    assert_eq!(check(&request("/config", &[])), Ok(()), "HTTP/1.0");
    assert_eq!(
        check(&request(
            "http://127.0.0.1:15000/config",
            &[("host", "127.0.0.1:15000")]
        )),
        Ok(())
    );
    assert_eq!(
        check(&request(
            "/",
            &[("host", "localhost"), ("sec-fetch-site", "none")]
        )),
        Ok(()),
        "typed into a browser"
    );
}

#[test]
fn a_name_that_could_be_rebound_is_not() {
    for host in [
        "evil.example:15000",
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "[evil]:1",
        "",
        ":15000",
        "127.0.0.1@evil.example",
    ] {
        assert!(
            matches!(
                check(&request("/config", &[("host", host)])),
                Err(Refused::Host(_))
            ),
            "{host}"
        );
    }
    let absolute = request("http://evil.example/config", &[("host", "127.0.0.1")]);
    assert!(
        matches!(check(&absolute), Err(Refused::Host(_))),
        "the URI goes before Host"
    );
    let twice = request(
        "/config",
        &[("host", "127.0.0.1"), ("host", "evil.example")],
    );
    assert!(matches!(check(&twice), Err(Refused::Host(_))));
}

#[test]
fn a_page_that_knows_the_address_is_not_served() {
    let origin = request(
        "/drain",
        &[
            ("host", "127.0.0.1:15000"),
            ("origin", "https://evil.example"),
        ],
    );
    assert_eq!(check(&origin), Err(Refused::Page));
    let image = request(
        "/config",
        &[
            ("host", "127.0.0.1:15000"),
            ("sec-fetch-site", "cross-site"),
        ],
    );
    assert_eq!(check(&image), Err(Refused::Page));
}
