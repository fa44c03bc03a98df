//! `cargo +nightly fuzz run http2_head corpus/http2_head seeds/http2_head` (in `fuzz/`).
#![no_main]

#[path = "../harness/mod.rs"]
#[allow(dead_code)]
mod harness;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::http2_head(bytes));
