//! Ports whose protocol is found out, TLS that is passed on, PROXY protocol headers and Unix sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener};

use super::client;
use super::mesh::{
    CALLER, Calls, Pair, Sidecar, any, application, plain, serving, sockets, text, tls,
};
use crate::listener::proxy_protocol::{Version, encode};
use crate::policy::{ConnectionPool, Detection, Protocol};
use crate::runtime::{Bindings, ProxyProtocol, TcpBinding};
use crate::tls::test_ca::TestCa;

fn auto(detection: Detection) -> Calls {
    Calls {
        protocol: Protocol::Auto,
        detection,
        ..Calls::default()
    }
}

fn within(timeout: Duration) -> Detection {
    Detection {
        timeout,
        server_first: false,
    }
}

/// Speaks first, as mail servers and MySQL do, and echoes then.
async fn greeter() -> SocketAddr {
    sockets(|mut stream| async move {
        stream.write_all(b"220 hello\r\n").await.unwrap();
        let (mut reader, mut writer) = stream.split();
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    })
    .await
}

async fn greeting(address: SocketAddr) -> Duration {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut greeting = [0; 11];
    let read = stream.read_exact(&mut greeting);
    tokio::time::timeout(Duration::from_secs(20), read)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&greeting, b"220 hello\r\n");
    let took = begun.elapsed();
    stream.write_all(b"bye").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "bye");
    took
}

#[tokio::test]
async fn one_port_takes_http_1_http_2_and_bytes() {
    let app = sockets(|stream| async move {
        let mut first = [0; 1];
        stream.peek(&mut first).await.unwrap();
        if first == *b"*" {
            let mut stream = stream;
            let mut buffer = [0; 64];
            let count = stream.read(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..count], b"*1\r\n$4\r\nPING\r\n");
            stream.write_all(b"+PONG\r\n").await.unwrap();
            return;
        }
        let service = hyper::service::service_fn(|request: http::Request<_>| async move {
            let _: &hyper::body::Incoming = request.body();
            Ok::<_, std::convert::Infallible>(text(&format!("{:?}", request.version())))
        });
        let executor = hyper_util::rt::TokioExecutor::new();
        let _ = hyper_util::server::conn::auto::Builder::new(executor)
            .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
            .await;
    })
    .await;
    let pair = Pair::new(auto(Detection::default()), app);
    let one_hop = plain(auto(Detection::default()), &[app]);
    for caller in [&pair.caller, &one_hop] {
        let port = caller.bound.tcp[0];
        // Whatever host the request names: the listener says which service is meant.
        let answer = client::get(port, "/").await;
        assert_eq!((answer.head.status, &*answer.body), (200, "HTTP/1.1"));

        let mut send = super::http2::connect(port).await;
        let request = http::Request::get("http://elsewhere/").body(()).unwrap();
        let (response, _) = send.send_request(request, true).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "HTTP/2.0");

        let mut redis = TcpStream::connect(port).await.unwrap();
        redis.write_all(b"*1\r\n$4\r\nPING\r\n").await.unwrap();
        let mut answer = String::new();
        redis.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "+PONG\r\n");
        for result in ["http1", "http2", "opaque"] {
            let label = format!("result=\"{result}\"}} 1");
            caller
                .expect_metric(&["outrigger_detections_total", "outbound", &label])
                .await;
        }
    }
}

#[tokio::test]
async fn a_server_that_speaks_first_is_waited_for_once() {
    let limit = Duration::from_millis(1500);
    let pair = Pair::new(auto(within(limit)), greeter().await);
    let port = pair.caller.bound.tcp[0];
    assert!(greeting(port).await >= limit);
    for _ in 0..3 {
        let took = greeting(port).await;
        assert!(took < limit, "waited {took:?}");
    }
    let counted = ["outrigger_detections_total", "outbound"];
    for label in ["\"timeout\"} 1", "\"learnt\"} 3"] {
        pair.caller
            .expect_metric(&[counted[0], counted[1], label])
            .await;
    }
}

#[tokio::test]
async fn what_is_declared_never_waits() {
    let declared = Detection {
        // Longer than the test may take.
        timeout: Duration::from_secs(60),
        server_first: true,
    };
    let app = greeter().await;
    let tcp = Calls {
        protocol: Protocol::Tcp,
        ..Calls::default()
    };
    for calls in [auto(declared), tcp] {
        let pair = Pair::new(calls, app);
        greeting(pair.caller.bound.tcp[0]).await;
    }
}

#[tokio::test]
async fn a_slow_client_is_not_taken_for_a_server_that_speaks_first() {
    let app = sockets(|mut stream| async move {
        let mut buffer = [0; 64];
        let count = stream.read(&mut buffer).await.unwrap();
        stream.write_all(&buffer[..count]).await.unwrap();
    })
    .await;
    let limit = Duration::from_millis(50);
    let pair = Pair::new(auto(within(limit)), app);
    let mut stream = TcpStream::connect(pair.caller.bound.tcp[0]).await.unwrap();
    pair.caller
        .expect_metric(&["outrigger_detections_total", "timeout\"} 1"])
        .await;
    stream.write_all(b"late").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "late");
    let _second = TcpStream::connect(pair.caller.bound.tcp[0]).await.unwrap();
    pair.caller
        .expect_metric(&["outrigger_detections_total", "timeout\"} 2"])
        .await;
}

#[tokio::test]
async fn plaintext_reaches_the_only_port_where_the_mesh_is_permissive() {
    let limit = Duration::from_millis(300);
    let pair = Pair::new(auto(within(limit)), greeter().await);
    let mut snapshot = serving(greeter().await, Protocol::Auto);
    snapshot.mesh.permissive = true;
    pair.server.set(snapshot);
    greeting(pair.server.inbound()).await;
    // Those with a certificate go on as before.
    greeting(pair.caller.bound.tcp[0]).await;
    let line = &pair.server.log_lines(1).await[0];
    assert!(line.get("peer").is_none(), "{line}");
    assert_eq!(line["service"], "default/chat");
}

#[tokio::test]
async fn plaintext_keeps_its_version_where_the_mesh_is_permissive() {
    let app = application(|request| async move { text(&format!("{:?}", request.version())) }).await;
    let pair = Pair::new(auto(Detection::default()), app);
    let mut snapshot = serving(app, Protocol::Auto);
    snapshot.mesh.permissive = true;
    pair.server.set(snapshot);
    let address = pair.server.inbound();
    let mut send = super::http2::connect(address).await;
    let request = http::Request::get("http://chat/").body(()).unwrap();
    let (response, _) = send.send_request(request, true).unwrap();
    let mut body = response.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "HTTP/2.0");
    // What only a sidecar may say is not believed of others.
    let forged = "GET / HTTP/1.1\r\nhost: chat\r\nx-outrigger-prior-http2: 1\r\n\r\n";
    assert_eq!(client::once(address, forged).await.body, "HTTP/1.1");
}

#[tokio::test]
async fn a_tunnel_does_not_lead_around_the_limits_of_requests() {
    let app = application(|_| async { text("reached") }).await;
    let tunnel = async |pair: &Pair| {
        let mut client = client::Http1::connect(pair.address()).await;
        client
            .write("CONNECT chat:80 HTTP/1.1\r\nhost: chat:80\r\n\r\n")
            .await;
        assert_eq!(client.head().await.status, 200);
        let _ = client
            .stream
            .write_all(b"GET / HTTP/1.1\r\nhost: chat\r\n\r\n")
            .await;
        client.try_head().await.map(|head| head.status)
    };
    let pair = Pair::new(Calls::default(), app);
    assert_eq!(tunnel(&pair).await, Some(200));
    let mut snapshot = serving(app, Protocol::Http);
    for port in snapshot.inbound.values_mut() {
        Arc::get_mut(port).unwrap().gate = Some(crate::admission::Gate::new(
            crate::policy::ServerLimits {
                concurrency: crate::policy::Concurrency::Fixed(1),
                queue: None,
                priorities: None,
            },
            Arc::default(),
            Arc::default(),
        ));
    }
    pair.server.set(snapshot);
    assert_eq!(tunnel(&pair).await, None);
    let lines = pair.server.log_lines(2).await;
    let refused = |line: &serde_json::Value| line["reason"] == "protocol-mismatch";
    assert!(lines.iter().any(refused), "{lines:?}");
}

/// A sidecar that calls `default/chat`, with these listeners.
fn calling(bindings: Bindings, calls: &Calls, app: SocketAddr) -> Sidecar {
    let caller = Sidecar::start(Some(tls(&TestCa::new(), CALLER)), bindings);
    let endpoints = vec![super::mesh::endpoint(app, false)];
    caller.set(calls.snapshot(&caller.shared.metrics, endpoints));
    caller
}

#[tokio::test]
async fn tls_is_routed_by_name_and_passed_on_as_it_is() {
    let app = sockets(|mut stream| async move {
        let mut hello = vec![0; 16 * 1024];
        let count = stream.read(&mut hello).await.unwrap();
        stream.write_all(&hello[..count]).await.unwrap();
    })
    .await;
    let calls = Calls {
        protocol: Protocol::Tls,
        ..Calls::default()
    };
    let bindings = Bindings {
        tls: Some(any()),
        ..Bindings::default()
    };
    let caller = calling(bindings, &calls, app);
    let address = caller.bound.tls.unwrap();
    let hello = crate::detect::client_hello::tests::hello("chat.default");
    let talk = async |bytes: &[u8]| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let (start, end) = bytes.split_at(bytes.len() / 2);
        stream.write_all(start).await.unwrap();
        tokio::task::yield_now().await;
        // The first half may be enough for a refusal, and that may come as a reset.
        let _ = stream.write_all(end).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        answer
    };
    assert_eq!(talk(&hello).await, hello);
    let line = &caller.log_lines(1).await[0];
    assert_eq!(line["service"], "default/chat");
    assert_eq!(line["bytes_in"], hello.len());

    let unknown = crate::detect::client_hello::tests::hello("nobody");
    assert_eq!(talk(&unknown).await, [21, 3, 3, 0, 2, 2, 112]);
    let nameless = crate::detect::client_hello::tests::hello("10.1.2.3");
    assert_eq!(talk(&nameless).await, b"");
    assert_eq!(talk(b"GET / HTTP/1.1\r\n\r\n").await, b"");
    for result in ["routed", "no-route", "no-name", "not-tls"] {
        let label = format!("\"{result}\"}} 1");
        caller
            .expect_metric(&["outrigger_tls_passthrough_total", &label])
            .await;
    }
    let reasons: Vec<_> = caller.log_lines(4).await;
    let reasons: Vec<_> = reasons.iter().map(|line| line["reason"].clone()).collect();
    assert_eq!(
        reasons[1..],
        ["no-route", "protocol-mismatch", "protocol-mismatch"]
    );
}

#[tokio::test]
async fn the_address_in_front_of_a_load_balancer_is_logged() {
    let app = application(|_| async { text("fine") }).await;
    let bindings = Bindings {
        outbound: Some(any()),
        tcp: vec![TcpBinding {
            service: Arc::from("default/chat"),
            port: 80,
            listen: any(),
        }],
        proxy_protocol: ProxyProtocol {
            outbound: true,
            inbound: true,
            tcp: true,
        },
        ..Bindings::default()
    };
    let caller = calling(bindings, &Calls::default(), app);
    let from = "192.0.2.7:4711".parse().unwrap();
    let get = b"GET / HTTP/1.1\r\nhost: chat\r\nconnection: close\r\n\r\n";
    let mut lines = 0;
    for version in [Version::V1, Version::V2] {
        for address in [caller.outbound(), caller.bound.tcp[0]] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let header = encode(version, Some(from), Some(address));
            stream.write_all(&header).await.unwrap();
            stream.write_all(get).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.ends_with("fine"), "{answer}");
            // Connections of bytes end when both sides have closed.
            drop(stream);
            lines += 1;
            let line = &caller.log_lines(lines).await[lines - 1];
            assert_eq!(line["client"], "192.0.2.7:4711");
        }
    }
    for address in [caller.outbound(), caller.bound.tcp[0]] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(get).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert_eq!(answer, b"");
    }
    let refused = "outrigger_proxy_protocol_refused_total";
    caller
        .expect_metric(&[refused, "outbound", "\"missing\"} 2"])
        .await;
}

#[tokio::test]
async fn the_application_is_told_the_address() {
    let app = sockets(|mut stream| async move {
        let mut buffer = [0; 256];
        let count = stream.read(&mut buffer).await.unwrap();
        stream.write_all(&buffer[..count]).await.unwrap();
    })
    .await;
    let calls = Calls {
        protocol: Protocol::Tcp,
        ..Calls::default()
    };
    let pair = Pair::new(calls, app);
    let mut snapshot = serving(app, Protocol::Tcp);
    for port in snapshot.inbound.values_mut() {
        Arc::get_mut(port).unwrap().proxy_protocol = Some(Version::V1);
    }
    pair.server.set(snapshot);
    let mut stream = TcpStream::connect(pair.caller.bound.tcp[0]).await.unwrap();
    let mut header = String::new();
    stream.read_to_string(&mut header).await.unwrap();
    let words: Vec<_> = header.split(' ').collect();
    assert_eq!(words[..3], ["PROXY", "TCP4", "127.0.0.1"]);
    let port = format!("{}\r\n", pair.server.inbound().port());
    assert_eq!(words[5], port);
}

#[tokio::test]
async fn applications_may_listen_on_unix_sockets() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let service = hyper::service::service_fn(|_| async {
                    Ok::<_, std::convert::Infallible>(Response::new(String::from("by socket")))
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    let pair = Pair::new(Calls::default(), any());
    let address: crate::address::Address = format!("unix:{}", path.display()).parse().unwrap();
    pair.server.set(serving(address.clone(), Protocol::Http));
    for _ in 0..3 {
        let answer = client::get(pair.address(), "/").await;
        assert_eq!((answer.head.status, &*answer.body), (200, "by socket"));
    }
    let line = &pair.server.log_lines(1).await[0];
    assert_eq!(line["upstream"], address.to_string());
    // Bytes, too.
    let calls = Calls {
        protocol: Protocol::Tcp,
        pool: ConnectionPool::default(),
        ..Calls::default()
    };
    let endpoints = vec![super::mesh::endpoint(pair.server.inbound(), true)];
    let metrics = &pair.caller.shared.metrics;
    pair.caller.set(calls.snapshot(metrics, endpoints));
    pair.server.set(serving(address, Protocol::Tcp));
    let answer = client::get(pair.caller.bound.tcp[0], "/").await;
    assert_eq!(answer.body, "by socket");
}

#[tokio::test]
async fn either_side_may_close_first_through_both_sidecars() {
    // The server says all it has to say, closes its side, and hears the client out.
    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    let app = sockets(move |mut stream| {
        let heard = heard.clone();
        async move {
            stream.write_all(b"that was all").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut rest = String::new();
            stream.read_to_string(&mut rest).await.unwrap();
            heard.send(rest).unwrap();
        }
    })
    .await;
    let calls = Calls {
        protocol: Protocol::Tcp,
        ..Calls::default()
    };
    let pair = Pair::new(calls, app);
    let mut stream = TcpStream::connect(pair.caller.bound.tcp[0]).await.unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "that was all");
    stream.write_all(b"and more from me").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(hears.recv().await.unwrap(), "and more from me");
    for sidecar in [&pair.caller, &pair.server] {
        let line = &sidecar.log_lines(1).await[0];
        assert!(line.get("reason").is_none(), "{line}");
        assert_eq!(
            (&line["bytes_in"], &line["bytes_out"]),
            (&16.into(), &12.into())
        );
    }
}
