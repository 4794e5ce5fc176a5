//! See `everspan_tests::fuzz::http`.

#![no_main]

libfuzzer_sys::fuzz_target!(|raw: &[u8]| everspan_tests::fuzz::http(raw));
