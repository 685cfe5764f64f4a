#![allow(clippy::unwrap_used)]

use http::HeaderName;
use http::uri::PathAndQuery;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;

/// The Gateway API's table (`HTTPPathModifier.replacePrefixMatch`), and what follows from it.
#[test]
fn prefixes_are_replaced_by_whole_segments() {
    for (path, prefix, replacement, expected) in [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/", "/foo", "", "/"),
        ("/foo", "/foo", "", "/"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
        ("/foo/bar", "/foo", "/", "/bar"),
        ("/foo", "/", "/xyz", "/xyz/foo"),
        ("/", "/", "/xyz", "/xyz/"),
        ("/foo//bar", "/foo", "", "//bar"),
        ("/foo/%2Fbar", "/foo", "/a%20b", "/a%20b/%2Fbar"),
    ] {
        let modifier = PathModifier::prefix(prefix, replacement).unwrap();
        let new = modifier.apply(path);
        assert_eq!(
            new.as_deref(),
            Some(expected),
            "{path} {prefix} {replacement}"
        );
    }
    let modifier = PathModifier::prefix("/foo", "/xyz").unwrap();
    for path in ["/food", "/", "*", "/Foo"] {
        assert_eq!(modifier.apply(path), None, "{path}");
    }
}

#[test]
fn queries_stay() {
    let rewrite = |modifier: PathModifier, uri: &str| {
        let new = modifier.rewrite(&PathAndQuery::try_from(uri).unwrap());
        new.map(|new| new.as_str().to_owned())
    };
    let full = PathModifier::full("/new").unwrap();
    assert_eq!(
        rewrite(full.clone(), "/old/x?a=b&c").as_deref(),
        Some("/new?a=b&c")
    );
    assert_eq!(rewrite(full.clone(), "/old/x?").as_deref(), Some("/new?"));
    assert_eq!(rewrite(full, "/old").as_deref(), Some("/new"));
    let prefix = PathModifier::prefix("/old", "").unwrap();
    assert_eq!(rewrite(prefix, "/old?a=/old").as_deref(), Some("/?a=/old"));
}

#[test]
fn paths_that_are_none_are_refused() {
    for bad in [
        "x",
        "/a b",
        "/a?b",
        "/a#b",
        "/ü",
        "/\r\n",
        "http://x/",
        "/\"<>\u{7f}",
    ] {
        assert!(PathModifier::full(bad).is_err(), "{bad:?}");
        assert!(PathModifier::prefix("/a", bad).is_err(), "{bad:?}");
    }
}

#[test]
fn locations_have_the_ports_of_the_gateway_api() {
    let redirect = |scheme, hostname: Option<&str>, port| Redirect {
        scheme,
        hostname: hostname.map(Into::into),
        port,
        path: None,
        status: StatusCode::FOUND,
    };
    let location = |redirect: Redirect, port| redirect.location("chat", port, "/a", Some("b=c"));
    let (http, https) = (Some(Scheme::Http), Some(Scheme::Https));
    // Neither scheme nor port: the port that the request came for.
    assert_eq!(
        location(redirect(None, None, None), 80),
        "http://chat/a?b=c"
    );
    assert_eq!(
        location(redirect(None, None, None), 8080),
        "http://chat:8080/a?b=c"
    );
    assert_eq!(
        location(redirect(None, Some("x.y"), None), 8080),
        "http://x.y:8080/a?b=c"
    );
    // A scheme: its own port, which is not written.
    assert_eq!(
        location(redirect(https, None, None), 8080),
        "https://chat/a?b=c"
    );
    assert_eq!(
        location(redirect(http, None, None), 8080),
        "http://chat/a?b=c"
    );
    // A port: as it is, unless it is the scheme's.
    assert_eq!(
        location(redirect(None, None, Some(80)), 8080),
        "http://chat/a?b=c"
    );
    assert_eq!(
        location(redirect(None, None, Some(443)), 80),
        "http://chat:443/a?b=c"
    );
    assert_eq!(
        location(redirect(https, None, Some(443)), 80),
        "https://chat/a?b=c"
    );
    assert_eq!(
        location(redirect(https, None, Some(80)), 80),
        "https://chat:80/a?b=c"
    );
    let asterisk = redirect(None, None, None).location("chat", 80, "*", None);
    assert_eq!(asterisk, "http://chat/");
    let moved = Redirect {
        path: Some(PathModifier::prefix("/a", "/z").unwrap()),
        ..redirect(None, None, None)
    };
    assert_eq!(moved.location("chat", 80, "/a/b", None), "http://chat/z/b");
    assert_eq!(moved.location("chat", 80, "/ab", None), "http://chat/ab");
}

#[test]
fn headers_are_removed_then_set_then_added() {
    let name = HeaderName::from_static;
    let value = HeaderValue::from_static;
    let modifier = HeaderModifier {
        set: vec![(name("x-a"), value("set"))],
        add: vec![(name("x-a"), value("added")), (name("x-b"), value("back"))],
        remove: vec![name("x-b"), name("x-c")],
    };
    let mut headers = HeaderMap::new();
    for (name, old) in [
        ("x-a", "1"),
        ("x-a", "2"),
        ("x-b", "3"),
        ("x-c", "4"),
        ("x-d", "5"),
    ] {
        headers.append(name, value(old));
    }
    modifier.apply(&mut headers);
    let all = |name: &str| headers.get_all(name).iter().cloned().collect::<Vec<_>>();
    assert_eq!(all("x-a"), ["set", "added"]);
    assert_eq!(all("x-b"), ["back"]);
    assert!(all("x-c").is_empty());
    assert_eq!(all("x-d"), ["5"]);
}

#[test]
fn what_frames_a_message_or_names_a_caller_is_not_modifiable() {
    for name in [
        "connection",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-forwarded-client-cert",
        "x-outrigger-reason",
        "x-outrigger-anything",
        "x-request-id",
    ] {
        assert!(!is_modifiable(&HeaderName::from_static(name)), "{name}");
    }
    for name in [
        "accept",
        "x-outrigger",
        "x-forwarded-for",
        "authorization",
        "content-type",
        "cache-control",
    ] {
        assert!(is_modifiable(&HeaderName::from_static(name)), "{name}");
    }
}

#[test]
fn origins() {
    let matches = |pattern: &str, origin: &str| Origin::new(pattern).unwrap().matches(origin);
    assert!(matches("*", "null"));
    assert!(matches("https://a.example", "https://a.example"));
    assert!(matches("https://a.example", "HTTPS://A.example"));
    assert!(!matches("https://a.example", "http://a.example"));
    assert!(!matches("https://a.example", "https://a.example:8443"));
    assert!(!matches("https://a.example", "https://a.example.evil"));
    assert!(matches("https://*.example", "https://a.example"));
    assert!(matches("https://*.example", "https://a.b.example"));
    assert!(!matches("https://*.example", "https://example"));
    assert!(!matches("https://*.example", "https://.example"));
    assert!(!matches("https://*.example", "https://aexample"));
    assert!(!matches("https://*.example", "https://a.example:1"));
    assert!(!matches("https://*.example", "https://evil/x.example"));
    assert!(!matches("https://*.example", "https://evil@x.example"));
    assert!(!matches("https://*.example", "https://evil:1.example"));
    assert!(matches("http://*.example:8080", "http://a.example:8080"));
    assert!(matches("http://[::1]:8080", "http://[::1]:8080"));
    for bad in [
        "",
        "a.example",
        "https://",
        "https://a b",
        "https://a/b",
        "https://*",
        "https://a.*",
        "://a",
        "https://a:0",
        "https://a:x",
    ] {
        assert!(Origin::new(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn statuses_of_the_other_protocol() {
    assert_eq!(Abort::Http(StatusCode::SERVICE_UNAVAILABLE).grpc_code(), 14);
    assert_eq!(Abort::Http(StatusCode::IM_A_TEAPOT).grpc_code(), 2);
    assert_eq!(Abort::Grpc(8).http_status(), 429);
    assert_eq!(Abort::Grpc(14).http_status(), 503);
    assert_eq!(Abort::Grpc(2).http_status(), 500);
    assert_eq!(Abort::Grpc(7).grpc_code(), 7);
}

#[test]
fn shares_are_of_the_requests() {
    let mut rng = SmallRng::seed_from_u64(1);
    let mut count = |numerator, denominator| {
        let share = Share {
            numerator,
            denominator,
        };
        (0..10_000).filter(|_| share.takes(&mut rng)).count()
    };
    assert_eq!(count(0, 100), 0);
    assert_eq!(count(100, 100), 10_000);
    // The seed is fixed; six standard deviations of a fair choice.
    assert!((2740..=3260).contains(&count(30, 100)));
    assert!((0..=30).contains(&count(1, 1000)));
    assert!(Share::ALL.takes(&mut rng));
}

/// Paths as they come in requests: what the URI parser lets through.
fn path() -> impl Strategy<Value = String> {
    "(/[!-~\u{80}-\u{2ff}]{0,6}){1,4}(\\?[!-~]{0,8})?"
}

proptest! {
    #[test]
    fn a_rewrite_is_always_a_uri(
        uri in path(),
        prefix in "(/[a-z%0-9]{0,3}){0,2}",
        replacement in "(/[!-~]{0,4}){0,3}",
    ) {
        let Ok(old) = PathAndQuery::try_from(uri.as_str()) else { return Ok(()) };
        // The prefix is most often that of the path.
        for prefix in [prefix.as_str(), "/", &old.path()[..1]] {
            let Ok(modifier) = PathModifier::prefix(prefix, &replacement) else { continue };
            let Some(path) = modifier.apply(old.path()) else { continue };
            prop_assert!(path.starts_with('/'), "{path}");
            let new = modifier.rewrite(&old);
            prop_assert!(new.is_some(), "{path}");
            let new = new.unwrap();
            prop_assert_eq!(new.path(), path.as_ref());
            prop_assert_eq!(new.query(), old.query());
            prop_assert!(http::Uri::try_from(format!("http://chat{new}")).is_ok(), "{new}");
        }
        if let Ok(modifier) = PathModifier::full(&replacement) {
            prop_assert!(modifier.rewrite(&old).is_some());
        }
    }

    #[test]
    fn a_location_is_always_a_header(uri in path(), host in "[a-z.]{1,8}") {
        let Ok(old) = PathAndQuery::try_from(uri.as_str()) else { return Ok(()) };
        let redirect = Redirect { scheme: None, hostname: None, port: None, path: None, status: StatusCode::FOUND };
        let location = redirect.location(&host, 80, old.path(), old.query());
        prop_assert!(HeaderValue::try_from(location.as_str()).is_ok(), "{location:?}");
    }

    #[test]
    fn no_origin_makes_it_panic(pattern in "(https?://)?[*.a-z:0-9\\[\\]]{0,12}", origin in "\\PC{0,20}") {
        if let Ok(pattern) = Origin::new(&pattern) {
            let _ = pattern.matches(&origin);
        }
    }
}
