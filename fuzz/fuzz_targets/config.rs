//! `cargo +nightly fuzz run config corpus/config seeds/config` (in `fuzz/`).
#![no_main]

#[path = "../harness/mod.rs"]
#[allow(dead_code)]
mod harness;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::config(bytes));
