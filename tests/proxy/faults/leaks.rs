//! What a fault does not say, and where else it is said.

use bytes::Bytes;
use http::Request;

use super::proxy_before;
use crate::harness::origin::ReservedAddress;
use crate::harness::{client, origin};

#[tokio::test]
async fn a_fault_says_nothing_about_what_is_behind() {
    let nobody = ReservedAddress::new();
    let proxy = proxy_before(&format!("h2c://{}", nobody.address()), "");
    let mut client = client::raw(proxy.address()).await;
    client.send("GET /secret?token=1 HTTP/1.1\r\nhost: visible\r\nconnection: close\r\n\r\n").await;
    let answer = client.read_to_end().await.unwrap();
    let answer = answer.escape_ascii().to_string();
    for secret in ["127.0.0.1", &nobody.address().port().to_string(), "h2c", "os error", "refused (", "secret", "/src"]
    {
        assert!(!answer.contains(secret), "{secret}: {answer}");
    }
}

#[tokio::test]
async fn a_request_without_an_id_gets_one_in_the_head_and_in_the_sentence() {
    let nobody = ReservedAddress::new();
    let proxy = proxy_before(&format!("h2c://{}", nobody.address()), "");
    let mut client = client::h1(proxy.address()).await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let response = client.get("/").await;
        let id = response.header("x-request-id").expect("an id").to_owned();
        assert!(response.text().ends_with(&format!("\nrequest id: {id}\n")), "{}", response.text());
        ids.push(id);
    }
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_fault_answers_head_without_a_body_and_with_its_length() {
    let nobody = ReservedAddress::new();
    let proxy = proxy_before(&format!("h2c://{}", nobody.address()), "");
    let mut client = client::h1(proxy.address()).await;
    for _ in 0..2 {
        let response = client.send(&Request::head("/").body(Bytes::new()).unwrap()).await.unwrap();
        assert_eq!((response.status(), response.body.len()), (502, 0));
        assert_ne!(response.header("content-length"), Some("0"));
    }
}

#[tokio::test]
async fn a_fault_before_the_body_is_read_leaves_no_text_of_it_behind() {
    let nobody = ReservedAddress::new();
    let proxy = proxy_before(&format!("h2c://{}", nobody.address()), "");
    let mut client = client::raw(proxy.address()).await;
    let body = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
    assert_eq!(client.expect_response_to("POST").await.status(), 502);
    client.send("TRACE / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    // Either the body was read away, and this is the answer to TRACE, or the connection has ended.
    if let Ok(response) = client.response_to("TRACE").await {
        assert_eq!(response.status(), 405);
    }
}

#[tokio::test]
async fn a_fault_is_on_the_metrics_page_once() {
    let nobody = ReservedAddress::new();
    let proxy = proxy_before(&format!("h2c://{}", nobody.address()), "");
    client::h1(proxy.address()).await.get("/").await;
    let samples = proxy.metrics().await;
    let count = |labels: &[(&str, &str)]| samples.sum("trunkline_faults_total", labels);
    let is_one = |count: f64| (count - 1.0).abs() < f64::EPSILON;
    assert!(is_one(count(&[("reason", "connect_refused")])) && is_one(count(&[])), "{samples:#?}");
}

#[tokio::test]
async fn an_answer_of_the_service_is_no_fault_whatever_its_status() {
    let origin = origin::h2().start();
    let proxy = proxy_before(&format!("h2c://{origin}"), "");
    let mut client = client::h1(proxy.address()).await;
    for status in [400, 404, 429, 500, 502, 503, 504] {
        let response = client.get(&format!("/status/{status}")).await;
        assert_eq!((response.status(), response.header("proxy-status")), (status, None));
    }
    assert!(proxy.faults().is_empty(), "{:?}", proxy.faults());
}
