//! The proxy from outside: real sockets, real origins, one file per topic.
//!
//! Every test starts its own origin, proxy and clients on port 0, waits for conditions and never for time,
//! and ends what it started. `selftest` shows that the harness itself tells the truth.

#![allow(clippy::unwrap_used, reason = "a test harness: a panic is how it reports")]
#![allow(unreachable_pub, reason = "a test binary exports nothing: `pub` marks what the topics may use")]

mod chaos;
mod clients;
mod counters;
mod discovery;
mod drain;
mod faults;
mod flow_control;
mod forwarding;
mod framing;
mod harness;
mod http2;
mod limits;
mod multiplex;
mod parking;
mod ping;
mod pool;
mod recipes;
mod reload;
mod retries;
mod selftest;
mod smuggling;
mod storms;
mod streams;
mod timeouts;
mod tls;
mod translation;
mod tunnels;
mod unix;
