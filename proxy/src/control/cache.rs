//! The last good configuration on disk: a sidecar that starts while its control plane is away starts with it.

use std::io;
use std::path::{Path, PathBuf};

use outrigger_proto::dataplane::v1 as wire;
use prost::Message as _;

use crate::files;
use crate::identity::SpiffeId;

/// Name of the file in the data directory.
pub const FILE: &str = "config.bin";
/// A change of the format gets another number.
const MAGIC: &str = "outrigger-config-v1";

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    #[error("cannot read {path}: {error}")]
    Read { path: PathBuf, error: io::Error },
    #[error("{path} is damaged: {what}")]
    Damaged { path: PathBuf, what: &'static str },
    /// Hosts mean other services in another namespace.
    #[error("{path} was written by {found}, this is {wanted}")]
    Identity {
        path: PathBuf,
        found: String,
        wanted: SpiffeId,
    },
}

/// The file's content. `resources` are encoded messages.
pub(super) fn encode<'a>(
    id: &SpiffeId,
    version: u64,
    resources: impl Iterator<Item = &'a [u8]>,
) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for resource in resources {
        body.extend_from_slice(&(resource.len() as u64).to_be_bytes());
        body.extend_from_slice(resource);
    }
    let mut content = format!("{MAGIC} {} {id}\n", sha256(&body)).into_bytes();
    content.append(&mut body);
    content
}

/// Replaces the file.
pub(super) fn save(data_dir: &Path, content: &[u8]) -> io::Result<()> {
    files::create_private_dir(data_dir)?;
    files::write_private(&data_dir.join(FILE), content)
}

/// Reads the file: as one delta. `None`: there is none.
pub(super) fn load(data_dir: &Path, id: &SpiffeId) -> Result<Option<wire::Delta>, CacheError> {
    let path = data_dir.join(FILE);
    let content = match std::fs::read(&path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(CacheError::Read { path, error }),
    };
    let damaged = |what| CacheError::Damaged {
        path: path.clone(),
        what,
    };
    let end = content
        .iter()
        .take(1024)
        .position(|byte| *byte == b'\n')
        .ok_or_else(|| damaged("it has no first line"))?;
    let line = std::str::from_utf8(&content[..end]).map_err(|_| damaged("its first line"))?;
    let mut words = line.split(' ');
    let (magic, digest, found) = (words.next(), words.next(), words.next());
    if magic != Some(MAGIC) {
        return Err(damaged("it is of another version"));
    }
    let body = &content[end + 1..];
    if digest != Some(sha256(body).as_str()) {
        return Err(damaged("its checksum is wrong"));
    }
    if found != Some(id.as_str()) {
        return Err(CacheError::Identity {
            found: found.unwrap_or_default().to_owned(),
            wanted: id.clone(),
            path,
        });
    }
    decode(body).map(Some).ok_or_else(|| damaged("its content"))
}

fn decode(mut body: &[u8]) -> Option<wire::Delta> {
    let version = u64::from_be_bytes(*body.split_off(..8)?.first_chunk()?);
    let mut resources = Vec::new();
    while !body.is_empty() {
        let length = u64::from_be_bytes(*body.split_off(..8)?.first_chunk()?);
        let resource = body.split_off(..usize::try_from(length).ok()?)?;
        resources.push(wire::Resource::decode(resource).ok()?);
    }
    Some(wire::Delta {
        version,
        resources,
        ..wire::Delta::default()
    })
}

fn sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests;
