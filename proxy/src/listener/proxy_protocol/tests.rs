#![allow(clippy::unwrap_used)]
use std::net::SocketAddr;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{MAX_HEADER, Parsed, SIGNATURE, Version, encode, parse, take};
use crate::telemetry::metrics::ProxyHeaderRefusal::{self, Malformed, Missing, TooLarge};

fn refused(bytes: &[u8]) -> ProxyHeaderRefusal {
    match parse(bytes) {
        Parsed::Refused(why) => why,
        other => panic!("{other:?} for {:?}", String::from_utf8_lossy(bytes)),
    }
}

fn source(bytes: &[u8]) -> Option<SocketAddr> {
    match parse(bytes) {
        Parsed::Header { source, .. } => source,
        other => panic!("{other:?} for {:?}", String::from_utf8_lossy(bytes)),
    }
}

#[test]
fn version_1() {
    let four = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\nGET /";
    assert_eq!(
        parse(four),
        Parsed::Header {
            source: Some("192.0.2.1:56324".parse().unwrap()),
            length: four.len() - 5,
        }
    );
    let six = b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n";
    assert_eq!(source(six), Some("[2001:db8::1]:1".parse().unwrap()));
    assert_eq!(source(b"PROXY UNKNOWN\r\n"), None);
    assert_eq!(source(b"PROXY UNKNOWN whatever else\r\n"), None);
    for bad in [
        &b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\n"[..],
        b"PROXY TCP4 192.0.2.1  198.51.100.2 56324 443\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 56324\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443 1\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 +1 443\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
        b"PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n",
        b"PROXY tcp4 192.0.2.1 198.51.100.2 1 2\r\n",
        b"PROXY \r\n",
        b"PROXY \xff\r\n",
    ] {
        assert_eq!(
            refused(bad),
            Malformed,
            "{:?}",
            String::from_utf8_lossy(bad)
        );
    }
    assert_eq!(refused(b"GET / HTTP/1.1\r\n"), Missing);
    assert_eq!(refused(&[&b"PROXY "[..], &[b'a'; 200]].concat()), TooLarge);
}

#[test]
fn version_2() {
    let with = |rest: &[u8]| [SIGNATURE, rest].concat();
    let four = with(&[
        0x21, 0x11, 0, 12, 192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 4, 1, 187,
    ]);
    assert_eq!(source(&four), Some("192.0.2.1:56324".parse().unwrap()));
    // With an extension behind the addresses.
    let more = with(&[
        0x21, 0x11, 0, 15, 192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 4, 1, 187, 4, 0, 0,
    ]);
    assert_eq!(source(&more), Some("192.0.2.1:56324".parse().unwrap()));
    // A health check; a family that is not TCP's.
    assert_eq!(source(&with(&[0x20, 0, 0, 0])), None);
    assert_eq!(source(&with(&[0x21, 0x31, 0, 0])), None);
    assert_eq!(refused(&with(&[0x11, 0x11, 0, 0])), Malformed);
    assert_eq!(refused(&with(&[0x22, 0x11, 0, 0])), Malformed);
    assert_eq!(
        refused(&with(&[
            0x21, 0x11, 0, 11, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
        ])),
        Malformed
    );
    assert_eq!(refused(&with(&[0x21, 0x41, 0, 0])), Malformed);
    assert_eq!(refused(&with(&[0x21, 0x11, 0xff, 0xff])), TooLarge);
}

fn address() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        (any::<[u8; 4]>(), any::<u16>()).prop_map(SocketAddr::from),
        // Addresses that are IPv4's in disguise come back as those.
        (any::<[u8; 16]>(), any::<u16>()).prop_map(|(mut ip, port)| {
            ip[0] |= 0x20;
            SocketAddr::from((ip, port))
        }),
    ]
}

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V1), Just(Version::V2)]
}

proptest! {
    #[test]
    fn what_is_written_is_read(from in address(), to in address(), version in version(), more: Vec<u8>) {
        let mut bytes = encode(version, Some(from), Some(to));
        let length = bytes.len();
        for end in 0..length {
            prop_assert_eq!(parse(&bytes[..end]), Parsed::Incomplete);
        }
        bytes.extend(more);
        let known = (from.is_ipv4() == to.is_ipv4()).then_some(from);
        prop_assert_eq!(parse(&bytes), Parsed::Header { source: known, length });
    }

    #[test]
    fn any_bytes_are_survived(bytes: Vec<u8>, kind in 0usize..3) {
        let start: &[u8] = [&b""[..], b"PROXY ", SIGNATURE][kind];
        let _ = parse(&[start, &bytes].concat());
    }

    #[test]
    fn it_ends(kind in 0usize..2, byte: u8) {
        let start: &[u8] = [&b"PROXY "[..], SIGNATURE][kind];
        let mut bytes = start.to_vec();
        bytes.resize(MAX_HEADER, byte);
        prop_assert_ne!(parse(&bytes), Parsed::Incomplete);
    }
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (client, server)
}

#[tokio::test]
async fn what_follows_is_left() {
    let from = "192.0.2.1:5".parse().unwrap();
    for version in [Version::V1, Version::V2] {
        let (mut client, mut server) = pair().await;
        let header = encode(version, Some(from), Some("192.0.2.2:6".parse().unwrap()));
        let writing = tokio::spawn(async move {
            for byte in header {
                client.write_all(&[byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
            client.write_all(b"the rest").await.unwrap();
        });
        assert_eq!(take(&mut server).await, Ok(Some(from)));
        writing.await.unwrap();
        let mut rest = String::new();
        server.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "the rest");
    }
}

#[tokio::test]
async fn what_is_no_header_is_refused() {
    let (mut client, mut server) = pair().await;
    client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    assert_eq!(take(&mut server).await, Err(Missing));
    let (client, mut server) = pair().await;
    drop(client);
    assert_eq!(take(&mut server).await, Err(ProxyHeaderRefusal::Closed));
}
