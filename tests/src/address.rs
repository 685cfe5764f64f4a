use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};

/// A loopback address that nobody else uses: not another test of this process, and not another process that was started
/// at about the same time.
///
/// All of 127.0.0.0/8 is local on Linux. The middle of the address comes from the process id (32,000 values), the last
/// byte from a counter.
pub fn loopback() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let process = std::process::id() % 32_000;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let byte = |value: u32| u8::try_from(value).expect("at most 127 + 127 or 1 + 249");
    Ipv4Addr::new(
        127,
        byte(127 + process / 250),
        byte(1 + process % 250),
        byte(1 + number % 250),
    )
}
