//! Traces, told to an OTLP receiver.

use std::time::Duration;

use outrigger_tests::client::{self, Answer, full};
use outrigger_tests::otlp::{Receiver, Span};
use outrigger_tests::tls::Authority;
use outrigger_tests::upstream::{Http, Listener};
use outrigger_tests::{ControlPlane, ModelServer, Sidecar, eventually, loopback};

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::mesh::{Mesh, service};

const LONG: Duration = Duration::from_secs(20);
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// The example file, for this receiver.
fn example(endpoint: &str) -> String {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../examples/policies/tracing.yaml"
    );
    let text = std::fs::read_to_string(path).unwrap();
    let changed = text.replace("http://127.0.0.1:4317", endpoint);
    assert_ne!(changed, text);
    changed
}

/// Applies it, and waits for the sidecars.
async fn trace_to(endpoint: &str, control_plane: &ControlPlane, sidecars: &[&Sidecar]) {
    control_plane.apply(&example(endpoint));
    for sidecar in sidecars {
        eventually("the policy", LONG, async || {
            let config = sidecar.admin("/config").await.json();
            match config["mesh"]["tracing"]["endpoint"] == *endpoint {
                true => Ok(()),
                false => Err(config["mesh"].to_string()),
            }
        })
        .await;
    }
}

async fn get(caller: &Sidecar, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut head = http::Request::builder().uri(path).header("host", "chat");
    for (name, value) in headers {
        head = head.header(*name, *value);
    }
    client::request(caller.outbound(), head, client::empty()).await
}

/// The spans of a trace, once there are so many.
async fn spans(receiver: &Receiver, trace: &str, count: usize) -> Vec<Span> {
    let mut found = eventually("the spans", LONG, async || {
        let spans = receiver.trace(trace);
        match spans.len() >= count {
            true => Ok(spans),
            false => Err(format!("{spans:#?}")),
        }
    })
    .await;
    assert_eq!(found.len(), count, "{found:#?}");
    found.sort_by_key(|span| span.start);
    found
}

fn of_kind<'a>(spans: &'a [Span], kind: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.kind == kind).collect()
}

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{CALLER}-{flags}")
}

#[tokio::test]
async fn a_request_through_two_sidecars_is_one_connected_trace() {
    let receiver = Receiver::start().await;
    let mesh = Mesh::start("").await;
    let sidecars = [&mesh.caller, &mesh.server];
    trace_to(&receiver.endpoint(), &mesh.control_plane, &sidecars).await;
    let sampled = parent("01");
    let headers = [("traceparent", &*sampled), ("tracestate", "vendor=1")];
    let answer = get(&mesh.caller, "/hello?secret=1", &headers).await;
    assert_eq!(answer.status, 200);
    let spans = spans(&receiver, TRACE, 2).await;
    let [client] = of_kind(&spans, "Client")[..] else {
        panic!("{spans:#?}");
    };
    let [server] = of_kind(&spans, "Server")[..] else {
        panic!("{spans:#?}");
    };
    assert_eq!((&*client.service, &*client.parent), ("caller", CALLER));
    assert_eq!((&*server.service, &*server.parent), ("chat", &*client.id));
    let echo = answer.json();
    let expected = format!("00-{TRACE}-{}-01", server.id);
    assert_eq!(echo["headers"]["traceparent"], expected, "the application");
    assert_eq!(echo["headers"]["tracestate"], "vendor=1");
    assert!(client.start <= server.start && server.start <= server.end);

    for (span, peer) in [(client, "chat"), (server, "caller")] {
        assert!(!span.is_error, "{span:#?}");
        assert_eq!(span.name, "GET default/chat");
        assert_eq!(span.attribute("http.request.method"), "GET");
        assert_eq!(span.attribute("http.response.status_code"), "200");
        assert_eq!(span.attribute("outrigger.service"), "default/chat");
        let id = format!("spiffe://outrigger.local/ns/default/sa/{peer}");
        assert_eq!(span.attribute("outrigger.peer.id"), id);
        assert!(!format!("{span:?}").contains("secret"), "{span:#?}");
    }
    assert_eq!(client.attribute("url.full"), "http://chat/hello");
    assert_eq!(server.attribute("url.path"), "/hello");
    let inbound = mesh.server.inbound();
    assert_eq!(
        client.attribute("network.peer.port"),
        inbound.port().to_string()
    );

    // The same request unsampled leaves nothing, and goes on as it came.
    let other = format!("00-{}-{CALLER}-00", TRACE.replace('4', "5"));
    let answer = get(&mesh.caller, "/", &[("traceparent", &other)]).await;
    assert_eq!(answer.json()["headers"]["traceparent"], other);
    // What is told of later is here: the one before would be as well.
    let later = TRACE.replace('4', "6");
    let header = format!("00-{later}-{CALLER}-01");
    get(&mesh.caller, "/status/503", &[("traceparent", &header)]).await;
    let failed = self::spans(&receiver, &later, 2).await;
    for span in &failed {
        assert!(span.is_error, "{span:#?}");
        assert_eq!(span.attribute("error.type"), "503");
    }
    assert_eq!(receiver.trace(&TRACE.replace('4', "5")), []);
    let metrics = mesh.caller.metrics().await;
    let told = metrics.sum("outrigger_trace_spans_total", &[("result", "exported")]);
    assert_eq!(told, 2.0);
    let described = mesh.control_plane.ctl(&["describe", "mesh", "default"]);
    assert!(described.contains("5% of what begins here"), "{described}");
}

#[tokio::test]
async fn a_trace_that_begins_here_has_one_root() {
    let receiver = Receiver::start().await;
    let mesh = Mesh::start("").await;
    let sidecars = [&mesh.caller, &mesh.server];
    trace_to(&receiver.endpoint(), &mesh.control_plane, &sidecars).await;
    let all = example(&receiver.endpoint()).replace("samplingPercent: 5", "samplingPercent: 100");
    mesh.control_plane.apply(&all);
    for sidecar in sidecars {
        eventually("all are sampled", LONG, async || {
            let config = sidecar.admin("/config").await.json();
            match config["mesh"]["tracing"]["sampling_percent"] == 100.0 {
                true => Ok(()),
                false => Err(config["mesh"].to_string()),
            }
        })
        .await;
    }
    // Twice, or malformed, it is none; what another system says of it means nothing then.
    let twice = [
        ("traceparent", &*parent("01")),
        ("traceparent", &*parent("01")),
        ("tracestate", "vendor=1"),
    ];
    for headers in [&[][..], &[("traceparent", "00-what-ever")], &twice] {
        let answer = get(&mesh.caller, "/", headers).await;
        let echo = answer.json();
        assert_eq!(echo["headers"].get("tracestate"), None, "{echo}");
        let header = echo["headers"]["traceparent"].as_str().unwrap();
        let trace = header[3..35].to_owned();
        assert_ne!(trace, TRACE);
        let spans = spans(&receiver, &trace, 2).await;
        let roots: Vec<_> = spans.iter().filter(|it| it.parent.is_empty()).collect();
        assert_eq!(roots.len(), 1, "{spans:#?}");
        assert_eq!(roots[0].kind, "Client");
    }
}

#[tokio::test]
async fn each_try_is_a_span() {
    let receiver = Receiver::start().await;
    let mesh = Mesh::start("retry: {attempts: 3, codes: [503]}").await;
    let sidecars = [&mesh.caller, &mesh.server];
    trace_to(&receiver.endpoint(), &mesh.control_plane, &sidecars).await;
    let sampled = parent("01");
    let path = "/flaky?key=traced&fail=2&status=503";
    let answer = get(&mesh.caller, path, &[("traceparent", &sampled)]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let spans = spans(&receiver, TRACE, 7).await;
    let [around] = of_kind(&spans, "Internal")[..] else {
        panic!("{spans:#?}");
    };
    assert_eq!(around.parent, CALLER);
    assert_eq!(around.attribute("outrigger.attempts"), "3");
    assert!(!around.is_error);
    let tries = of_kind(&spans, "Client");
    let servers = of_kind(&spans, "Server");
    assert_eq!((tries.len(), servers.len()), (3, 3), "{spans:#?}");
    for (number, it) in tries.iter().enumerate() {
        assert_eq!(it.parent, around.id);
        let resent = if number == 0 { "" } else { &number.to_string() };
        assert_eq!(it.attribute("http.request.resend_count"), resent);
        assert_eq!(it.is_error, number < 2);
        let below: Vec<_> = servers.iter().filter(|at| at.parent == it.id).collect();
        assert_eq!(below.len(), 1, "{spans:#?}");
        assert_eq!(below[0].is_error, number < 2);
    }
    let id = &servers.iter().find(|it| !it.is_error).unwrap().id;
    let expected = format!("00-{TRACE}-{id}-01");
    assert_eq!(answer.json()["headers"]["traceparent"], expected);
}

#[tokio::test]
async fn a_stream_of_a_model_says_what_it_took() {
    let receiver = Receiver::start().await;
    let control_plane = ControlPlane::start().await;
    let spec = "inference: {provider: vllm, models: [{name: tiny-chat}]}";
    control_plane.apply(&service("chat", spec));
    let model = ModelServer::start("model", &[]).await;
    let server = Sidecar::serving(&control_plane, "chat:80", model.address()).await;
    let caller = Sidecar::caller(&control_plane).await;
    eventually("chat is reached", LONG, async || {
        let answer = caller.get("chat", "/health").await;
        match answer.status.as_u16() {
            200 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
    trace_to(&receiver.endpoint(), &control_plane, &[&caller, &server]).await;
    let body = serde_json::json!({
        "model": "tiny-chat", "stream": true, "stream_options": {"include_usage": true}, "max_tokens": 9,
        "ignore_eos": true, "messages": [{"role": "user", "content": "Tell me of the sea."}],
    });
    let head = http::Request::builder()
        .method("POST")
        .uri("/v1/chat/completions")
        .header("host", "chat")
        .header("content-type", "application/json")
        .header("traceparent", parent("01"));
    let answer = client::request(caller.outbound(), head, full(body.to_string())).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let spans = spans(&receiver, TRACE, 2).await;
    for span in &spans {
        assert_eq!(span.name, "chat tiny-chat");
        let attributes = [
            ("gen_ai.operation.name", "chat"),
            ("gen_ai.provider.name", "vllm"),
            ("gen_ai.request.model", "tiny-chat"),
            ("gen_ai.usage.output_tokens", "9"),
            ("gen_ai.response.finish_reasons", "length"),
            ("outrigger.model.outcome", "complete"),
        ];
        for (key, value) in attributes {
            assert_eq!(span.attribute(key), value, "{key}: {span:#?}");
        }
        let input = span.attribute("gen_ai.usage.input_tokens");
        assert!(input.parse::<u32>().unwrap() > 0);
        let seconds = span.attribute("gen_ai.response.time_to_first_chunk");
        assert!(seconds.parse::<f64>().unwrap() > 0.0);
        let [(name, at)] = &span.events[..] else {
            panic!("{span:#?}");
        };
        assert_eq!(name, "gen_ai.first_token");
        assert!(span.start < *at && *at <= span.end, "{span:#?}");
    }
}

#[tokio::test]
async fn a_receiver_that_is_away_holds_nothing_up() {
    let mesh = Mesh::start("").await;
    let nobody = format!("http://{}:24317", loopback());
    let sidecars = [&mesh.caller, &mesh.server];
    trace_to(&nobody, &mesh.control_plane, &sidecars).await;
    let header = parent("01");
    let lost = eventually("spans are lost", LONG, async || {
        let answer = get(&mesh.caller, "/", &[("traceparent", &header)]).await;
        assert_eq!(answer.status, 200);
        let metrics = mesh.caller.metrics().await;
        let of = |result| metrics.sum("outrigger_trace_spans_total", &[("result", result)]);
        match of("unsent") + of("queue-full") {
            0.0 => Err("none yet".to_owned()),
            lost => Ok((lost, of("exported"))),
        }
    })
    .await;
    assert_eq!(lost.1, 0.0);
    // Another receiver, and then none: without a restart.
    let receiver = Receiver::start().await;
    trace_to(&receiver.endpoint(), &mesh.control_plane, &sidecars).await;
    let other = TRACE.replace('4', "7");
    let header = format!("00-{other}-{CALLER}-01");
    get(&mesh.caller, "/", &[("traceparent", &header)]).await;
    spans(&receiver, &other, 2).await;
    mesh.control_plane
        .apply("kind: Mesh\nmetadata: {name: default}\nspec: {}\n");
    for sidecar in sidecars {
        eventually("it is off", LONG, async || {
            let config = sidecar.admin("/config").await.json();
            match config["mesh"]["tracing"].is_null() {
                true => Ok(()),
                false => Err(config["mesh"].to_string()),
            }
        })
        .await;
    }
    let answer = get(&mesh.caller, "/", &[("traceparent", &header)]).await;
    assert_eq!(answer.json()["headers"]["traceparent"], header);
}

/// The example with this authority for its receiver.
fn trusting(authority: &Authority, endpoint: &str) -> String {
    let mut policy = example(endpoint);
    policy.push_str("      caCertificates: |\n");
    for line in authority.pem().lines() {
        policy.push_str(&format!("        {line}\n"));
    }
    policy
}

#[tokio::test]
async fn a_receiver_with_tls_must_prove_its_name() {
    let receiver = Receiver::start().await;
    let authority = Authority::new("of the receiver");
    let acceptor = TlsAcceptor::from(authority.issue_dns("localhost").server("h2"));
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let behind = receiver.address();
    let _front = Listener::start_at(address, move |stream| {
        let acceptor = acceptor.clone();
        async move {
            // Those who do not trust it leave.
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            if let Ok(mut inner) = TcpStream::connect(behind).await {
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut inner).await;
            }
        }
    })
    .await;
    let mesh = Mesh::start("").await;
    let result = async |wanted: &str| {
        let header = parent("01");
        eventually(wanted, LONG, async || {
            get(&mesh.caller, "/", &[("traceparent", &header)]).await;
            let metrics = mesh.caller.metrics().await;
            let of = |result| metrics.sum("outrigger_trace_spans_total", &[("result", result)]);
            match of(wanted) > 0.0 {
                true => Ok(of("exported")),
                false => Err("none yet".to_owned()),
            }
        })
        .await
    };
    let endpoint = format!("https://localhost:{}", address.port());
    let other = Authority::new("somebody else's");
    mesh.control_plane.apply(&trusting(&other, &endpoint));
    assert_eq!(result("unsent").await, 0.0);
    assert_eq!(receiver.all(), []);
    mesh.control_plane.apply(&trusting(&authority, &endpoint));
    result("exported").await;
    assert!(!receiver.trace(TRACE).is_empty());
}

#[tokio::test]
async fn what_is_queued_at_the_end_is_told() {
    let receiver = Receiver::start().await;
    let control_plane = ControlPlane::start().await;
    control_plane.apply(&service("chat", ""));
    let app = Http::start("chat").await;
    let _server = Sidecar::serving(&control_plane, "chat:80", app.address()).await;
    let mut caller = Sidecar::caller(&control_plane).await;
    caller.reaches("chat").await;
    trace_to(&receiver.endpoint(), &control_plane, &[&caller]).await;
    get(&caller, "/", &[("traceparent", &parent("01"))]).await;
    caller.sigterm();
    caller.process().exited(LONG).await;
    assert!(!receiver.trace(TRACE).is_empty());
}
