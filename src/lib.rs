//! Trunkline, an L7 multiplexing reverse proxy.

pub mod access_log;
pub mod balance;
pub mod config;
pub mod control;
pub mod error;
pub mod metrics;
pub mod route;
pub mod tls;
pub mod translate;
pub mod worker;
