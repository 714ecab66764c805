#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| layerfn_fuzz::read(layerfn_fuzz::Format::Hdf5, bytes));
