//! What may not take too long, and what may take as long as it likes.
//!
//! The configured times are short, and the tests wait for what follows. Where a test says "not before", it is
//! because something else takes that long.

mod client_side;
mod requests;
mod streams;

use std::time::Duration;

use crate::harness::proxy::{self, Proxy};

/// The configured timeout under test.
const SHORT: Duration = Duration::from_millis(150);

/// A proxy with one listener, route and upstream, each with more of its keys.
fn proxy_with(listener: &str, route: &str, upstream: &str) -> Proxy {
    proxy::on_one_worker(&format!(
        "listeners: [{{ address: 127.0.0.1:0, {listener} }}]\n\
         routes: [{{ upstream: a, {route} }}]\n\
         upstreams: {{ a: {{ {upstream} }} }}\n"
    ))
}
