//! Trunkline, an L7 multiplexing reverse proxy: many HTTP/1.1 client connections on a few HTTP/2 connections to the service
//! beside it.
//!
//! # The life of a request
//!
//! A [`worker`] accepts a connection and lets hyper parse a head. [`translate`] refuses what is ambiguous and makes the only
//! form in which a head goes anywhere; [`route`] finds its upstream and [`balance`] an endpoint. The worker's pool gives a
//! permit for one stream of a shared HTTP/2 connection; bodies are relayed both ways under the stream's window. Whatever
//! goes wrong is a [`Fault`](error::Fault) with one row in one table. At the end the request becomes one record, for
//! [`metrics`] and the [`access_log`].
//!
//! # The map
//!
//! - [`config`]: text to a valid [`Config`](config::Config), with all errors at once.
//! - [`control`]: the thread that starts workers, reloads, drains and answers operators. [`Process`](control::Process) is
//!   the way in for a program that embeds a proxy.
//! - [`worker`]: one thread per core that carries requests.
//! - pure: [`config`], [`error`], [`route`], [`balance`], [`translate`], [`events`], [`grpc`]; shared edges: [`tls`], [`metrics`], [`access_log`].
//!
//! # What always holds
//!
//! - A connection belongs to one worker; the request path takes no lock that another thread holds.
//! - Streams on a connection never exceed the smaller of our limit and the peer's latest.
//! - The connection window covers all stream windows: a client that does not read stalls nobody else.
//! - A cut answer never ends as a complete one.
//! - A request is written to a service at most once.

pub mod access_log;
pub mod balance;
pub mod config;
pub mod control;
pub mod error;
pub mod events;
pub mod grpc;
pub mod metrics;
pub mod route;
pub mod tls;
pub mod translate;
pub mod worker;
