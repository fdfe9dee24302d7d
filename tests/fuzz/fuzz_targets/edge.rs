//! What `targets::edge` holds.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| metamcpd_fuzz::edge(bytes));
