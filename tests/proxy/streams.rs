//! What travels for long: event streams, held polls, calls of gRPC, and uploads that wait to be asked for.

mod events;
mod expectations;
mod grpc;
mod many;
mod polls;
mod uploads;

use crate::harness::proxy::{self, Proxy};

/// A proxy with one route that has these keys, in front of one service.
fn proxy_to(endpoint: &str, route: &str) -> Proxy {
    proxy::on_one_worker(&format!(
        "listeners: [{{ name: http, address: 127.0.0.1:0 }}]\n\
         routes: [{{ upstream: a, {route} }}]\n\
         upstreams: {{ a: {{ endpoints: [\"{endpoint}\"] }} }}"
    ))
}
