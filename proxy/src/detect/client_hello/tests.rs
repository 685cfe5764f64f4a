#![allow(clippy::unwrap_used)]
use std::sync::Arc;

use proptest::prelude::*;
use rustls_pki_types::ServerName;

use super::{Hello, MAX_HELLO, parse};

/// What a real client sends.
pub(crate) fn hello(name: &str) -> Vec<u8> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// The same message in records of at most `size` bytes.
fn fragmented(hello: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for part in hello[5..].chunks(size) {
        out.extend([22, 3, 1]);
        out.extend(u16::try_from(part.len()).unwrap().to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}

fn name(text: &str) -> Hello {
    Hello::Name(Some(text.to_owned()))
}

#[test]
fn the_name_is_found_however_it_is_cut() {
    let whole = hello("DB.models.example");
    assert_eq!(parse(&whole), name("db.models.example"));
    for size in [1, 3, 100] {
        assert_eq!(parse(&fragmented(&whole, size)), name("db.models.example"));
    }
    for end in 0..whole.len() {
        assert_eq!(parse(&whole[..end]), Hello::Incomplete, "{end}");
    }
    let mut more = whole;
    more.extend_from_slice(b"and what comes after it");
    assert_eq!(parse(&more), name("db.models.example"));
}

#[test]
fn no_name_is_no_mistake() {
    // RFC 6066: literal addresses are not sent.
    assert_eq!(parse(&hello("10.0.0.1")), Hello::Name(None));
}

#[test]
fn other_things_are_told_apart() {
    for other in [
        &b"GET / HTTP/1.1\r\n"[..],
        &[22, 2],
        &[22, 3, 1, 0, 0],
        &[22, 3, 1, 0, 4, 2, 0, 0, 0],
    ] {
        assert_eq!(parse(other), Hello::NotTls, "{other:?}");
    }
    // It says that it is larger than anything sensible.
    assert_eq!(parse(&[22, 3, 1, 0x40, 0, 1, 0xff, 0, 0]), Hello::TooLarge);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes);
        let mut record = vec![22, 3, 1, 1, 0, 1, 0, 0, 0xfc];
        record.extend(bytes);
        let _ = parse(&record);
    }

    #[test]
    fn a_damaged_hello_is_survived(at in 0usize..200, value: u8) {
        let mut bytes = hello("chat.example");
        let at = at % bytes.len();
        bytes[at] = value;
        let _ = parse(&bytes);
    }

    #[test]
    fn it_ends(size in 1usize..16) {
        // A client that never comes to the end of its ClientHello.
        let mut endless = vec![1, 0, 0x3f, 0xff];
        endless.resize(MAX_HELLO, 0);
        let mut record = fragmented(&[&[0; 5], &*endless].concat(), size);
        record.truncate(MAX_HELLO);
        prop_assert_ne!(parse(&record), Hello::Incomplete);
    }
}
