//! See `corbel_tests::fuzzing::ata_identify`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| corbel_tests::fuzzing::ata_identify(data));
