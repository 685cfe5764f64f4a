#![allow(clippy::unwrap_used)]
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::{Bytes, End, both_ways};
use crate::policy::TcpLimits;

struct Wires {
    client: DuplexStream,
    server: DuplexStream,
    near: DuplexStream,
    far: DuplexStream,
}

fn wires(size: usize) -> Wires {
    let (client, near) = duplex(size);
    let (far, server) = duplex(size);
    Wires {
        client,
        server,
        near,
        far,
    }
}

fn limits(idle: Option<Duration>, lifetime: Option<Duration>) -> TcpLimits {
    TcpLimits { idle, lifetime }
}

#[tokio::test]
async fn one_side_may_close_first() {
    let Wires {
        mut client,
        mut server,
        mut near,
        mut far,
    } = wires(1024);
    let bytes = Bytes::default();
    let copy = both_ways(&mut near, &mut far, TcpLimits::default(), &bytes);
    let talk = async {
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut all = Vec::new();
        server.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"question");
        server.write_all(b"answer, later").await.unwrap();
        server.shutdown().await.unwrap();
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"answer, later");
    };
    let (end, ()) = tokio::join!(copy, talk);
    assert!(matches!(end, End::Closed));
    assert_eq!((bytes.up.get(), bytes.down.get()), (8, 13));
}

#[tokio::test]
async fn carries_much() {
    let Wires {
        mut client,
        mut server,
        mut near,
        mut far,
    } = wires(64 * 1024);
    let bytes = Bytes::default();
    let sent: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 251) as u8).collect();
    let copy = both_ways(&mut near, &mut far, TcpLimits::default(), &bytes);
    let write = async {
        client.write_all(&sent).await.unwrap();
        client.shutdown().await.unwrap();
    };
    let read = async {
        let mut all = Vec::new();
        server.read_to_end(&mut all).await.unwrap();
        drop(server);
        all
    };
    let (_, (), received) = tokio::join!(copy, write, read);
    assert!(received == sent);
    assert_eq!(bytes.up.get(), sent.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn silence_ends_it() {
    let Wires {
        mut client,
        server: _server,
        mut near,
        mut far,
    } = wires(1024);
    let bytes = Bytes::default();
    let begun = tokio::time::Instant::now();
    let idle = Duration::from_secs(10);
    let copy = both_ways(&mut near, &mut far, limits(Some(idle), None), &bytes);
    let talk = async {
        tokio::time::sleep(Duration::from_secs(6)).await;
        client.write_all(b"x").await.unwrap();
    };
    let (end, ()) = tokio::join!(copy, talk);
    assert!(matches!(end, End::Idle));
    assert_eq!(begun.elapsed(), Duration::from_secs(16));
}

#[tokio::test]
async fn a_reader_that_stands_still_stops_the_writer() {
    let Wires {
        mut client,
        mut server,
        mut near,
        mut far,
    } = wires(4096);
    let bytes = Bytes::default();
    let copy = both_ways(&mut near, &mut far, TcpLimits::default(), &bytes);
    let talk = async {
        let mut sent = 0;
        let chunk = [7_u8; 1024];
        let patience = Duration::from_millis(200);
        while let Ok(Ok(())) = tokio::time::timeout(patience, client.write_all(&chunk)).await {
            sent += chunk.len();
            assert!(sent < 200_000, "nothing stops the writer");
        }
        // And it goes on when the reader does.
        let mut some = vec![0; 8192];
        server.read_exact(&mut some).await.unwrap();
        client.write_all(&chunk).await.unwrap();
    };
    tokio::select! {
        _ = copy => panic!("nobody closed"),
        () = talk => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_lifetime_ends_what_is_not_idle() {
    let Wires {
        mut client,
        mut server,
        mut near,
        mut far,
    } = wires(1024);
    let bytes = Bytes::default();
    let begun = tokio::time::Instant::now();
    let limits = limits(Some(Duration::from_secs(5)), Some(Duration::from_secs(60)));
    let copy = both_ways(&mut near, &mut far, limits, &bytes);
    let talk = async {
        let mut buffer = [0; 8];
        loop {
            client.write_all(b"?").await.unwrap();
            let _ = server.read(&mut buffer).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let end = tokio::select! {
        end = copy => end,
        () = talk => unreachable!(),
    };
    assert!(matches!(end, End::Lifetime), "{end:?}");
    assert_eq!(begun.elapsed(), Duration::from_secs(60));
}
