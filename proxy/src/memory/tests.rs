#![allow(clippy::unwrap_used)]
use tokio::sync::watch;

use super::{code, give_back, give_back_start};

#[test]
fn only_code_of_files_is_given_back() {
    let code_line =
        "5581d6f31000-5581d7829000 r-xp 00278000 fe:01 5373967    /usr/bin/outrigger-proxy";
    assert_eq!(code(code_line), Some((0x5581_d6f3_1000, 0x8f_8000)));
    for line in [
        // Read-only data has relocations in it that the file has not.
        "5581d7829000-5581d788a000 r--p 00b70000 fe:01 5373967    /usr/bin/outrigger-proxy",
        "5581d788a000-5581d7891000 rw-p 00bd0000 fe:01 5373967    /usr/bin/outrigger-proxy",
        "7f2ac0000000-7f2ac0021000 rwxp 00000000 fe:01 5373967    /usr/lib/x.so",
        "7f2ac0000000-7f2ac0021000 r-xs 00000000 fe:01 5373967    /usr/lib/x.so",
        "7f2ac0000000-7f2ac0021000 r-xp 00000000 00:00 0",
        "7ffd5f5f2000-7ffd5f5f4000 r-xp 00000000 00:00 0          [vdso]",
        "7f2ac0021000-7f2ac0000000 r-xp 00000000 fe:01 5373967    /usr/lib/x.so",
        "nothing",
        "",
    ] {
        assert_eq!(code(line), None, "{line}");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(start_paused = true)]
async fn the_program_goes_on_without_its_start() {
    let (sender, identity) = watch::channel(None);
    let task = tokio::spawn(give_back_start(identity));
    tokio::task::yield_now().await;
    assert!(
        !task.is_finished(),
        "nothing is given back before the identity"
    );
    sender.send_replace(Some(()));
    task.await.unwrap();

    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let own = std::env::current_exe().unwrap();
    let own = maps
        .lines()
        .filter(|line| line.ends_with(own.to_str().unwrap()));
    let given: usize = own.filter_map(code).map(give_back).sum();
    assert!(given > 0, "the kernel gives back the program's own code");
}
