//! Trunkline, an L7 multiplexing reverse proxy.

pub mod balance;
pub mod config;
pub mod error;
pub mod metrics;
pub mod route;
pub mod translate;
