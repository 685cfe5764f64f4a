//! `-f FILE|DIR|-`: which texts are meant.

use std::path::{Path, PathBuf};

use crate::app::Io;
use crate::failure::Failure;

/// Extensions that are read from a directory.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// A file's content with the name by which problems refer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// Reads all files, in the order in which they are given; those of a directory by name.
pub fn read(files: &[PathBuf], io: &mut Io<'_>) -> Result<Vec<Source>, Failure> {
    let mut sources = Vec::new();
    let mut stdin_read = false;
    for path in files {
        if path.as_os_str() == "-" {
            if std::mem::replace(&mut stdin_read, true) {
                return Err(Failure::usage(
                    "`-f -` is given twice; stdin can be read once",
                ));
            }
            sources.push(stdin(io)?);
        } else if path.is_dir() {
            let files = directory(path)?;
            if files.is_empty() {
                let message = format!("{} holds no *.yaml, *.yml or *.json", path.display());
                return Err(Failure::refused(message)
                    .hint("Directories below it are not searched; name them with further -f."));
            }
            for file in files {
                sources.push(read_file(&file)?);
            }
        } else {
            sources.push(read_file(path)?);
        }
    }
    Ok(sources)
}

fn stdin(io: &mut Io<'_>) -> Result<Source, Failure> {
    let mut bytes = Vec::new();
    io.stdin
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::refused(format!("cannot read stdin: {error}")))?;
    Ok(Source {
        name: "stdin".to_owned(),
        bytes,
    })
}

fn directory(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let unreadable = |error| Failure::refused(format!("cannot read {}: {error}", path.display()));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        let wanted = file
            .extension()
            .and_then(|extension| extension.to_str())
            .is_some_and(|extension| EXTENSIONS.contains(&extension));
        if wanted && file.is_file() {
            files.push(file);
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn read_file(path: &Path) -> Result<Source, Failure> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Source {
            name: path.display().to_string(),
            bytes,
        }),
        Err(error) => Err(Failure::refused(format!(
            "cannot read {}: {error}",
            path.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::failure::Exit;
    use crate::testing::with_io;

    fn names(files: &[PathBuf], stdin: &str) -> Result<Vec<String>, Failure> {
        with_io(stdin, |io| read(files, io))
            .map(|sources| sources.into_iter().map(|s| s.name).collect())
    }

    #[test]
    fn directories_are_read_by_name_and_only_for_resources() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["b.yaml", "a.json", "c.yml", "README.md", "z.yaml.bak"] {
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        std::fs::create_dir(dir.path().join("deeper.yaml")).unwrap();
        let expected: Vec<String> = ["a.json", "b.yaml", "c.yml"]
            .map(|f| dir.path().join(f).display().to_string())
            .to_vec();
        assert_eq!(names(&[dir.path().to_owned()], "").unwrap(), expected);
    }

    #[test]
    fn stdin_is_read_once() {
        assert_eq!(names(&["-".into()], "x").unwrap(), ["stdin"]);
        assert_eq!(
            names(&["-".into(), "-".into()], "x").unwrap_err().exit(),
            Exit::Usage
        );
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = names(&[dir.path().join("none.yaml")], "").unwrap_err();
        assert!(format!("{missing:?}").contains("none.yaml"), "{missing:?}");
        let empty = names(&[dir.path().to_owned()], "").unwrap_err();
        assert!(
            format!("{empty:?}").contains("holds no *.yaml"),
            "{empty:?}"
        );
    }
}
