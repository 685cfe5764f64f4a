//! Who listens where, decided before anything starts.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::ports::Ports;
use crate::settings::Backend;

/// Labels of the example's replicas; each has one.
const VERSIONS: [&str; 3] = ["v1", "v1", "v2"];
/// A replica's ports are the defaults, plus this for the first, twice this for the second, and so on.
const STEP: u16 = 100;

/// All addresses.
#[derive(Debug)]
pub struct Layout {
    pub control_plane: ControlPlane,
    pub caller: Sidecar,
    pub replicas: Vec<Replica>,
}

/// Addresses of the control plane.
#[derive(Debug)]
pub struct ControlPlane {
    pub sidecars: SocketAddr,
    pub management: SocketAddr,
    pub metrics: SocketAddr,
}

/// One model server and the sidecar beside it. The server's process has this name, unless it is a real one.
#[derive(Debug, Clone)]
pub struct Replica {
    pub name: String,
    pub version: &'static str,
    pub application: SocketAddr,
    /// Where it is if it is a real one.
    pub url: Option<String>,
    pub sidecar: Sidecar,
}

/// One sidecar. Its process has its name.
#[derive(Debug, Clone)]
pub struct Sidecar {
    pub name: String,
    pub metrics: SocketAddr,
    pub admin: SocketAddr,
    pub outbound: SocketAddr,
    /// Where peers reach it. The caller's has none.
    pub inbound: Option<SocketAddr>,
    /// File with its join token.
    pub token: PathBuf,
}

impl Layout {
    /// Takes the default ports where they are free.
    ///
    /// # Errors
    /// Where the system has no free port.
    pub fn new(directory: &Path, backends: &[Backend]) -> anyhow::Result<Self> {
        let mut ports = Ports::default();
        let tokens = directory.join("tokens");
        let control_plane = ControlPlane {
            sidecars: ports.pick(15010)?,
            management: ports.pick(15011)?,
            metrics: ports.pick(15014)?,
        };
        let caller = Sidecar {
            name: "frontend-sidecar".to_owned(),
            metrics: ports.pick(15020)?,
            admin: ports.pick(15000)?,
            outbound: ports.pick(15001)?,
            inbound: None,
            token: tokens.join("frontend"),
        };
        let count = if backends.is_empty() {
            VERSIONS.len()
        } else {
            backends.len()
        };
        let mut replicas = Vec::with_capacity(count);
        for (index, base) in (0..count).zip((STEP..).step_by(usize::from(STEP))) {
            let name = format!("chat-{}", index + 1);
            let backend = backends.get(index);
            replicas.push(Replica {
                sidecar: Sidecar {
                    name: format!("{name}-sidecar"),
                    metrics: ports.pick(15020 + base)?,
                    admin: ports.pick(15000 + base)?,
                    outbound: ports.pick(15001 + base)?,
                    inbound: Some(ports.pick(15006 + base)?),
                    token: tokens.join("chat"),
                },
                name,
                version: if backend.is_some() {
                    "v1"
                } else {
                    VERSIONS[index]
                },
                application: match backend {
                    Some(backend) => backend.address,
                    None => ports.pick(9001 + index as u16)?,
                },
                url: backend.map(|backend| backend.url.clone()),
            });
        }
        Ok(Self {
            control_plane,
            caller,
            replicas,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_address_is_given_out_twice() {
        let layout = Layout::new(Path::new("/data"), &[]).unwrap();
        let mut addresses = vec![
            layout.control_plane.sidecars,
            layout.control_plane.management,
            layout.control_plane.metrics,
        ];
        for sidecar in layout
            .replicas
            .iter()
            .map(|replica| &replica.sidecar)
            .chain([&layout.caller])
        {
            addresses.extend([sidecar.metrics, sidecar.admin, sidecar.outbound]);
            addresses.extend(sidecar.inbound);
        }
        addresses.extend(layout.replicas.iter().map(|replica| replica.application));
        assert_eq!(addresses.len(), 3 + 3 * 5 + 3);
        assert_eq!(
            addresses.iter().collect::<HashSet<_>>().len(),
            addresses.len()
        );
    }
}
