//! `cargo +nightly fuzz run route corpus/route seeds/route` (in `fuzz/`).
#![no_main]

#[path = "../harness/mod.rs"]
#[allow(dead_code)]
mod harness;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::route(bytes));
