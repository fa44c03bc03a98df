//! `cargo +nightly fuzz run request_head corpus/request_head seeds/request_head` (in `fuzz/`).
#![no_main]

#[path = "../harness/mod.rs"]
#[allow(dead_code)]
mod harness;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::request_head(bytes));
