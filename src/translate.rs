//! HTTP/1 heads into HTTP/2 heads, and back.
//!
//! A request head comes in as hyper parsed it and leaves as a [`RequestHead`]: unambiguous, free of everything
//! that was meant for the client's connection only, with this hop's own fields added. There is no other way to
//! make one, so what `route` looks at and what goes upstream are the same bytes. A response head is turned in
//! place ([`response_for_client`]), trailers are filtered ([`trailers`]).
//!
//! Pure: knows heads, not bodies, connections or routes. Runs on a worker, once per request, so the usual
//! request pays for one walk over its fields, the removal of Host, and three insertions.
//!
//! Decided here, because the RFCs leave it open:
//! - `Expect: 100-continue` goes on to the service, if there is a body to ask for. Other expectations are removed: there
//!   are none.
//! - `Upgrade` is heeded for a WebSocket and for one other protocol without a body; else, and for other versions of
//!   HTTP or for TLS, the request is answered as if it had not been asked for ([`Upgrade`]).
//! - Nothing that the client says about forwarding is believed: `Forwarded`, `X-Forwarded-*` and `X-Real-IP`
//!   are removed and ours are set. What a trusted peer says (`trust_forwarded_from`) is kept, and added to.
//! - The path is never decoded or normalised. A fragment in the target is cut off by `http::Uri` before we see it.
//!
//! RFC 9110 §7.6 (what an intermediary does), RFC 9112 §3.2 and §6 (target, framing), RFC 9113 §8 (HTTP/2 heads).

mod authority;
mod client_address;
mod copy;
mod fields;
mod forwarded;
mod hop;
#[cfg(test)]
mod properties;
mod request;
mod response;
mod target;
mod trailers;
mod upgrade;

pub use client_address::ClientAddress;
pub use copy::HeadCopy;
pub use fields::is_event_stream;
pub use forwarded::is_trusted;
pub use hop::{Hop, Identity};
pub use request::{RequestHead, is_removable, is_settable};
pub use response::{ResponseBody, response_for_client};
pub use trailers::trailers;
pub use upgrade::{Protocol, Upgrade};
