//! See `corbel_tests::fuzzing::aoe_frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| corbel_tests::fuzzing::aoe_frame(data));
