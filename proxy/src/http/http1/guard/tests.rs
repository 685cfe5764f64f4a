use proptest::prelude::*;

use super::{Ambiguous, Guard, State};

/// Reads in pieces of the given sizes, again and again.
fn read(bytes: &[u8], sizes: &[usize]) -> Result<Guard, Ambiguous> {
    let mut guard = Guard::default();
    let mut sizes = sizes.iter().cycle();
    let mut rest = bytes;
    while !rest.is_empty() {
        let size = sizes.next().copied().unwrap_or(1).clamp(1, rest.len());
        guard.read(&rest[..size])?;
        rest = &rest[size..];
    }
    Ok(guard)
}

const FINE: &[&str] = &[
    "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    "\r\n\r\nGET / HTTP/1.0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\nContent-Length:  5 \r\n\r\na\nb\nc",
    "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\na\nb\r\nA ;x=y\r\n0123456789\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx-sum: 1\r\n\r\n",
];

const AMBIGUOUS: &[&str] = &[
    "GET / HTTP/1.1\nhost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: a\n\r\n",
    "GET / HTTP/1.1\r\nhost: a\r\n\n",
    "\nGET / HTTP/1.1\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: a\r\n b\r\n\r\n",
    "POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
    "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n",
    "POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n",
    "POST / HTTP/1.1\r\ncontent-length: 1, 1\r\n\r\n",
    "POST / HTTP/1.1\r\ncontent-length: +1\r\n\r\n",
    "POST / HTTP/1.1\r\ncontent-length:\r\n\r\n",
    "POST / HTTP/1.1\r\ncontent-length: 18446744073709551616\r\n\r\n",
    "POST / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
    "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
    "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n",
    "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n10000000000000000\r\n",
    "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: y\n\r\n",
];

proptest! {
    #[test]
    fn what_is_written_well_is_followed_to_its_end(
        requests in prop::collection::vec(prop::sample::select(FINE), 1..6),
        sizes in prop::collection::vec(1_usize..40, 1..8),
    ) {
        let bytes = requests.concat();
        let guard = read(bytes.as_bytes(), &sizes).expect("nothing is ambiguous");
        prop_assert_eq!(guard.state, State::RequestLine);
        prop_assert!(guard.line.is_empty());
    }

    #[test]
    fn what_is_ambiguous_is_found_after_whatever_and_in_whatever_pieces(
        before in prop::collection::vec(prop::sample::select(FINE), 0..4),
        bad in prop::sample::select(AMBIGUOUS),
        sizes in prop::collection::vec(1_usize..40, 1..8),
    ) {
        let bytes = before.concat() + bad;
        prop_assert!(read(bytes.as_bytes(), &sizes).is_err(), "{:?}", bad);
    }

    #[test]
    fn nothing_makes_it_panic_or_grow(
        bytes in prop::collection::vec(prop::sample::select(b"\r\n: 09afGTx;,\t\0".as_slice()), 0..400),
        sizes in prop::collection::vec(1_usize..40, 1..8),
    ) {
        if let Ok(guard) = read(&bytes, &sizes) {
            prop_assert!(guard.line.len() <= super::LONGEST_LINE);
        }
    }
}

#[test]
fn a_line_without_end_is_left_to_the_parser() {
    let mut guard = Guard::default();
    for _ in 0..1000 {
        guard.read(&[b'x'; 1000]).expect("not ambiguous");
        assert!(guard.line.len() <= super::LONGEST_LINE);
    }
    assert_eq!(guard.state, State::Opaque);
}

#[test]
fn an_upgrade_ends_what_is_known() {
    let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let mut guard = Guard::default();
    guard.read(request).expect("well written");
    guard.wrote(b"HTTP/1.1 101 Switching Protocols\r\n");
    assert_eq!(guard.read(b"any\nthing\n"), Ok(()));

    for refusal in ["HTTP/1.1 404 Not Found\r\n", "HTTP/1.1 200 OK\r\n"] {
        let mut guard = Guard::default();
        guard.read(request).expect("well written");
        guard.wrote(refusal.as_bytes());
        assert_eq!(guard.read(b"any\nthing\n"), Err(Ambiguous));
    }

    let mut guard = Guard::default();
    guard
        .read(b"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n")
        .expect("well written");
    guard.wrote(b"HTTP/1.1 200 OK\r\n");
    assert_eq!(guard.read(b"any\nthing\n"), Ok(()));
}
