#![no_main]

use outrigger_control_plane::model::parse;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let parsed = parse::parse("fuzz.yaml", bytes);
    for problem in &parsed.problems {
        // What a user is shown.
        assert!(!problem.to_string().is_empty());
    }
});
