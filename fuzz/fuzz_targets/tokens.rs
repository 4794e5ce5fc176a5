//! See `everspan_tests::fuzz::tokens`.

#![no_main]

libfuzzer_sys::fuzz_target!(|raw: &[u8]| everspan_tests::fuzz::tokens(raw));
