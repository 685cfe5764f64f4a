use std::net::SocketAddr;
use std::path::Path;

use outrigger_tests::{Process, find_program, loopback};

use super::{Pki, pinned, version_of};

pub(super) fn version() -> Result<String, String> {
    let program = find_program("haproxy").ok_or("there is no haproxy in PATH")?;
    version_of(&program, "-v")
}

pub(super) fn start(
    application: SocketAddr,
    pki: &Pki,
    directory: &Path,
    core: usize,
) -> (SocketAddr, Vec<Process>) {
    let near = SocketAddr::new(loopback().into(), 25001);
    let far = SocketAddr::new(loopback().into(), 25006);
    let near_config = config(
        &format!("bind {near}"),
        &format!(
            "server far {far} ssl crt {} ca-file {} verify required verifyhost server.bench ssl-min-ver TLSv1.3 alpn h2 proto h2",
            pki.client.bundle, pki.ca
        ),
    );
    let far_config = config(
        &format!(
            "bind {far} ssl crt {} ca-file {} verify required ssl-min-ver TLSv1.3 alpn h2",
            pki.server.bundle, pki.ca
        ),
        &format!("server app {application}"),
    );
    let run = |name: &str, config: String| {
        let path = directory.join(format!("{name}.cfg"));
        std::fs::write(&path, config).expect("the temporary directory is writable");
        let program = find_program("haproxy").expect("its version was found");
        let mut command = pinned(&program, core);
        // In the foreground, without a master process.
        command.arg("-db").arg("-f").arg(path);
        Process::spawn(name, command, directory)
    };
    (
        near,
        vec![
            run("haproxy-far", far_config),
            run("haproxy-near", near_config),
        ],
    )
}

/// `http-no-delay`: without it HAProxy holds small pieces of a stream back. `http-reuse always`: connections to the
/// server are shared by all clients, as in the other proxies.
fn config(bind: &str, server: &str) -> String {
    format!(
        "global\n  nbthread 1\n  maxconn 4000\n\
         defaults\n  mode http\n  option http-no-delay\n  http-reuse always\n\
         \x20 timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         frontend in\n  {bind}\n  default_backend out\n\
         backend out\n  {server}\n"
    )
}
