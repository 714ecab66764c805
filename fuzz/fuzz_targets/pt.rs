#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| layerfn_fuzz::pt(bytes));
