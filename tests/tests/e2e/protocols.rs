//! Ports whose protocol is found out, TLS by name, Unix sockets, and real databases: with the example that the page shows.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use outrigger_tests::tls::Authority;
use outrigger_tests::upstream::{Http, Listener, tcp_greeter};
use outrigger_tests::{
    ControlPlane, Process, Sidecar, client, eventually, find_program, loopback, skip,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::mesh::service;

/// A file of `examples/policies`.
pub fn example(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../examples/policies")
        .join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A Redis server of Debian's package.
struct Redis {
    address: std::net::SocketAddr,
    _process: Process,
    _directory: tempfile::TempDir,
}

impl Redis {
    /// `None`: it is not installed.
    fn start() -> Option<Redis> {
        // The package with the tools has the same program under the name of a tool.
        let program = find_program("redis-server").or_else(|| find_program("redis-check-rdb"))?;
        let directory = tempfile::TempDir::new().unwrap();
        let address = std::net::SocketAddr::new(loopback().into(), 26379);
        let mut command = Command::new(program);
        command.arg0("redis-server").args([
            "--bind",
            &address.ip().to_string(),
            "--port",
            &address.port().to_string(),
            "--save",
            "",
            "--daemonize",
            "no",
            "--dir",
        ]);
        command.arg(directory.path());
        let process = Process::spawn("redis", command, directory.path());
        Some(Redis {
            address,
            _process: process,
            _directory: directory,
        })
    }
}

fn redis_cli(at: std::net::SocketAddr, arguments: &[&str]) -> Output {
    let program = find_program("redis-cli").expect("it comes with the server");
    Command::new(program)
        .args(["-h", &at.ip().to_string(), "-p", &at.port().to_string()])
        .args(arguments)
        .output()
        .unwrap()
}

#[tokio::test]
async fn redis_through_a_port_that_finds_out() {
    let (Some(redis), Some(benchmark)) = (Redis::start(), find_program("redis-benchmark")) else {
        return skip("there is no redis-server (Debian: redis-server or redis-tools) in PATH");
    };
    let control_plane = ControlPlane::start().await;
    control_plane.apply(&example("protocols.yaml"));
    let _server = Sidecar::serving(&control_plane, "cache:6379", redis.address).await;
    let caller = Sidecar::builder(&control_plane, "caller")
        .tcp("cache:6379", 6379)
        .start()
        .await;
    let at = caller.tcp(6379);
    eventually("Redis answers", Duration::from_secs(20), async || {
        let output = redis_cli(at, &["ping"]);
        match String::from_utf8_lossy(&output.stdout).trim() {
            "PONG" => Ok(()),
            other => Err(format!("{other} {output:?}")),
        }
    })
    .await;
    redis_cli(at, &["set", "key", "value with spaces"]);
    let output = redis_cli(at, &["get", "key"]);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "value with spaces\n"
    );
    let output = tokio::task::spawn_blocking(move || {
        Command::new(benchmark)
            .args(["-h", &at.ip().to_string(), "-p", &at.port().to_string()])
            .args(["-n", "5000", "-c", "20", "-t", "set,get,lrange_100", "-q"])
            .output()
            .unwrap()
    })
    .await
    .unwrap();
    assert!(output.status.success(), "{output:?}");
    let metrics = caller.metrics().await;
    let opaque = [("direction", "outbound"), ("result", "opaque")];
    assert!(metrics.sum("outrigger_detections_total", &opaque) >= 20.0);
    let described = control_plane.ctl(&["describe", "service", "cache"]);
    assert!(
        described.contains("6379/auto, from the first bytes within 500ms"),
        "{described}"
    );
}

#[tokio::test]
async fn a_server_that_speaks_first_is_declared_or_learnt() {
    let control_plane = ControlPlane::start().await;
    control_plane.apply(&example("protocols.yaml"));
    let app = tcp_greeter("220 ready\r\n").await;
    let _server = Sidecar::builder(&control_plane, "server")
        .serve("mail:25", app.address())
        .serve("cache:6379", app.address())
        .start()
        .await;
    let caller = Sidecar::builder(&control_plane, "caller")
        .tcp("mail:25", 2525)
        .tcp("cache:6379", 6379)
        .start()
        .await;
    let greeting = async |port: u16| {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(caller.tcp(port)).await.unwrap();
        let mut greeting = [0; 11];
        let read = stream.read_exact(&mut greeting);
        match tokio::time::timeout(Duration::from_secs(10), read).await {
            Ok(Ok(_)) => Ok(begun.elapsed()),
            other => Err(format!("{other:?}")),
        }
    };
    for port in [2525, 6379] {
        eventually("the server greets", Duration::from_secs(20), async || {
            greeting(port).await
        })
        .await;
    }
    for port in [2525, 6379] {
        greeting(port).await.unwrap();
    }
    let metrics = caller.metrics().await;
    let count = |result| {
        let labels = [("direction", "outbound"), ("result", result)];
        metrics.sum("outrigger_detections_total", &labels)
    };
    assert!(count("server-first") >= 2.0);
    assert!(count("timeout") >= 1.0);
    assert!(count("learnt") >= 1.0);
}

#[tokio::test]
async fn http_on_a_port_that_finds_out_is_routed() {
    let control_plane = ControlPlane::start().await;
    control_plane.apply(&example("protocols.yaml"));
    let app = Http::start("cache").await;
    let _server = Sidecar::serving(&control_plane, "cache:6379", app.address()).await;
    let caller = Sidecar::builder(&control_plane, "caller")
        .tcp("cache:6379", 6379)
        .start()
        .await;
    let to = caller.tcp(6379);
    eventually("HTTP is answered", Duration::from_secs(20), async || {
        let head = http::Request::builder()
            .uri("/")
            .header("host", "any.example");
        match client::try_request(to, head, client::empty()).await {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(app.requests() > 0);
}

#[tokio::test]
async fn tls_goes_where_its_name_says_and_stays_closed() {
    let control_plane = ControlPlane::start().await;
    control_plane.apply(&example("protocols.yaml"));
    let authority = Authority::new("the application's own");
    let config = authority.issue_dns("vault.example").server("vault/1");
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    let app = Listener::start(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            let _ = stream.write_all(b"a secret").await;
            let _ = stream.shutdown().await;
        }
    })
    .await;
    let _server = Sidecar::serving(&control_plane, "vault:443", app.address()).await;
    let caller = Sidecar::builder(&control_plane, "caller")
        .flag("--tls-listen=ADDRESS:8443")
        .start()
        .await;
    let to = caller.tcp(8443);
    let secret = eventually("the vault answers", Duration::from_secs(20), async || {
        let connecting = outrigger_tests::tls::connect(to, "vault.example", "vault/1", None);
        let mut stream = connecting.await.map_err(|error| error.to_string())?;
        let mut secret = String::new();
        let read = stream.read_to_string(&mut secret).await;
        read.map_err(|error| error.to_string())?;
        Ok(secret)
    })
    .await;
    assert_eq!(secret, "a secret");
    let refused = outrigger_tests::tls::connect(to, "nobody.example", "vault/1", None).await;
    let error = refused.unwrap_err().to_string();
    assert!(error.to_lowercase().contains("unrecogni"), "{error}");
    let metrics = caller.metrics().await;
    for result in ["routed", "no-route"] {
        let count = metrics.sum("outrigger_tls_passthrough_total", &[("result", result)]);
        assert!(count >= 1.0, "{result}");
    }
}

#[tokio::test]
async fn an_application_on_a_unix_socket_is_served_and_probed() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("app.sock");
    let control_plane = ControlPlane::start().await;
    control_plane.apply(&service("chat", ""));
    let _server = Sidecar::builder(&control_plane, "chat")
        .flag(&format!("--serve=chat:80=unix:{}", path.display()))
        .start()
        .await;
    let caller = Sidecar::caller(&control_plane).await;
    let answer = caller.get("chat", "/").await;
    assert_eq!(answer.status, 503, "nobody listens yet");
    // What arrives at the socket goes to an application of the tests.
    let app = Http::start("by socket").await;
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let to = app.address();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut app = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut app).await;
            });
        }
    });
    let answer = caller.reaches("chat").await;
    assert_eq!(answer.instance(), "by socket");
}
