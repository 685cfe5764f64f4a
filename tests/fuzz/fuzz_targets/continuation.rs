#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outrigger_proxy::fuzzing::continuation(bytes));
