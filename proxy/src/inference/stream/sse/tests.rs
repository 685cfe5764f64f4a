use proptest::prelude::*;

use super::{Fields, MAX_EVENT, Splitter, fields, joined};

fn events(pieces: &[&[u8]]) -> (Vec<Option<Vec<u8>>>, bool) {
    let mut splitter = Splitter::default();
    let mut found = Vec::new();
    for piece in pieces {
        splitter.feed(piece, |event| found.push(event.map(<[u8]>::to_vec)));
    }
    (found, splitter.is_between())
}

#[test]
fn events_end_with_an_empty_line() {
    let text = b"data: a\n\n: ping\r\n\r\nevent: x\r\ndata: b\r\ndata: c\r\n\r\n\ndata: cut";
    let (found, between) = events(&[text]);
    let expected: [&[u8]; 4] = [
        b"data: a\n\n",
        b": ping\r\n\r\n",
        b"event: x\r\ndata: b\r\ndata: c\r\n\r\n",
        b"\n",
    ];
    assert_eq!(found, expected.map(|event| Some(event.to_vec())));
    assert!(!between);
}

#[test]
fn fields_are_read() {
    let read = fields(b"event: x\r\nid: 3\r\ndata:b: c\r\n\r\n");
    let expected = Fields {
        name: b"x",
        data: Some(b"b: c"),
        ..Fields::default()
    };
    assert_eq!(read, expected);
    let two = b"data: {\ndata\ndata:  }\n\n";
    assert!(fields(two).has_more);
    let mut text = vec![1];
    joined(two, &mut text);
    assert_eq!(text, b"{\n\n }");
    assert!(fields(b"error: {}\n\n").is_error);
    assert_eq!(fields(b": data: x\n\n"), Fields::default());
}

#[test]
fn a_large_event_is_passed_over_without_being_held() {
    let mut splitter = Splitter::default();
    let mut found = Vec::new();
    let piece = [b'x'; 64 << 10];
    for _ in 0..40 {
        splitter.feed(&piece, |_| unreachable!("it has no end"));
        assert!(splitter.pending.capacity() <= 2 * MAX_EVENT);
    }
    splitter.feed(b"\n", |_| unreachable!("it has no end"));
    splitter.feed(b"\ndata: a\n\n", |event| {
        found.push(event.map(<[u8]>::to_vec))
    });
    assert_eq!(found, [None, Some(b"data: a\n\n".to_vec())]);
}

proptest! {
    #[test]
    fn does_not_depend_on_how_it_is_cut(
        bytes in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'd'), Just(b':')], 0..64),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let whole = events(&[&bytes]);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        prop_assert_eq!(events(&pieces), whole);
    }
}
