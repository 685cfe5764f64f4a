//! Free ports on loopback: the default where it is free.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::Context as _;

/// Ports that have been given out. They stay taken until this is dropped, so that none is given out twice.
#[derive(Debug, Default)]
pub struct Ports {
    held: Vec<TcpListener>,
}

impl Ports {
    /// `preferred` where it is free, otherwise any free port.
    ///
    /// # Errors
    /// Where the system has no free port.
    pub fn pick(&mut self, preferred: u16) -> anyhow::Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, preferred))
            .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .context("there is no free port on 127.0.0.1")?;
        let address = listener.local_addr()?;
        self.held.push(listener);
        Ok(address)
    }
}
