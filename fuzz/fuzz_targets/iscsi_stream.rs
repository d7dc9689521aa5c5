//! See `corbel_tests::fuzzing::iscsi_stream`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| corbel_tests::fuzzing::iscsi_stream(data));
