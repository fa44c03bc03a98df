//! What the tests are written in: origins, clients, a scripted HTTP/2 peer, tagged load, and the proxy.
//!
//! Origins run on threads of their own, so that a blocked test never blocks them. Clients and the scripted
//! peer run on the test's runtime. Nothing here sleeps for an effect: [`watched`] waits for conditions.

#![allow(dead_code, reason = "topics use different parts of the harness")]

pub mod binary;
pub mod client;
pub mod counts;
pub mod load;
pub mod origin;
pub mod process;
pub mod proxy;
pub mod said;
pub mod samples;
pub mod scripted;
pub mod tls;
pub mod watched;
pub mod websocket;
pub mod wire;
