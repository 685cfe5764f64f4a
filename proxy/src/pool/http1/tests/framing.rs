//! Heads and bodies, however the network cuts them.

use http::StatusCode;
use proptest::prelude::*;

use crate::pool::http1::body::{End, Incoming};
use crate::pool::http1::head::{Asked, Framing, Head, HeadReader, MAX_HEAD, Malformed};

/// A response, as far as it was read.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    interim: Vec<u16>,
    status: Option<u16>,
    headers: Vec<(String, String)>,
    framing: Option<Framing>,
    keep_alive: bool,
    body: Vec<u8>,
    trailers: Vec<(String, String)>,
    end: Option<End>,
}

fn pairs(map: &http::HeaderMap) -> Vec<(String, String)> {
    map.iter()
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.to_string(), value)
        })
        .collect()
}

/// Reads a response that comes in `pieces`.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, asked: Asked) -> Result<Read, Malformed> {
    let mut seen = Read::default();
    let mut reader = HeadReader::default();
    let mut body: Option<Incoming> = None;
    for mut piece in pieces {
        while body.is_none() && !piece.is_empty() {
            let Some(head) = reader.next(&mut piece, asked)? else {
                break;
            };
            if head.is_interim() {
                seen.interim.push(head.parts.status.as_u16());
                continue;
            }
            note(&mut seen, &head);
            let mut incoming = Incoming::new(head.framing);
            // A body may have ended with the head.
            incoming.read(&[])?;
            body = Some(incoming);
        }
        if let Some(incoming) = &mut body
            && !piece.is_empty()
        {
            if incoming.end.is_some() {
                incoming.end = Some(End::Last);
                continue;
            }
            incoming.read(piece)?;
            seen.body
                .extend_from_slice(&std::mem::take(&mut incoming.data));
        }
    }
    if let Some(mut incoming) = body {
        seen.trailers = incoming
            .trailers
            .take()
            .as_ref()
            .map(pairs)
            .unwrap_or_default();
        seen.end = incoming.end;
    }
    Ok(seen)
}

fn note(seen: &mut Read, head: &Head) {
    seen.status = Some(head.parts.status.as_u16());
    seen.headers = pairs(&head.parts.headers);
    seen.framing = Some(head.framing);
    seen.keep_alive = head.keep_alive;
}

fn whole(text: &str) -> Result<Read, Malformed> {
    read([text.as_bytes()], Asked::default())
}

#[test]
fn a_body_ends_where_its_head_says() {
    let head_only = Asked {
        head_only: true,
        ..Asked::default()
    };
    let upgrade = Asked {
        upgrade: true,
        ..Asked::default()
    };
    let any = Asked::default();
    for (text, asked, framing, keep_alive) in [
        ("200 OK\r\ncontent-length: 3", any, Framing::Length(3), true),
        (
            "200 OK\r\ncontent-length: 3, 3",
            any,
            Framing::Length(3),
            true,
        ),
        (
            "200 OK\r\ncontent-length: 3\r\ncontent-length: 3",
            any,
            Framing::Length(3),
            true,
        ),
        ("200 OK\r\ncontent-length: 0", any, Framing::Length(0), true),
        (
            "200 OK\r\nTransfer-Encoding: Chunked",
            any,
            Framing::Chunked,
            true,
        ),
        ("200 OK\r\nserver: x", any, Framing::Close, false),
        (
            "200 OK\r\ncontent-length: 3\r\nconnection: x, Close",
            any,
            Framing::Length(3),
            false,
        ),
        ("204 No Content\r\nserver: x", any, Framing::Empty, true),
        (
            "304 Not Modified\r\ncontent-length: 9",
            any,
            Framing::Empty,
            true,
        ),
        (
            "200 OK\r\ncontent-length: 9",
            head_only,
            Framing::Empty,
            true,
        ),
        (
            "200 OK\r\ntransfer-encoding: chunked",
            head_only,
            Framing::Empty,
            true,
        ),
        (
            "101 Switching Protocols\r\nupgrade: x",
            upgrade,
            Framing::Upgrade,
            true,
        ),
        (
            "200 OK\r\ncontent-length: 3",
            upgrade,
            Framing::Length(3),
            true,
        ),
    ] {
        let text = format!("HTTP/1.1 {text}\r\n\r\n");
        let seen = read([text.as_bytes()], asked).unwrap();
        assert_eq!(seen.framing, Some(framing), "{text}");
        assert_eq!(seen.keep_alive, keep_alive, "{text}");
        let lengths = seen
            .headers
            .iter()
            .filter(|(name, _)| name == "content-length");
        assert!(lengths.count() <= 1, "{text}");
    }
}

#[test]
fn http_1_0_keeps_a_connection_only_if_it_says_so() {
    let read = whole("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
    assert!(!read.keep_alive);
    let read =
        whole("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n").unwrap();
    assert!(read.keep_alive);
    let chunked = "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(whole(chunked), Err(Malformed::TransferCoding));
}

#[test]
fn heads_that_are_refused() {
    for (text, why) in [
        ("", None),
        ("garbage\r\n\r\n", Some(Malformed::Head)),
        // Nobody waits for more of these.
        ("SSH-2.0-OpenSSH_9.2\r\n", Some(Malformed::Head)),
        ("\r\nHTTX", Some(Malformed::Head)),
        ("\r\nHTTP/", None),
        ("\r\n\r\n", Some(Malformed::Head)),
        ("HTTP/2.0 200 OK\r\n\r\n", Some(Malformed::Head)),
        ("HTTP/1.1 20 OK\r\n\r\n", Some(Malformed::Head)),
        ("HTTP/1.1 099 No\r\n\r\n", Some(Malformed::Head)),
        ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", Some(Malformed::Head)),
        ("HTTP/1.1 200 OK\r\nx : y\r\n\r\n", Some(Malformed::Head)),
        (
            "HTTP/1.1 200 OK\r\nx: a\r\n b\r\n\r\n",
            Some(Malformed::Head),
        ),
        ("HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n", Some(Malformed::Head)),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n",
            Some(Malformed::Length),
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 3, 4\r\n\r\n",
            Some(Malformed::Length),
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: +3\r\n\r\n",
            Some(Malformed::Length),
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: -3\r\n\r\n",
            Some(Malformed::Length),
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 0x3\r\n\r\n",
            Some(Malformed::Length),
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: \r\n\r\n",
            Some(Malformed::Length),
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551616\r\n\r\n",
            Some(Malformed::Length),
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
            Some(Malformed::TransferCoding),
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            Some(Malformed::TransferCoding),
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
            Some(Malformed::TransferCoding),
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\n\r\n",
            Some(Malformed::TransferCoding),
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            Some(Malformed::Upgrade),
        ),
    ] {
        assert_eq!(whole(text).err(), why, "{text:?}");
    }
}

#[test]
fn chunks_that_are_refused() {
    for (body, why) in [
        ("\r\n", Malformed::Chunk),
        ("x\r\n", Malformed::Chunk),
        ("-1\r\n", Malformed::Chunk),
        (" 1\r\na\r\n", Malformed::Chunk),
        ("1\na\r\n", Malformed::Chunk),
        ("1\rxa", Malformed::Chunk),
        ("1;x\na\r\n", Malformed::Chunk),
        ("1 x\r\na\r\n", Malformed::Chunk),
        ("1\r\nab\r\n", Malformed::Chunk),
        ("1\r\na\n0\r\n\r\n", Malformed::Chunk),
        ("10000000000000000\r\n", Malformed::ChunkSize),
        ("00000000000000001\r\na\r\n", Malformed::ChunkSize),
        ("0\r\nx: y\n\r\n", Malformed::Chunk),
        ("0\r\nno colon\r\n\r\n", Malformed::Head),
    ] {
        let text = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}");
        assert_eq!(whole(&text), Err(why), "{body:?}");
    }
}

#[test]
fn nothing_grows_without_a_bound() {
    let header = format!("x: {}\r\n", "y".repeat(1000));
    let many = "x: y\r\n".repeat(101);
    let long = "z".repeat(20_000);
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for text in [
        // The head never ends.
        format!("HTTP/1.1 200 OK\r\n{}", header.repeat(MAX_HEAD / 1000 + 1)),
        // It ends too late.
        format!(
            "HTTP/1.1 200 OK\r\n{}\r\n",
            header.repeat(MAX_HEAD / 1000 + 1)
        ),
        format!("HTTP/1.1 200 OK\r\n{many}\r\n"),
        format!("{chunked}1;{long}"),
        format!("{chunked}1{}", " ".repeat(20_000)),
        // Each is small; together they are not.
        format!("{chunked}{}", "1;eeeeeeeeeeeeeee\r\na\r\n".repeat(2_000)),
        format!("{chunked}0\r\nx: {long}"),
        format!("{chunked}0\r\n{many}\r\n"),
    ] {
        for size in [usize::MAX, 1000] {
            let pieces = text.as_bytes().chunks(size.min(text.len()));
            let start = &text[..60.min(text.len())];
            assert_eq!(
                read(pieces, Asked::default()),
                Err(Malformed::TooLarge),
                "{start}"
            );
        }
    }
    let hundred = format!("HTTP/1.1 204 OK\r\n{}\r\n", "x: y\r\n".repeat(100));
    assert_eq!(whole(&hundred).unwrap().headers.len(), 100);
}

#[test]
fn a_head_without_a_body_says_no_length_that_is_none() {
    let head_only = Asked {
        head_only: true,
        ..Asked::default()
    };
    for status in ["204 No Content", "103 Early Hints"] {
        let text =
            format!("HTTP/1.1 {status}\r\ncontent-length: 9\r\ntransfer-encoding: x\r\n\r\n");
        let mut reader = HeadReader::default();
        let head = reader.next(&mut text.as_bytes(), Asked::default());
        let head = head.unwrap().unwrap();
        assert_eq!(head.framing, Framing::Empty);
        assert!(head.parts.headers.is_empty(), "{status}");
    }
    for (status, asked) in [
        ("304 Not Modified", Asked::default()),
        ("200 OK", head_only),
    ] {
        let text = format!("HTTP/1.1 {status}\r\ncontent-length: 3, 4\r\n\r\n");
        assert_eq!(read([text.as_bytes()], asked), Err(Malformed::Length));
    }
}

#[test]
fn interim_responses_come_to_an_end() {
    let interim = "HTTP/1.1 102 Processing\r\n\r\n";
    let text = interim.repeat(1000) + "HTTP/1.1 204 No Content\r\n\r\n";
    assert_eq!(whole(&text).unwrap().status, Some(204));
    assert_eq!(whole(&interim.repeat(1001)), Err(Malformed::Interim));
}

#[test]
fn trailers_say_nothing_about_framing() {
    let text = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
        3 ; name=\"value\"\r\nabc\r\n00\r\nx-sum: 7\r\ncontent-length: 9\r\nconnection: x-sum2\r\n\r\n";
    let seen = whole(text).unwrap();
    assert_eq!(seen.body, b"abc");
    assert_eq!(seen.trailers, [("x-sum".to_owned(), "7".to_owned())]);
    assert_eq!(seen.end, Some(End::Clean));
}

#[test]
fn what_follows_a_body_is_noticed() {
    for text in [
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab",
        "HTTP/1.1 204 No Content\r\n\r\na",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ] {
        assert_eq!(whole(text).unwrap().end, Some(End::Last), "{text}");
    }
}

#[test]
fn lines_may_end_without_a_carriage_return_in_a_head() {
    let seen = whole("HTTP/1.1 200 OK\nx: y\ncontent-length: 1\n\nz").unwrap();
    assert_eq!(seen.status, Some(200));
    assert_eq!(seen.body, b"z");
}

#[test]
fn a_reason_of_its_own_is_kept() {
    let mut reader = HeadReader::default();
    for (line, kept) in [("200 OK", None), ("200 Fine", Some("Fine")), ("299", None)] {
        let text = format!("HTTP/1.1 {line}\r\n\r\n");
        let head = reader.next(&mut text.as_bytes(), Asked::default());
        let head = head.unwrap().unwrap();
        let reason = head.parts.extensions.get::<hyper::ext::ReasonPhrase>();
        assert_eq!(
            reason.map(|reason| reason.as_ref()),
            kept.map(str::as_bytes)
        );
        assert_ne!(head.parts.status, StatusCode::CONTINUE);
    }
}

/// Where a text is cut.
fn cut<'a>(text: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
    at.extend([0, text.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}

fn cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    prop::collection::vec(any::<prop::sample::Index>(), 0..12)
}

/// A chunked response: its text, body and trailers.
fn chunked() -> impl Strategy<Value = (Vec<u8>, Vec<u8>, Vec<(String, String)>)> {
    let chunk = (
        prop::collection::vec(any::<u8>(), 1..40),
        prop::sample::select(vec!["", ";x", " ; name=\"v\"", "\t"]),
        any::<bool>(),
    );
    let trailer = ("x-[a-z]{1,8}", "[a-z0-9]{0,8}");
    (
        prop::collection::vec(chunk, 0..6),
        prop::collection::vec(trailer, 0..3),
    )
        .prop_map(|(chunks, trailers)| {
            let mut text = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n\
                HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
                .to_vec();
            let mut body = Vec::new();
            for (data, extension, upper) in chunks {
                let size = if upper {
                    format!("{:X}", data.len())
                } else {
                    format!("0{:x}", data.len())
                };
                text.extend_from_slice(format!("{size}{extension}\r\n").as_bytes());
                text.extend_from_slice(&data);
                text.extend_from_slice(b"\r\n");
                body.extend_from_slice(&data);
            }
            text.extend_from_slice(b"0\r\n");
            let mut map = http::HeaderMap::new();
            for (name, value) in trailers {
                text.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
                let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
                map.append(name, value.parse().unwrap());
            }
            text.extend_from_slice(b"\r\n");
            (text, body, pairs(&map))
        })
}

proptest! {
    #[test]
    fn cuts_change_nothing((text, body, trailers) in chunked(), cuts in cuts()) {
        let seen = read(cut(&text, &cuts), Asked::default()).unwrap();
        prop_assert_eq!(seen.interim, [103]);
        prop_assert_eq!(seen.body, body);
        prop_assert_eq!(seen.trailers, trailers);
        prop_assert_eq!(seen.end, Some(End::Clean));
    }

    #[test]
    fn any_bytes_mean_the_same_however_they_are_cut(
        start in prop::sample::select(vec![
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n",
        ]),
        rest in "([0-9a-f]|\r\n|\n|\r|;| |x: y|\u{e4}|HTTP/1.1 100 x){0,24}",
        cuts in cuts(),
    ) {
        let text = [start, &rest].concat();
        let text = text.as_bytes();
        let whole = read([text], Asked::default());
        prop_assert_eq!(read(cut(text, &cuts), Asked::default()), whole);
    }

    #[test]
    fn lengths_are_counted(body in prop::collection::vec(any::<u8>(), 0..200), cuts in cuts()) {
        let mut text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
        text.extend_from_slice(&body);
        let seen = read(cut(&text, &cuts), Asked::default()).unwrap();
        prop_assert_eq!(seen.body, body);
        prop_assert_eq!(seen.end, Some(End::Clean));
    }
}
