#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn levels_and_lists_of_levels() {
    for good in [
        "debug",
        "INFO",
        "off",
        "outrigger_proxy=debug,info",
        "warn, h2=off",
        "outrigger_proxy::control=trace",
    ] {
        assert!(parse(good).is_ok(), "{good}");
    }
}

#[test]
fn a_word_that_is_no_level_is_refused() {
    // `Targets` takes each of these, as the name of a module.
    for bad in [
        "debgu",
        "",
        "outrigger_proxy",
        "info,",
        "h2=loud",
        "3",
        "outrigger_proxy=debug;info",
    ] {
        let error = parse(bad).unwrap_err().to_string();
        assert!(
            error.contains("is not a level") && error.contains("error, warn, info"),
            "{error}"
        );
    }
    assert!(parse(&"x".repeat(10_000)).unwrap_err().to_string().len() < 1000);
}

#[test]
fn the_level_changes_while_the_program_runs() {
    use tracing::Level;
    let level = init("info", LogFormat::Text).unwrap();
    assert!(tracing::enabled!(Level::INFO) && !tracing::enabled!(Level::DEBUG));
    level.set(" debug\n").unwrap();
    assert_eq!(level.get(), "debug");
    assert!(tracing::enabled!(Level::DEBUG));
    level.set("loud").unwrap_err();
    assert_eq!(level.get(), "debug", "a refused one changes nothing");
    level.set("outrigger_proxy=error,warn").unwrap();
    assert!(!tracing::enabled!(Level::WARN));
    assert!(tracing::enabled!(target: "h2", Level::WARN));
    assert!(matches!(
        init("info", LogFormat::Json),
        Err(LogError::Started)
    ));
}
