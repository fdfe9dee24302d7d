//! What `targets::listing` holds.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| metamcpd_fuzz::listing(bytes));
