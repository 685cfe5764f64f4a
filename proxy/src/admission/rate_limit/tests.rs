#![allow(clippy::unwrap_used)]

use http::{HeaderMap, Method};

use super::*;

fn limit(name: &str, key: &[KeyPart], requests: u32) -> RateLimit {
    RateLimit {
        policy: "default/limits".into(),
        name: name.into(),
        matches: Vec::new(),
        key: key.to_vec(),
        rate: Rate::new(requests, Duration::from_secs(3600), requests),
        always_report: true,
        counts: Arc::new(Counts::new(key, 100)),
    }
}

fn limits(limits: Vec<RateLimit>) -> RateLimits {
    RateLimits {
        limits,
        budgets: Vec::new(),
        refusals: Arc::default(),
    }
}

/// The name of the limit that refuses a request, or what is left.
fn ask(limits: &RateLimits, caller: &str, tenant: &'static str) -> Result<u32, String> {
    let mut headers = HeaderMap::new();
    headers.insert("x-tenant", HeaderValue::from_static(tenant));
    let facts = RequestFacts {
        host: "chat",
        port: 80,
        path: "/v1",
        query: "",
        method: &Method::GET,
        headers: &headers,
        model: None,
    };
    let caller =
        (!caller.is_empty()).then(|| SpiffeId::new("outrigger.local", "default", caller).unwrap());
    let subject = Subject {
        caller: caller.as_ref(),
        ..Subject::default()
    };
    match limits.decide(&facts, &subject) {
        Decision::Allowed(report) => Ok(u32::try_from(report.unwrap().remaining).unwrap()),
        Decision::Refused(limit, _) => Err(limit.name.to_string()),
    }
}

#[tokio::test(start_paused = true)]
async fn keys_are_counted_apart() {
    let tenant = KeyPart::Header(HeaderName::from_static("x-tenant"));
    let limits = limits(vec![limit("each", &[KeyPart::Identity, tenant], 2)]);
    for (caller, tenant) in [("a", "x"), ("a", "y"), ("b", "x"), ("", "x"), ("a", "")] {
        assert_eq!(ask(&limits, caller, tenant), Ok(1));
        assert_eq!(ask(&limits, caller, tenant), Ok(0));
        assert_eq!(ask(&limits, caller, tenant), Err("each".into()));
    }
    let counts = &limits.limits[0].counts;
    assert_eq!((counts.allowed(), counts.refused()), (10, 5));
    assert_eq!(limits.refusals.get(Limit::Rate), 5);
}

#[tokio::test(start_paused = true)]
async fn what_one_limit_refuses_uses_up_no_other() {
    let limits = limits(vec![
        limit("all", &[], 5),
        limit("each", &[KeyPart::Identity], 1),
    ]);
    assert_eq!(ask(&limits, "a", ""), Ok(0));
    for _ in 0..10 {
        assert_eq!(ask(&limits, "a", ""), Err("each".into()));
    }
    let counts = &limits.limits[0].counts;
    assert_eq!((counts.allowed(), counts.refused()), (1, 0));
    for caller in ["b", "c", "d", "e"] {
        assert_eq!(ask(&limits, caller, ""), Ok(0));
    }
    assert_eq!(ask(&limits, "f", ""), Err("all".into()));
}

#[tokio::test(start_paused = true)]
async fn clients_are_told_when_to_come_again() {
    let limits = limits(vec![limit("all", &[], 60)]);
    for left in (0..60).rev() {
        assert_eq!(ask(&limits, "a", ""), Ok(left));
    }
    let facts = RequestFacts {
        host: "chat",
        port: 80,
        path: "/",
        query: "",
        method: &Method::GET,
        headers: &HeaderMap::new(),
        model: None,
    };
    let Decision::Refused(_, report) = limits.decide(&facts, &Subject::default()) else {
        panic!("let through");
    };
    assert_eq!(report.retry_after(), 60);
    let mut headers = HeaderMap::new();
    report.write(&mut headers);
    assert_eq!(headers["ratelimit-limit"], "60");
    assert_eq!(headers["ratelimit-remaining"], "0");
    assert_eq!(headers["ratelimit-reset"], "3600");
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(ask(&limits, "a", ""), Ok(0));
    assert_eq!(ask(&limits, "a", ""), Err("all".into()));
}
