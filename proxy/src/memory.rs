//! Memory of the start that nobody needs any more.
//!
//! Starting runs through most of the program once: flags, files, TLS, the control plane's messages. The kernel maps code in
//! pieces of 64 KiB around each place that is reached, and leaves it mapped as long as nobody is short of memory: half of an
//! idle sidecar. It is given back when the start is over; what runs again is found in the kernel's page cache.

use std::time::Duration;

use tokio::sync::watch;
use tracing::debug;

/// From the identity until the first configuration is there and the listeners are known to others: some round trips.
const START: Duration = Duration::from_secs(1);

/// Waits until the sidecar has an identity and has started, and gives back the code of the start. Ends after that.
pub async fn give_back_start<T>(mut identity: watch::Receiver<Option<T>>) {
    if identity.wait_for(Option::is_some).await.is_err() {
        return;
    }
    tokio::time::sleep(START).await;
    match std::fs::read_to_string("/proc/self/maps") {
        Ok(maps) => {
            let bytes: usize = maps.lines().filter_map(code).map(give_back).sum();
            debug!("gave back the start's part of {bytes} bytes of code");
        }
        // Not Linux, or no /proc: it stays.
        Err(error) => debug!("/proc/self/maps: {error}"),
    }
}

/// Start and length of a mapping that is code of a file: private, executable, and not writable. `None`: it is something else.
fn code(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let is_code = fields.next()? == "r-xp" && fields.nth(3)?.starts_with('/');
    let address = |text| usize::from_str_radix(text, 16).ok();
    let (start, end) = (address(start)?, address(end)?);
    is_code.then_some((start, end.checked_sub(start)?))
}

/// Returns how many bytes were asked to be given back; 0 where the kernel refuses.
#[cfg(target_os = "linux")]
fn give_back((start, length): (usize, usize)) -> usize {
    // SAFETY: the mapping is private, backed by a file and not writable, and code has no relocations (they are in mappings of
    // their own): its pages are those of the file, so that nothing is lost with them, and the next access brings them back.
    // The kernel checks the range. The call is not to be had without `unsafe`.
    #[expect(unsafe_code, reason = "madvise, see above")]
    let result = unsafe {
        libc::madvise(
            std::ptr::without_provenance_mut(start),
            length,
            libc::MADV_DONTNEED,
        )
    };
    if result == 0 { length } else { 0 }
}

#[cfg(not(target_os = "linux"))]
fn give_back(_: (usize, usize)) -> usize {
    0
}

#[cfg(test)]
mod tests;
