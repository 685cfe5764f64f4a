#![allow(clippy::unwrap_used)]
use std::net::{IpAddr, Ipv6Addr};

use tokio::net::UdpSocket;

use super::*;

/// What a server says of one type of records.
#[derive(Clone, Copy)]
enum Says {
    Address(IpAddr),
    /// The name has none.
    Nothing,
    Servfail,
}

/// Answers questions for A and AAAA, whatever the name.
async fn server(a: Says, aaaa: Says) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut packet = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut packet).await {
            // Behind the name, whose labels end with an empty one.
            let end = 12 + packet[12..length].iter().position(|it| *it == 0).unwrap() + 1;
            let says = match packet[end + 1] {
                1 => a,
                28 => aaaa,
                _ => Says::Nothing,
            };
            let (count, code) = match says {
                Says::Address(_) => (1, 0),
                Says::Nothing => (0, 0),
                Says::Servfail => (0, 2),
            };
            let mut reply = packet[..2].to_vec();
            reply.extend([0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
            reply.extend(&packet[12..end + 4]);
            if let Says::Address(ip) = says {
                let bytes = match ip {
                    IpAddr::V4(ip) => ip.octets().to_vec(),
                    IpAddr::V6(ip) => ip.octets().to_vec(),
                };
                // The question's name, its type, IN, a TTL of 60 s.
                reply.extend([0xc0, 12, 0, packet[end + 1], 0, 1, 0, 0, 0, 60, 0]);
                reply.push(bytes.len() as u8);
                reply.extend(bytes);
            }
            let _ = socket.send_to(&reply, from).await;
        }
    });
    address
}

async fn answer(a: Says, aaaa: Says, known: &[Family]) -> Result<Answer, Trouble> {
    let resolver = Resolver::new(vec![server(a, aaaa).await]);
    let question = Question {
        host: "api.example.".into(),
        known: known.to_vec(),
    };
    resolver.answer(&question).await
}

#[tokio::test]
async fn a_family_that_fails_is_told_from_one_that_is_not_there() {
    // An address that every machine has a way to, or none has to any.
    let v6 = Says::Address(Ipv6Addr::LOCALHOST.into());
    let v4 = Says::Address("127.0.0.1".parse().unwrap());
    let both = [Family::V4, Family::V6];
    let unknown = async |a, aaaa, known: &[Family]| {
        let answer = answer(a, aaaa, known).await.unwrap();
        assert_eq!(answer.addresses.len(), 1, "{answer:?}");
        answer.unknown.map(|(family, _)| family)
    };
    assert_eq!(unknown(v4, Says::Nothing, &both).await, None);
    assert_eq!(unknown(v4, Says::Servfail, &both).await, Some(Family::V6));
    assert_eq!(unknown(Says::Servfail, v6, &both).await, Some(Family::V4));
    // What it never had is not asked for once more.
    assert_eq!(unknown(v4, Says::Servfail, &[Family::V4]).await, None);
    assert!(answer(Says::Servfail, Says::Servfail, &both).await.is_err());
    assert_eq!(
        answer(Says::Nothing, Says::Nothing, &both).await,
        Err(Trouble::NotFound)
    );
}
