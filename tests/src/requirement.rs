use std::path::PathBuf;

/// Says that a test cannot run here and why. The test returns after it.
///
/// # Panics
/// Where `OUTRIGGER_TESTS_REQUIRE=1` is set: continuous integration must not skip.
pub fn skip(reason: &str) {
    let required = std::env::var("OUTRIGGER_TESTS_REQUIRE").is_ok_and(|value| value == "1");
    assert!(
        !required,
        "OUTRIGGER_TESTS_REQUIRE=1 forbids to skip: {reason}"
    );
    eprintln!("skipped: {reason}");
}

/// Finds a program in `PATH`.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}
