//! See `corbel_tests::fuzzing::TARGETS`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| corbel_tests::fuzzing::run("isns_client", data));
