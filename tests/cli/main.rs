//! The command as its users run it: what they read, where, and the exit code.
//!
//! Runs the built binary in an empty folder without any of its variables. Nothing sleeps: ports come from the kernel,
//! and whoever waits, waits for a line or for the end of a process.

#![allow(unreachable_pub, reason = "a test binary exports nothing: `pub` marks what other files of it use")]

mod binary;
mod check;
mod demo;
mod pages;
mod probe;
mod recipes;
mod serve;
mod service;
