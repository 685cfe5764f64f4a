//! Resources that come with the quickstart, and the form of `--backend`.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The resources as they were when this program was built, for where the sources are not at hand.
const FILES: [(&str, &str); 6] = [
    ("mesh.yaml", include_str!("../../../quickstart/mesh.yaml")),
    (
        "service.yaml",
        include_str!("../../../quickstart/service.yaml"),
    ),
    ("route.yaml", include_str!("../../../quickstart/route.yaml")),
    (
        "live/gold.yaml",
        include_str!("../../../quickstart/live/gold.yaml"),
    ),
    (
        "live/closed.yaml",
        include_str!("../../../quickstart/live/closed.yaml"),
    ),
    (
        "live/broken.yaml",
        include_str!("../../../quickstart/live/broken.yaml"),
    ),
];

/// The directory with the resources: the one in the sources, or a copy in `fallback`.
pub fn resources(fallback: &Path) -> anyhow::Result<PathBuf> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("quickstart");
    if FILES.iter().all(|(name, _)| sources.join(name).is_file()) {
        return Ok(sources);
    }
    let copy = fallback.join("quickstart");
    for (name, text) in FILES {
        let path = copy.join(name);
        let written = std::fs::create_dir_all(path.parent().unwrap_or(&copy))
            .and_then(|()| std::fs::write(&path, text));
        written.with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(copy)
}

/// A real model server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// As given.
    pub url: String,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Reads `--backend`.
///
/// # Errors
/// What is wrong with the URL, and what is allowed.
pub fn backend(url: &str) -> Result<Backend, String> {
    let parsed: http::Uri = url
        .parse()
        .map_err(|error| format!("{error}; write http://HOST:PORT"))?;
    if parsed.scheme_str() != Some("http") || !matches!(parsed.path(), "/" | "") {
        return Err("write http://HOST:PORT: plain HTTP, and the API at the root".into());
    }
    let host = parsed.host().unwrap_or_default().trim_matches(['[', ']']);
    let addresses = (host, parsed.port_u16().unwrap_or(80)).to_socket_addrs();
    let address = addresses
        .map_err(|error| format!("{host} has no address: {error}"))?
        .next();
    let address = address.ok_or_else(|| format!("{host} has no address"))?;
    Ok(Backend {
        url: url.trim_end_matches('/').to_owned(),
        address,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn backends_are_plain_http_at_the_root() {
        assert_eq!(
            backend("http://127.0.0.1:8000/").unwrap().address,
            "127.0.0.1:8000".parse().unwrap()
        );
        assert_eq!(
            backend("http://[::1]:8000").unwrap().address,
            "[::1]:8000".parse().unwrap()
        );
        assert_eq!(backend("http://127.0.0.1").unwrap().address.port(), 80);
        for wrong in [
            "https://127.0.0.1:8000",
            "127.0.0.1:8000",
            "http://127.0.0.1:8000/v1",
            "",
        ] {
            assert!(
                backend(wrong).unwrap_err().contains("http://HOST:PORT"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn without_the_sources_the_resources_are_written_out() {
        let directory = tempfile::tempdir().unwrap();
        // With the sources, they are used as they are.
        let found = resources(directory.path()).unwrap();
        for (name, text) in FILES {
            assert_eq!(std::fs::read_to_string(found.join(name)).unwrap(), text);
        }
    }
}
