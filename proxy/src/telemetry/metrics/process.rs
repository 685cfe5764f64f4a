//! Figures of the process, as Prometheus' clients name them, read from /proc.

use std::fs;

/// Units of the times in `/proc/self/stat`: `USER_HZ`, 100 on every architecture of Linux that runs Rust.
const TICKS_PER_SECOND: f64 = 100.0;

/// What is not there (another system than Linux, a hidden /proc) stays `None`.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Process {
    pub(super) cpu_seconds: Option<f64>,
    /// Since 1970.
    pub(super) start_seconds: Option<f64>,
    pub(super) threads: Option<f64>,
    pub(super) resident_bytes: Option<f64>,
    pub(super) virtual_bytes: Option<f64>,
    pub(super) open_fds: Option<f64>,
    pub(super) max_fds: Option<f64>,
}

impl Process {
    pub(super) fn read() -> Process {
        let mut process = Process::default();
        if let Ok(stat) = fs::read_to_string("/proc/self/stat") {
            process.take_stat(&stat, boot_time());
        }
        if let Ok(status) = fs::read_to_string("/proc/self/status") {
            process.resident_bytes = kilobytes(&status, "VmRSS:");
        }
        // One of them is the directory that is being read.
        process.open_fds = fs::read_dir("/proc/self/fd")
            .ok()
            .map(|entries| entries.count().saturating_sub(1) as f64);
        process.max_fds = fs::read_to_string("/proc/self/limits")
            .ok()
            .as_deref()
            .and_then(max_fds);
        process
    }

    /// `proc_pid_stat(5)`: fields counted from 1; 14 utime, 15 stime, 20 num_threads, 22 starttime, 23 vsize.
    fn take_stat(&mut self, stat: &str, boot_time: Option<f64>) {
        // The name in field 2 may hold anything, also blanks and parentheses.
        let Some((_, rest)) = stat.rsplit_once(')') else {
            return;
        };
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| {
            fields
                .get(number - 3)
                .and_then(|text| text.parse::<f64>().ok())
        };
        if let (Some(user), Some(system)) = (field(14), field(15)) {
            self.cpu_seconds = Some((user + system) / TICKS_PER_SECOND);
        }
        self.threads = field(20);
        if let (Some(start), Some(boot)) = (field(22), boot_time) {
            self.start_seconds = Some(boot + start / TICKS_PER_SECOND);
        }
        self.virtual_bytes = field(23);
    }
}

/// When the system was started, seconds since 1970.
fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

fn kilobytes(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let number: f64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(number * 1024.0)
}

fn max_fds(limits: &str) -> Option<f64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_ascii_whitespace().next()? {
        "unlimited" => Some(f64::INFINITY),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests;
