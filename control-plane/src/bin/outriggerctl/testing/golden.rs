//! Golden files: what people read, as it was last looked at and found good.

use std::path::Path;

/// Compares `actual` with `golden/<name>.txt`. With `UPDATE_GOLDEN=1` the file is written instead: look at the diff.
pub fn golden(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/bin/outriggerctl/golden")
        .join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, actual).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; UPDATE_GOLDEN=1 writes it", path.display()));
    assert!(
        expected == actual,
        "{name} has changed; UPDATE_GOLDEN=1 accepts it\n--- expected\n{expected}\n--- actual\n{actual}"
    );
}
