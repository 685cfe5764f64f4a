#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn a_name_with_blanks_and_parentheses_shifts_nothing() {
    let stat = "4242 (a) b (c) S 1 4242 4242 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 7 0 1000 123456789 500 18446744073709551615";
    let mut process = Process::default();
    process.take_stat(stat, Some(1_700_000_000.0));
    assert_eq!(process.cpu_seconds, Some(3.0));
    assert_eq!(process.threads, Some(7.0));
    assert_eq!(process.start_seconds, Some(1_700_000_010.0));
    assert_eq!(process.virtual_bytes, Some(123_456_789.0));
}

#[test]
fn what_is_no_stat_says_nothing() {
    let mut process = Process::default();
    process.take_stat("", Some(1.0));
    process.take_stat("1 (x) S 1", Some(1.0));
    assert_eq!(process, Process::default());
}

#[test]
fn limits_and_sizes() {
    let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 20000                files\n";
    assert_eq!(max_fds(limits), Some(1024.0));
    assert_eq!(
        max_fds("Max open files  unlimited  unlimited files"),
        Some(f64::INFINITY)
    );
    assert_eq!(
        kilobytes("Name:\tx\nVmRSS:\t    8192 kB\n", "VmRSS:"),
        Some(8_388_608.0)
    );
}

#[test]
#[cfg(target_os = "linux")]
fn this_process() {
    let process = Process::read();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    let started = process.start_seconds.unwrap();
    assert!(
        (now - 86_400.0..=now + 5.0).contains(&started),
        "{started} at {now}"
    );
    assert!(process.resident_bytes.unwrap() > 1e6);
    assert!(process.virtual_bytes >= process.resident_bytes);
    assert!(process.open_fds.unwrap() >= 3.0);
    assert!(process.max_fds >= process.open_fds);
    assert!(process.threads.unwrap() >= 1.0);
    assert!(process.cpu_seconds.is_some());
}
