//! A DNS server whose answers a test sets.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use crate::loopback;

/// What there is for a name.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A records, and their TTL in seconds.
    Addresses(Vec<Ipv4Addr>, u32),
    /// SERVFAIL.
    Failure,
}

/// Answers over UDP until it is dropped; names that it does not know do not exist.
#[derive(Debug)]
pub struct DnsServer {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Zone {
    answers: HashMap<String, Answer>,
    asked: HashMap<String, usize>,
}

impl DnsServer {
    pub async fn start() -> Self {
        let socket = UdpSocket::bind((loopback(), 25053))
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        let address = socket.local_addr().expect("it is bound");
        let zone = Arc::new(Mutex::new(Zone::default()));
        let for_task = Arc::clone(&zone);
        let task = tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                if let Some(reply) = reply(&buffer[..length], &for_task) {
                    let _ = socket.send_to(&reply, from).await;
                }
            }
        });
        Self {
            address,
            zone,
            task,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set(&self, name: &str, answer: Answer) {
        self.zone().answers.insert(name.to_owned(), answer);
    }

    /// Questions for a name's A records so far.
    pub fn asked(&self, name: &str) -> usize {
        self.zone().asked.get(name).copied().unwrap_or(0)
    }

    fn zone(&self) -> std::sync::MutexGuard<'_, Zone> {
        self.zone.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const TYPE_A: [u8; 2] = [0, 1];
const HEADER: usize = 12;

/// RFC 1035, section 4: the header, the question again, and answers that point back to its name.
fn reply(query: &[u8], zone: &Mutex<Zone>) -> Option<Vec<u8>> {
    let mut name = String::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&String::from_utf8_lossy(query.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let is_a = query.get(at..at + 2)? == TYPE_A;
    let question = query.get(HEADER..at + 4)?;
    let mut zone = zone.lock().unwrap_or_else(PoisonError::into_inner);
    if is_a {
        *zone.asked.entry(name.clone()).or_default() += 1;
    }
    const SERVFAIL: u8 = 2;
    const NXDOMAIN: u8 = 3;
    let (code, addresses, ttl) = match zone.answers.get(&name) {
        Some(Answer::Addresses(addresses, ttl)) if is_a => (0, addresses.clone(), *ttl),
        Some(Answer::Addresses(..)) => (0, Vec::new(), 0),
        Some(Answer::Failure) => (SERVFAIL, Vec::new(), 0),
        None => (NXDOMAIN, Vec::new(), 0),
    };
    let mut reply = query[..2].to_vec();
    // A response, authoritative; recursion desired and available.
    reply.extend([0x85, 0x80 | code]);
    reply.extend([0, 1, 0, u8::try_from(addresses.len()).ok()?, 0, 0, 0, 0]);
    reply.extend(question);
    for address in addresses {
        // The name is at offset 12; type A, class IN.
        reply.extend([0xc0, 12, 0, 1, 0, 1]);
        reply.extend(ttl.to_be_bytes());
        reply.extend([0, 4]);
        reply.extend(address.octets());
    }
    Some(reply)
}
