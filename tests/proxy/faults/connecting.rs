//! Services that cannot be reached, and what does not let itself be spoken to in the clear.

use super::{Asking, GONE, proxy_before, row};
use crate::harness::origin::{self, ReservedAddress};

#[tokio::test]
async fn a_service_that_refuses_connections() {
    let nobody = ReservedAddress::new();
    for protocol in ["h2c", "http1"] {
        let proxy = proxy_before(&format!("{protocol}://{}", nobody.address()), "");
        let row = row(502, "connection_refused", "connect_refused", GONE);
        Asking::new(&proxy).await.expect(&proxy, row).await;
    }
}

/// RFC 6761 §6.4: nothing resolves `invalid`, with or without a resolver.
#[tokio::test]
async fn a_name_that_does_not_resolve() {
    for protocol in ["h2c", "http1"] {
        let proxy = proxy_before(&format!("{protocol}://something.invalid:80"), "timeouts: { connect: 5s }");
        Asking::new(&proxy).await.expect(&proxy, row(502, "dns_error", "dns_failed", GONE)).await;
    }
}

#[tokio::test]
async fn a_service_that_answers_http1_to_the_preface() {
    let service = origin::raw_h1().await.answer_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
    let proxy = proxy_before(&format!("h2c://{service}"), "");
    Asking::new(&proxy).await.expect(&proxy, row(502, "http_protocol_error", "not_http2", GONE)).await;
}
