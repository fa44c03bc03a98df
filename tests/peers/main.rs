//! Real foreign programs on both sides: nginx, nghttpd, NATS, RabbitMQ and gRPC as services, curl, nghttp, wrk, h2load,
//! openssl and Chromium as clients, and Python at either end.
//!
//! Every test starts the real `trunkline` binary, because arguments, signals, exit codes and the allocator count here.
//! A test whose programs are not installed says `skipped: nginx is not installed` and passes; `TRUNKLINE_PEERS=required`
//! makes that a failure, `TRUNKLINE_PEERS=skip` leaves all of them out.
//!
//! Ports come from the kernel, loads run one after the other, and whatever a test starts ends with it. bombardier, h2load's
//! likely rival, is not in Debian and therefore not here.

#![allow(clippy::unwrap_used, reason = "a test harness: a panic is how it reports")]
#![allow(unreachable_pub, reason = "a test binary exports nothing: `pub` marks what the topics may use")]

mod browser;
mod clients;
mod exchanges;
mod grpc;
mod harness;
mod life;
mod load;
mod loss;
mod publish;
mod system_calls;
mod websockets;
