//! Servers outside the mesh: by DNS names, over TLS, and hosts that are passed through.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use outrigger_tests::dns::{Answer, DnsServer};
use outrigger_tests::tls::{Authority, Identity};
use outrigger_tests::upstream::{Http, Listener};
use outrigger_tests::{ControlPlane, Sidecar, eventually, loopback};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::mesh::service;

const EXAMPLE: &str = include_str!("../../../examples/policies/egress.yaml");

fn ip(address: SocketAddr) -> Ipv4Addr {
    match address {
        SocketAddr::V4(address) => *address.ip(),
        SocketAddr::V6(_) => unreachable!("tests listen on 127.0.0.0/8"),
    }
}

/// TLS with this certificate in front of an application.
async fn tls_server(identity: &Identity, application: &Http) -> Listener {
    let acceptor = TlsAcceptor::from(identity.server("http/1.1"));
    let application = application.address();
    let address = SocketAddr::new(loopback().into(), 8443);
    Listener::start_at(address, move |stream| {
        let acceptor = acceptor.clone();
        async move {
            // Those who do not trust it leave.
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            if let Ok(mut inner) = TcpStream::connect(application).await {
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut inner).await;
            }
        }
    })
    .await
}

async fn caller(control_plane: &ControlPlane, dns: &DnsServer, roots: &str) -> Sidecar {
    Sidecar::builder(control_plane, "caller")
        .flag(&format!("--dns-server={}", dns.address()))
        .env("SSL_CERT_FILE", roots)
        .start()
        .await
}

#[tokio::test]
async fn the_example_acts() {
    let authority = Authority::new("provider");
    let directory = tempfile::TempDir::new().unwrap();
    let roots = directory.path().join("roots.pem");
    std::fs::write(&roots, authority.pem()).unwrap();
    let provider = Http::start("provider").await;
    let identity = authority.issue_dns("api.llm.example");
    let server = tls_server(&identity, &provider).await;
    let other = Http::start("other").await;
    let dns = DnsServer::start().await;
    dns.set(
        "api.llm.example",
        Answer::Addresses(vec![ip(server.address())], 30),
    );
    dns.set(
        "other.example",
        Answer::Addresses(vec![ip(other.address())], 30),
    );
    let control_plane = ControlPlane::start().await;
    control_plane.apply(EXAMPLE);
    let caller = caller(&control_plane, &dns, roots.to_str().unwrap()).await;

    // The first request waits for DNS, and whatever it calls the service, the provider gets the name that it knows.
    for host in ["llm", "api.llm.example", "llm.default.svc:80"] {
        let answer = caller.get(host, "/v1/models?x=1").await;
        assert_eq!(answer.status, 200, "{} {}", answer.reason(), answer.text());
        let seen = answer.json();
        assert_eq!(seen["headers"]["host"], "api.llm.example:8443", "{host}");
        assert_eq!(seen["uri"], "/v1/models?x=1");
        let headers = seen["headers"].as_object().unwrap();
        let leaked =
            |name: &&String| name.starts_with("x-outrigger-") || name.contains("client-cert");
        assert_eq!(headers.keys().find(leaked), None);
    }
    assert_eq!(dns.asked("api.llm.example"), 1);

    passed_through(&caller, &other).await;

    let metrics = caller.metrics().await;
    let lookups = |service: &str, result: &str| {
        metrics.sum(
            "outrigger_dns_lookups_total",
            &[("service", service), ("result", result)],
        )
    };
    assert_eq!(lookups("default/llm", "ok"), 1.0);
    assert!(lookups("passthrough", "ok") >= 1.0);
    assert!(lookups("passthrough", "not-found") >= 1.0);
    let requests = metrics.sum(
        "outrigger_requests_total",
        &[("service", "passthrough"), ("code", "2xx")],
    );
    assert!(requests >= 2.0, "{requests}");
    let endpoints = caller.admin("/endpoints").await.json();
    let names = endpoints["dns"].as_array().unwrap();
    let llm = names
        .iter()
        .find(|name| name["host"] == "api.llm.example")
        .unwrap();
    assert_eq!(llm["addresses"][0], server.address().ip().to_string());
    let gone = names
        .iter()
        .find(|name| name["host"] == "gone.example")
        .unwrap();
    assert!(
        gone["error"].as_str().unwrap().contains("does not exist"),
        "{gone}"
    );
    let described = control_plane.ctl(&["describe", "service", "llm"]);
    assert!(described.contains("api.llm.example:8443"), "{described}");

    // Another default, and the same hosts are unknown again.
    control_plane
        .apply("kind: Mesh\nmetadata: {name: default}\nspec: {outbound: {unknownHosts: refuse}}\n");
    eventually(
        "unknown hosts are refused",
        Duration::from_secs(10),
        async || {
            let answer = caller.get("other.example:28000", "/").await;
            match (answer.status.as_u16(), answer.reason()) {
                (404, "no-route") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        },
    )
    .await;
}

async fn passed_through(caller: &Sidecar, other: &Http) {
    for host in ["other.example:28000", &other.address().to_string()] {
        let answer = caller.get(host, "/").await;
        assert_eq!(
            answer.status,
            200,
            "{host}: {} {}",
            answer.reason(),
            answer.text()
        );
        assert_eq!(answer.instance(), "other");
        assert_eq!(answer.json()["headers"]["host"], *host);
    }
    // What a client does with HTTPS_PROXY.
    let mut tunnel = TcpStream::connect(caller.outbound()).await.unwrap();
    let connect = "CONNECT other.example:28000 HTTP/1.1\r\nhost: other.example:28000\r\n\r\n";
    tunnel.write_all(connect.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    tunnel.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    tunnel
        .write_all(b"GET / HTTP/1.1\r\nhost: within\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut rest = String::new();
    tunnel.read_to_string(&mut rest).await.unwrap();
    assert!(rest.contains("x-instance: other"), "{rest}");

    let answer = caller.get("gone.example", "/").await;
    assert_eq!(
        (answer.status.as_u16(), answer.reason()),
        (503, "dns-failed")
    );
    assert!(answer.text().contains("gone.example"), "{}", answer.text());
    // No way back into the sidecar, to none of its ports.
    for own in [caller.outbound(), caller.metrics_address()] {
        let answer = caller.get(&own.to_string(), "/metrics").await;
        assert_eq!(
            (answer.status.as_u16(), answer.reason()),
            (508, "loop-detected"),
            "{own}"
        );
    }
}

#[tokio::test]
async fn traffic_follows_dns() {
    let (first, second) = (Http::start("first").await, Http::start("second").await);
    let dns = DnsServer::start().await;
    let at =
        |apps: &[&Http]| Answer::Addresses(apps.iter().map(|app| ip(app.address())).collect(), 1);
    dns.set("api.example", at(&[&first]));
    let control_plane = ControlPlane::start().await;
    control_plane.apply(&service(
        "llm",
        // In turn: a new endpoint would wait for its turn where the other one is quick and nothing else is asked.
        "endpoints: {dns: [{host: api.example, port: 28000}]}\nloadBalancing: {policy: round-robin}",
    ));
    let caller = caller(&control_plane, &dns, "/dev/null").await;
    assert_eq!(caller.get("llm", "/").await.instance(), "first");
    assert_eq!(dns.asked("nobody.asked"), 0);

    dns.set("api.example", at(&[&second]));
    let meets = async |wanted: &str| {
        eventually(
            &format!("{wanted} is met"),
            Duration::from_secs(15),
            async || {
                let answer = caller.get("llm", "/").await;
                assert_eq!(answer.status, 200, "{} {}", answer.reason(), answer.text());
                match answer.instance() == wanted {
                    true => Ok(()),
                    false => Err(answer.instance().to_owned()),
                }
            },
        )
        .await;
    };
    meets("second").await;
    dns.set("api.example", at(&[&first, &second]));
    meets("first").await;
    meets("second").await;

    // Failing lookups change nothing, and are told.
    dns.set("api.example", Answer::Failure);
    eventually(
        "failures are counted",
        Duration::from_secs(15),
        async || {
            let failed = caller
                .metrics()
                .await
                .sum("outrigger_dns_lookups_total", &[("result", "failed")]);
            match failed >= 1.0 {
                true => Ok(()),
                false => Err(failed.to_string()),
            }
        },
    )
    .await;
    assert_eq!(caller.get("llm", "/").await.status, 200);
    let names = caller.admin("/endpoints").await.json();
    assert!(names["dns"][0]["error"].is_string(), "{names}");
}

#[tokio::test]
async fn only_the_right_server_is_trusted() {
    let authority = Authority::new("private");
    let app = Http::start("app").await;
    let server = tls_server(&authority.issue_dns("api.example"), &app).await;
    let dns = DnsServer::start().await;
    for name in ["api.example", "wrong.example"] {
        dns.set(name, Answer::Addresses(vec![ip(server.address())], 30));
    }
    let pem: String = authority
        .pem()
        .lines()
        .map(|line| format!("    {line}\n"))
        .collect();
    let tls = |name: &str, host: &str, more: &str| {
        service(
            name,
            &format!("endpoints: {{dns: [{{host: {host}, port: 8443}}]}}\ntls:\n{more}"),
        )
    };
    let with_ca = format!("  caCertificates: |\n{pem}");
    let control_plane = ControlPlane::start().await;
    control_plane.apply(&tls("right", "api.example", &with_ca));
    control_plane.apply(&tls("wrong-name", "wrong.example", &with_ca));
    control_plane.apply(&tls("no-ca", "api.example", "  mode: simple\n"));
    let named = format!("{with_ca}  subjectAltNames: [api.example]\n");
    control_plane.apply(&tls("named", "wrong.example", &named));
    let with_sni = format!("{with_ca}  sni: api.example\n");
    control_plane.apply(&tls("with-sni", "wrong.example", &with_sni));
    let caller = caller(&control_plane, &dns, "/dev/null").await;
    for host in ["right", "named", "with-sni"] {
        let answer = caller.get(host, "/").await;
        assert_eq!(
            answer.status,
            200,
            "{host}: {} {}",
            answer.reason(),
            answer.text()
        );
    }
    for host in ["wrong-name", "no-ca"] {
        let answer = caller.get(host, "/").await;
        assert_eq!(
            (answer.status.as_u16(), answer.reason()),
            (503, "upstream-untrusted"),
            "{host}"
        );
    }
    let metrics = caller.metrics().await;
    let handshakes = |result: &str| {
        let labels = [("direction", "outbound"), ("result", result)];
        metrics.sum("outrigger_tls_handshakes_total", &labels)
    };
    assert_eq!(handshakes("ok"), 3.0);
    assert!(handshakes("wrong-identity") >= 1.0);
    assert!(handshakes("untrusted") >= 1.0);
}
