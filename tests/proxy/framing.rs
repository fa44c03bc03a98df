//! Where messages end: lengths, chunks, closes and cuts, in both directions and over both upstream protocols.
//!
//! An answer that was cut is never given as a complete one, and a connection that goes on is in step.
//! RFC 9112 §6-§9, RFC 9110 §6.5 and §10.1.1, RFC 9113 §8.1.

mod answers;
mod connections;
mod cuts;
mod early;
mod requests;
mod trailers;
