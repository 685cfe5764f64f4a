//! Opaque TCP: a listener for each service.

use std::time::Duration;

use outrigger_tests::upstream::{Listener, tcp_echo, tcp_greeter};
use outrigger_tests::{ControlPlane, Sidecar, eventually, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::mesh::service_of;
use crate::protocols::example;

/// The service `db` with this application, and a caller whose port 5432 leads to it.
async fn start(spec: &str, app: &Listener) -> (ControlPlane, Sidecar, Sidecar) {
    let control_plane = ControlPlane::start().await;
    control_plane.apply(&service_of("tcp", 5432, "db", spec));
    let server = Sidecar::serving(&control_plane, "db:5432", app.address()).await;
    let caller = Sidecar::builder(&control_plane, "caller")
        .tcp("db:5432", 5432)
        .start()
        .await;
    eventually(
        "the endpoint is there",
        Duration::from_secs(10),
        async || {
            let text = caller.admin("/endpoints").await.text();
            let mut stream = TcpStream::connect(caller.tcp(5432)).await.unwrap();
            stream
                .write_all(b"?")
                .await
                .map_err(|error| error.to_string())?;
            let mut byte = [0];
            match tokio::time::timeout(Duration::from_secs(1), stream.read(&mut byte)).await {
                Ok(Ok(1)) => Ok(()),
                other => Err(format!("{other:?} {text}")),
            }
        },
    )
    .await;
    (control_plane, server, caller)
}

#[tokio::test]
async fn bytes_and_half_closes_pass() {
    let app = tcp_echo().await;
    let (_control_plane, server, caller) = start("", &app).await;
    let mut stream = TcpStream::connect(caller.tcp(5432)).await.unwrap();
    stream.write_all(b"\x00binary\xff").await.unwrap();
    let mut echo = [0; 8];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"\x00binary\xff");
    // The application sees the end of what is sent and can still answer.
    stream.write_all(b"last").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    within(
        "the end",
        Duration::from_secs(5),
        stream.read_to_end(&mut rest),
    )
    .await
    .unwrap();
    assert_eq!(rest, b"last");

    eventually(
        "bytes are counted on both sides",
        Duration::from_secs(5),
        async || {
            for (sidecar, direction) in [(&caller, "outbound"), (&server, "inbound")] {
                let metrics = sidecar.metrics().await;
                let labels = [("direction", direction), ("service", "default/db")];
                let bytes = metrics.sum("outrigger_request_bytes_total", &labels);
                if bytes < 12.0 {
                    return Err(format!("{direction}: {bytes} bytes"));
                }
            }
            Ok(())
        },
    )
    .await;
}

#[tokio::test]
async fn a_server_may_speak_first() {
    let app = tcp_greeter("220 ready\r\n").await;
    let (_control_plane, _server, caller) = start("", &app).await;
    let mut stream = TcpStream::connect(caller.tcp(5432)).await.unwrap();
    let mut greeting = [0; 11];
    within(
        "the greeting",
        Duration::from_secs(5),
        stream.read_exact(&mut greeting),
    )
    .await
    .unwrap();
    assert_eq!(&greeting, b"220 ready\r\n");
}

#[tokio::test]
async fn a_hundred_megabytes_both_ways() {
    let app = tcp_echo().await;
    let (_control_plane, mut server, mut caller) = start("", &app).await;
    let stream = TcpStream::connect(caller.tcp(5432)).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    const TOTAL: usize = 100 << 20;
    let writer = tokio::spawn(async move {
        let piece: Vec<u8> = (0..65536_u32).map(|number| (number % 251) as u8).collect();
        for _ in 0..TOTAL / piece.len() {
            write.write_all(&piece).await.unwrap();
        }
        write.shutdown().await.unwrap();
    });
    let (mut total, mut buffer) = (0, vec![0; 65536]);
    loop {
        let length = within(
            "more bytes",
            Duration::from_secs(20),
            read.read(&mut buffer),
        )
        .await
        .unwrap();
        if length == 0 {
            break;
        }
        for (at, byte) in buffer[..length].iter().enumerate() {
            assert_eq!(
                usize::from(*byte),
                (total + at) % 65536 % 251,
                "at {}",
                total + at
            );
        }
        total += length;
    }
    writer.await.unwrap();
    assert_eq!(total, TOTAL);
    for sidecar in [&mut caller, &mut server] {
        let peak = sidecar.process().peak_rss_kib();
        assert!(peak < 64 * 1024, "{peak} KiB");
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_where_the_service_says_so() {
    let app = tcp_echo().await;
    let (_control_plane, _server, caller) = start("timeouts: {tcpIdle: 700ms}", &app).await;
    let mut stream = TcpStream::connect(caller.tcp(5432)).await.unwrap();
    let mut byte = [0];
    // Longer than the limit in all, and never idle for that long.
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(350)).await;
        stream.write_all(b"x").await.unwrap();
        within(
            "an echo",
            Duration::from_secs(2),
            stream.read_exact(&mut byte),
        )
        .await
        .unwrap();
    }
    let end = within(
        "the end of an idle connection",
        Duration::from_secs(5),
        stream.read(&mut byte),
    )
    .await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}

#[tokio::test]
async fn a_connection_without_an_endpoint_is_closed() {
    let control_plane = ControlPlane::start().await;
    control_plane.apply(&service_of("tcp", 5432, "db", ""));
    let caller = Sidecar::builder(&control_plane, "caller")
        .tcp("db:5432", 5432)
        .start()
        .await;
    let trying = async {
        // The reset may be here before it is seen that the connection is.
        let mut stream = TcpStream::connect(caller.tcp(5432)).await?;
        stream.read(&mut [0]).await
    };
    let end = within("the connection's end", Duration::from_secs(5), trying).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}

#[tokio::test]
async fn silence_and_age_end_connections_as_the_example_says() {
    let control_plane = ControlPlane::start().await;
    control_plane.apply(&example("tcp.yaml"));
    let app = tcp_echo().await;
    let server = Sidecar::serving(&control_plane, "db:5432", app.address()).await;
    let caller = Sidecar::builder(&control_plane, "caller")
        .tcp("db:5432", 5432)
        .flag("--access-log=all")
        .start()
        .await;
    let talk = async |stream: &mut TcpStream| -> std::io::Result<()> {
        stream.write_all(b"?").await?;
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        Ok(())
    };
    let connect = async || {
        let mut stream = TcpStream::connect(caller.tcp(5432)).await.unwrap();
        talk(&mut stream).await.map(|()| stream)
    };
    let mut silent = eventually("a connection", Duration::from_secs(20), async || {
        connect().await.map_err(|error| error.to_string())
    })
    .await;
    let mut busy = connect().await.unwrap();
    let mut byte = [0];
    let reading = silent.read(&mut byte);
    let ended = within("the silent one ends", Duration::from_secs(20), reading);
    // Never silent for so long, and cut all the same: with a reset.
    let cut = async {
        loop {
            if let Err(error) = talk(&mut busy).await {
                return error;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    // At the same time: the busy one must not wait for the silent one's end.
    let cut = within("the busy one is cut", Duration::from_secs(20), cut);
    let (ended, _) = tokio::join!(ended, cut);
    // On a machine that stands still for two seconds its age ends it first.
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    for reason in ["stream-idle-timeout", "connection-lifetime"] {
        eventually(reason, Duration::from_secs(10), async || {
            let labels = [("service", "default/db"), ("reason", reason)];
            let mut count = 0.0;
            // Both have the clocks, and either may be the first to cut: the other sees a connection that broke.
            for sidecar in [&caller, &server] {
                let metrics = sidecar.metrics().await;
                count += metrics.sum("outrigger_requests_total", &labels);
            }
            match count {
                0.0 => Err("not counted".to_string()),
                _ => Ok(()),
            }
        })
        .await;
    }
}
