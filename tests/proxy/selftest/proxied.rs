//! The harness around a proxy: started from YAML, ended in order.

use crate::harness::load::{self, Load, judge};
use crate::harness::{client, origin, proxy};

#[tokio::test]
async fn request_goes_through_and_the_proxy_ends_in_order() {
    let origin = origin::h2().start();
    let mut proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut client = client::h1(proxy.address()).await;
    assert_eq!(client.post("/echo", "hello").await.text(), "hello");
    assert_eq!(origin.log().requests.len(), 1);
    drop(client);
    assert_eq!(proxy.stop().await.cut_connections, 0);
    origin.wait_for(|log| log.connections_open == 0).await;
}

#[tokio::test]
async fn tagged_load_through_the_proxy_is_clean() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let client = load::start(proxy.address(), Load { requests: 2000, ..Load::default() }).finish().await;
    judge(&client, [&*origin.log()]).assert_clean();
    assert!(origin.log().connections_open_max <= 4, "the default of max_connections");
}
