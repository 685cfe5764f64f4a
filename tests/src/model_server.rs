use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use crate::{Process, binary, eventually, loopback};

/// The example model server as a process of its own.
#[derive(Debug)]
pub struct ModelServer {
    pub process: Process,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl ModelServer {
    /// With further flags, see `examples/model-server.md`. Serves the model `tiny-chat`.
    pub async fn start(name: &str, flags: &[&str]) -> Self {
        let address = SocketAddr::new(loopback().into(), 28100);
        let directory = tempfile::tempdir().expect("there is room for a directory");
        let mut command = Command::new(binary("model-server"));
        command.args(["--listen", &address.to_string(), "--name", name]);
        command.args(flags);
        let process = Process::spawn(name, command, directory.path());
        eventually(name, Duration::from_secs(10), async || {
            let connected = tokio::net::TcpStream::connect(address).await;
            connected.map(drop).map_err(|error| error.to_string())
        })
        .await;
        Self {
            process,
            address,
            _directory: directory,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
