use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt;

use super::client::{Http1, get, once, post};
use super::mesh::{Calls, Pair, Sidecar, application, nobody, plain, sockets, text};
use crate::policy::filters::{
    Abort, AllowList, Cors, DirectResponse, FaultInjection, Filter, HeaderModifier, Mirror, Origin,
    PathModifier, Redirect, Share, UrlRewrite,
};
use crate::policy::{HeaderMatch, StringMatch, Timeouts};

fn with(filters: Vec<Filter>) -> Calls {
    Calls {
        filters,
        ..Calls::default()
    }
}

fn name(text: &'static str) -> HeaderName {
    HeaderName::from_static(text)
}

fn value(text: &'static str) -> HeaderValue {
    HeaderValue::from_static(text)
}

/// Says what it got: line, host, headers in `x-`, and the body.
async fn says() -> std::net::SocketAddr {
    application(|request: Request<Incoming>| async move {
        let (head, body) = request.into_parts();
        let mut said = format!("{} {}", head.method, head.uri);
        let mut headers: Vec<String> = head
            .headers
            .iter()
            .filter(|(name, _)| name.as_str().starts_with("x-") && *name != "x-request-id")
            .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
            .collect();
        headers.sort();
        let host = head
            .uri
            .host()
            .map(str::to_owned)
            .unwrap_or_else(|| head.headers["host"].to_str().unwrap().to_owned());
        said.push_str(&format!(" host={host} {}", headers.join(" ")));
        let body = body.collect().await.unwrap().to_bytes();
        said.push_str(&String::from_utf8_lossy(&body));
        let mut response = text(&said);
        response.headers_mut().insert("x-app", value("yes"));
        response.headers_mut().insert("vary", value("accept"));
        response
    })
    .await
}

#[tokio::test]
async fn headers_host_and_path_are_rewritten_on_both_wires() {
    let app = says().await;
    let calls = with(vec![
        Filter::RequestHeaders(HeaderModifier {
            set: vec![(name("x-set"), value("1"))],
            add: vec![(name("x-kept"), value("2"))],
            remove: vec![name("x-gone")],
        }),
        Filter::Rewrite(UrlRewrite {
            hostname: Some("other.example".parse().unwrap()),
            path: Some(PathModifier::prefix("/v1", "/api").unwrap()),
        }),
        Filter::ResponseHeaders(HeaderModifier {
            set: vec![(name("x-back"), value("3"))],
            add: Vec::new(),
            remove: vec![name("x-app")],
        }),
    ]);
    let ask =
        "GET /v1/chat?a=b HTTP/1.1\r\nhost: chat\r\nx-set: old\r\nx-gone: x\r\nx-kept: 1\r\n\r\n";
    let one_hop = plain(calls.clone(), &[app]);
    let answer = once(one_hop.outbound(), ask).await;
    assert_eq!(
        answer.body,
        "GET /api/chat?a=b host=other.example x-kept=1 x-kept=2 x-set=1"
    );
    assert_eq!(answer.head.get("x-back"), Some("3"));
    assert_eq!(answer.head.get("x-app"), None);

    let pair = Pair::new(calls, app);
    let answer = once(pair.address(), ask).await;
    assert!(
        answer
            .body
            .starts_with("GET /api/chat?a=b host=other.example x-forwarded-client-cert="),
        "{}",
        answer.body
    );
    assert_eq!(answer.head.get("x-back"), Some("3"));
    // What the client asked for is what is logged.
    assert_eq!(pair.caller.log_lines(1).await[0]["path"], "/v1/chat");

    // The absolute form names the host itself.
    let answer = once(
        one_hop.outbound(),
        "GET http://chat/v1 HTTP/1.1\r\nhost: x\r\n\r\n",
    )
    .await;
    assert!(
        answer.body.starts_with("GET /api host=other.example"),
        "{}",
        answer.body
    );
}

#[tokio::test]
async fn redirects_and_direct_responses_need_no_endpoint() {
    let redirect = Filter::Redirect(Redirect {
        scheme: None,
        hostname: Some("elsewhere".into()),
        port: None,
        path: Some(PathModifier::full("/new").unwrap()),
        status: StatusCode::PERMANENT_REDIRECT,
    });
    let header = Filter::ResponseHeaders(HeaderModifier {
        set: vec![(name("x-back"), value("3"))],
        ..HeaderModifier::default()
    });
    let caller = plain(with(vec![header.clone(), redirect]), &[]);
    let answer = post(caller.outbound(), "/old?a=b", "body").await;
    assert_eq!(answer.head.status, 308);
    assert_eq!(
        answer.head.get("location"),
        Some("http://elsewhere/new?a=b")
    );
    assert_eq!(answer.head.get("x-back"), Some("3"));
    assert_eq!(answer.head.reason(), "");
    assert_eq!(caller.log_lines(1).await[0]["filter"], "redirect");
    caller
        .expect_metric(&[
            "outrigger_filter_actions_total",
            "action=\"redirect\"",
            " 1",
        ])
        .await;

    let direct = Filter::DirectResponse(DirectResponse {
        status: StatusCode::IM_A_TEAPOT,
        content_type: Some(value("text/plain")),
        body: Bytes::from_static(b"short and stout"),
    });
    let caller = plain(with(vec![direct]), &[]);
    let mut client = Http1::connect(caller.outbound()).await;
    for _ in 0..2 {
        let answer = client.request("GET / HTTP/1.1\r\nhost: chat\r\n\r\n").await;
        assert_eq!(
            (answer.head.status, answer.body.as_str()),
            (418, "short and stout")
        );
        assert_eq!(answer.head.get("content-type"), Some("text/plain"));
    }
    client.write("HEAD / HTTP/1.1\r\nhost: chat\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!((head.status, head.get("content-length")), (418, Some("15")));
    // No body came with it: the next response stands where it belongs.
    assert_eq!(
        client
            .request("GET / HTTP/1.1\r\nhost: chat\r\n\r\n")
            .await
            .head
            .status,
        418
    );
}

fn cors() -> Cors {
    Cors {
        origins: vec![Origin::new("https://*.example").unwrap()],
        credentials: true,
        methods: AllowList::These(value("GET, POST")),
        headers: AllowList::Any,
        expose: Some(value("x-app")),
        max_age: value("60"),
    }
}

#[tokio::test]
async fn preflights_are_answered_and_origins_are_named() {
    let caller = plain(with(vec![Filter::Cors(cors())]), &[says().await]);
    let preflight = |origin: &str| {
        format!(
            "OPTIONS /x HTTP/1.1\r\nhost: chat\r\norigin: {origin}\r\naccess-control-request-method: POST\r\n\
             access-control-request-headers: x-a, x-b\r\n\r\n"
        )
    };
    let answer = once(caller.outbound(), &preflight("https://a.example"))
        .await
        .head;
    assert_eq!(answer.status, 204);
    let get = |name: &str| answer.get(name);
    assert_eq!(
        get("access-control-allow-origin"),
        Some("https://a.example")
    );
    assert_eq!(get("access-control-allow-credentials"), Some("true"));
    assert_eq!(get("access-control-allow-methods"), Some("GET, POST"));
    assert_eq!(get("access-control-allow-headers"), Some("x-a, x-b"));
    assert_eq!(get("access-control-max-age"), Some("60"));
    assert_eq!(get("content-length"), None);
    let refused = once(caller.outbound(), &preflight("https://evil"))
        .await
        .head;
    assert_eq!(
        (refused.status, refused.get("access-control-allow-origin")),
        (204, None)
    );
    caller
        .expect_metric(&["outrigger_filter_actions_total", "cors-preflight", " 2"])
        .await;

    let from = |origin: &str| format!("GET / HTTP/1.1\r\nhost: chat\r\norigin: {origin}\r\n\r\n");
    let answer = once(caller.outbound(), &from("https://a.example"))
        .await
        .head;
    assert_eq!(
        answer.get("access-control-allow-origin"),
        Some("https://a.example")
    );
    assert_eq!(answer.get("access-control-expose-headers"), Some("x-app"));
    assert_eq!(
        answer.get("vary"),
        Some("accept"),
        "the application's stays"
    );
    let answer = once(caller.outbound(), &from("https://evil")).await.head;
    assert_eq!(
        (answer.status, answer.get("access-control-allow-origin")),
        (200, None)
    );
    // Options that are no preflight are the application's.
    let answer = once(
        caller.outbound(),
        "OPTIONS /x HTTP/1.1\r\nhost: chat\r\norigin: https://a.example\r\n\r\n",
    )
    .await;
    assert!(answer.body.starts_with("OPTIONS /x"), "{}", answer.body);
    // A page may read why a request failed.
    let caller = plain(with(vec![Filter::Cors(cors())]), &[nobody().await]);
    let answer = once(caller.outbound(), &from("https://a.example"))
        .await
        .head;
    assert_eq!(answer.status, 503);
    assert_eq!(
        answer.get("access-control-allow-origin"),
        Some("https://a.example")
    );
}

fn fault(fault: FaultInjection) -> Vec<Filter> {
    vec![Filter::Fault(fault)]
}

#[tokio::test]
async fn an_abort_is_an_error_with_a_reason_of_its_own() {
    let fault = fault(FaultInjection {
        headers: vec![HeaderMatch {
            name: name("x-chaos"),
            value: StringMatch::exact("yes"),
        }],
        abort: Some((Abort::Http(StatusCode::TOO_MANY_REQUESTS), Share::ALL)),
        ..FaultInjection::default()
    });
    let caller = plain(with(fault), &[says().await]);
    assert_eq!(get(caller.outbound(), "/").await.head.status, 200);
    let ask = "GET / HTTP/1.1\r\nhost: chat\r\nx-chaos: yes\r\n\r\n";
    let answer = once(caller.outbound(), ask).await;
    assert_eq!(
        (answer.head.status, answer.head.reason()),
        (429, "fault-abort")
    );
    let ask = "POST /s/M HTTP/1.1\r\nhost: chat\r\nx-chaos: yes\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n\r\n";
    let answer = once(caller.outbound(), ask).await;
    assert_eq!(
        (answer.head.status, answer.head.get("grpc-status")),
        (200, Some("14"))
    );
    let lines = caller.log_lines(3).await;
    assert_eq!(
        (&lines[1]["reason"], &lines[1]["filter"]),
        (&"fault-abort".into(), &"fault-abort".into())
    );
    assert_eq!(lines[1]["attempts"], 0);
    caller
        .expect_metric(&["outrigger_filter_actions_total", "fault-abort", " 2"])
        .await;
}

#[tokio::test]
async fn a_delay_counts_against_the_requests_time() {
    let app = says().await;
    let delayed = |pause: u64, timeouts: Timeouts| Calls {
        timeouts,
        ..with(fault(FaultInjection {
            delay: Some((Duration::from_millis(pause), Share::ALL)),
            ..FaultInjection::default()
        }))
    };
    let caller = plain(delayed(150, Timeouts::default()), &[app]);
    let begun = Instant::now();
    assert_eq!(get(caller.outbound(), "/").await.head.status, 200);
    assert!(begun.elapsed() >= Duration::from_millis(150));
    let line = &caller.log_lines(1).await[0];
    assert_eq!(
        (&line["filter"], line["status"].as_u64()),
        (&"fault-delay".into(), Some(200))
    );

    let timeouts = Timeouts {
        request: Some(Duration::from_millis(50)),
        ..Timeouts::default()
    };
    let caller = plain(delayed(600_000, timeouts), &[app]);
    let answer = get(caller.outbound(), "/").await;
    assert_eq!(
        (answer.head.status, answer.head.reason()),
        (504, "request-timeout")
    );
}

#[tokio::test]
async fn a_truncated_response_looks_truncated() {
    let app = application(|_| async { text("0123456789") }).await;
    let truncated = |bytes| {
        with(fault(FaultInjection {
            truncate: Some((bytes, Share::ALL)),
            ..FaultInjection::default()
        }))
    };
    for bytes in [0, 1, 9] {
        let pair = Pair::new(truncated(bytes), app);
        let mut client = Http1::connect(pair.address()).await;
        client.write("GET / HTTP/1.1\r\nhost: chat\r\n\r\n").await;
        let head = client.head().await;
        assert_eq!((head.status, head.get("content-length")), (200, Some("10")));
        let mut body = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut client.stream, &mut body).await;
        assert_eq!(body, b"0123456789"[..bytes as usize]);
        let line = &pair.caller.log_lines(1).await[0];
        assert_eq!(line["reason"], "fault-truncate");

        // HTTP/2: the stream is reset.
        let mut send = super::http2::connect(pair.address()).await;
        let request = Request::get("http://chat/").body(()).unwrap();
        let response = send.send_request(request, true).unwrap().0.await.unwrap();
        let mut stream = response.into_body();
        let mut got = 0;
        let error = loop {
            match stream.data().await {
                Some(Ok(data)) => got += data.len(),
                Some(Err(error)) => break error,
                None => panic!("it looks whole"),
            }
        };
        assert_eq!(got, bytes as usize);
        assert!(error.is_reset(), "{error}");
        pair.caller.idle().await;
        pair.server.idle().await;
    }
    let caller = plain(truncated(10), &[app]);
    assert_eq!(
        get(caller.outbound(), "/").await.body,
        "0123456789",
        "it was not longer"
    );
}

/// A mirror of the route to `to`, as the control plane would have it.
fn mirrored(
    caller: &Sidecar,
    calls: &Calls,
    app: std::net::SocketAddr,
    to: std::net::SocketAddr,
    limit: Duration,
) {
    mirrored_to(caller, calls, app, super::mesh::endpoint(to, false), limit);
}

/// As [`mirrored`], to whatever endpoint.
pub(super) fn mirrored_to(
    caller: &Sidecar,
    calls: &Calls,
    app: std::net::SocketAddr,
    to: Arc<crate::balance::Endpoint>,
    limit: Duration,
) {
    let metrics = &caller.shared.metrics;
    let mut other = calls.snapshot(metrics, vec![to]);
    other.hosts.clear();
    let (_, service) = other.services.drain().next().unwrap();
    let mut service = Arc::into_inner(service).unwrap();
    let mut rule = Arc::into_inner(service.rules.remove(0)).unwrap();
    let backend = rule.backends.remove(0);
    let mirror = Filter::Mirror(Arc::new(Mirror {
        backend,
        share: Share::ALL,
        limit,
        metrics: metrics.mirror("default/chat", "default/all", "default/shadow"),
    }));
    let calls = with(vec![mirror]);
    caller.set(calls.snapshot(metrics, vec![super::mesh::endpoint(app, false)]));
}

async fn mirroring(app: std::net::SocketAddr, to: std::net::SocketAddr) -> Sidecar {
    let caller = plain(Calls::default(), &[app]);
    mirrored(&caller, &Calls::default(), app, to, Duration::from_secs(10));
    caller
}

#[tokio::test]
async fn a_mirror_gets_the_whole_request_and_its_response_is_dropped() {
    let (send, mut copies) = tokio::sync::mpsc::unbounded_channel();
    let shadow = application(move |request: Request<Incoming>| {
        let send = send.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let host = head.headers["host"].to_str().unwrap().to_owned();
            send.send(format!(
                "{} {} {host} {}",
                head.method,
                head.uri,
                body.len()
            ))
            .unwrap();
            text("never seen")
        }
    })
    .await;
    let caller = mirroring(says().await, shadow).await;
    let answer = post(caller.outbound(), "/a?b", "hello").await;
    assert_eq!(answer.body, "POST /a?b host=chat hello");
    assert_eq!(copies.recv().await.unwrap(), "POST /a?b chat 5");
    get(caller.outbound(), "/c").await;
    assert_eq!(copies.recv().await.unwrap(), "GET /c chat 0");
    let large = "x".repeat(600_000);
    let answer = post(caller.outbound(), "/d", &large).await;
    assert!(answer.body.ends_with(&large));
    assert_eq!(copies.recv().await.unwrap(), "POST /d chat 600000");
    caller
        .expect_metric(&[
            "outrigger_mirrored_requests_total",
            "default/shadow",
            "outcome=\"ok\"",
            " 3",
        ])
        .await;
}

#[tokio::test]
async fn the_original_neither_waits_for_a_mirror_nor_fails_with_it() {
    let app = says().await;
    // Nobody, one that never reads, and one that answers with an error.
    let caller = mirroring(app, nobody().await).await;
    assert_eq!(post(caller.outbound(), "/", "x").await.head.status, 200);
    caller
        .expect_metric(&[
            "outrigger_mirrored_requests_total",
            "outcome=\"failed\"",
            " 1",
        ])
        .await;

    let stuck = sockets(|stream| async move {
        tokio::time::sleep(Duration::from_secs(600)).await;
        drop(stream);
    })
    .await;
    let caller = mirroring(app, stuck).await;
    // More than sockets and the buffer hold.
    let large = "x".repeat(24 << 20);
    let answer = post(caller.outbound(), "/", &large).await;
    assert_eq!(answer.head.status, 200);
    assert!(answer.body.ends_with(&large));
    caller
        .expect_metric(&[
            "outrigger_mirrored_requests_total",
            "outcome=\"too-slow\"",
            " 1",
        ])
        .await;

    let angry = application(|request: Request<Incoming>| async move {
        request.into_body().collect().await.unwrap();
        Response::builder()
            .status(500)
            .body(Full::default())
            .unwrap()
    })
    .await;
    let caller = mirroring(app, angry).await;
    assert_eq!(post(caller.outbound(), "/", "x").await.head.status, 200);
    caller
        .expect_metric(&[
            "outrigger_mirrored_requests_total",
            "outcome=\"error\"",
            " 1",
        ])
        .await;
}

#[tokio::test]
async fn a_mirror_does_not_get_half_a_request_as_a_whole() {
    let whole = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&whole);
    let shadow = application(move |request: Request<Incoming>| {
        let seen = Arc::clone(&seen);
        async move {
            if request.into_body().collect().await.is_ok() {
                seen.fetch_add(1, SeqCst);
            }
            text("")
        }
    })
    .await;
    // The application answers and closes before it has read all of the body.
    let caller = mirroring(says().await, shadow).await;
    let mut client = Http1::connect(caller.outbound()).await;
    client
        .write("POST / HTTP/1.1\r\nhost: chat\r\ncontent-length: 100\r\n\r\nhalf")
        .await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    client.stream.shutdown().await.unwrap();
    drop(client);
    caller
        .expect_metric(&["outrigger_mirrored_requests_total", "outcome=\"cut\"", " 1"])
        .await;
    assert_eq!(whole.load(SeqCst), 0);
}

#[tokio::test]
async fn a_mirror_that_does_not_answer_is_given_up() {
    let stuck = sockets(|stream| async move {
        tokio::time::sleep(Duration::from_secs(600)).await;
        drop(stream);
    })
    .await;
    let app = says().await;
    let caller = plain(Calls::default(), &[app]);
    mirrored(
        &caller,
        &Calls::default(),
        app,
        stuck,
        Duration::from_millis(50),
    );
    assert_eq!(get(caller.outbound(), "/").await.head.status, 200);
    caller
        .expect_metric(&[
            "outrigger_mirrored_requests_total",
            "outcome=\"timeout\"",
            " 1",
        ])
        .await;
}
