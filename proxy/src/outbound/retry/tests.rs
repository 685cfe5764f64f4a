#![allow(clippy::unwrap_used)]

use http::HeaderValue;

use super::*;

fn one(name: &'static str, value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(name, HeaderValue::from_str(value).unwrap());
    headers
}

#[test]
fn pushbacks_of_grpc_servers() {
    let of = |text| pushback(&one("grpc-retry-pushback-ms", text));
    assert_eq!(pushback(&HeaderMap::new()), None);
    assert_eq!(of("0"), Some(Pushback::Exactly(Duration::ZERO)));
    assert_eq!(
        of("250"),
        Some(Pushback::Exactly(Duration::from_millis(250)))
    );
    for never in ["-1", "", "soon", "1.5", "4294967296"] {
        assert_eq!(of(never), Some(Pushback::Never), "{never:?}");
    }
}

#[test]
fn retry_after_in_both_forms() {
    let of = |text| retry_after(&one("retry-after", text));
    assert_eq!(of("2"), Some(Duration::from_secs(2)));
    assert_eq!(of("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
    let later = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60));
    let asked = of(&later).unwrap();
    assert!((Duration::from_secs(50)..=Duration::from_secs(60)).contains(&asked));
    assert_eq!(of("soon"), None);
}

#[test]
fn trailers_matter_where_they_could_make_it_again() {
    let retry = |methods: &[Method], grpc_codes: &[u32], max_retries| Retry {
        methods: methods.to_vec(),
        grpc_codes: grpc_codes.to_vec(),
        max_retries,
        ..crate::runtime::tests::retry(1)
    };
    let post = Method::POST;
    assert!(may_follow_trailers(
        &retry(&[Method::GET, Method::POST], &[14], 1),
        &post
    ));
    // No call of gRPC is anything but a POST: the default methods have none of them sent again.
    assert!(!may_follow_trailers(
        &retry(&[Method::GET], &[14], 1),
        &post
    ));
    assert!(!may_follow_trailers(&retry(&[Method::POST], &[], 1), &post));
    assert!(!may_follow_trailers(
        &retry(&[Method::POST], &[14], 0),
        &post
    ));
}
