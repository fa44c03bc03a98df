//! Calls of gRPC: what is ours to say is said in its words, and a caller's deadline ends a call.

use h2::Reason;
use http::Request;

use super::proxy_to;
use crate::harness::client::H2Client;
use crate::harness::origin::log::Ending;
use crate::harness::scripted::frame::{END_STREAM, OPEN};
use crate::harness::wire::Response;
use crate::harness::{client, origin, proxy, scripted};

#[tokio::test]
async fn a_fault_is_told_as_a_head_that_is_trailers_at_the_same_time() {
    let nobody = origin::ReservedAddress::new();
    let proxy = proxy::with(&format!(
        "upstreams: {{ a: {{ endpoints: [\"h2c://{}\"], pool: {{ pending_timeout: 100ms }} }} }}\n\
         listeners: [{{ address: 127.0.0.1:0 }}]\nroutes: [{{ match: {{ path_prefix: /a }}, upstream: a }}]",
        nobody.address()
    ));
    let refused = call(&proxy, "/a/Method", &[("x-request-id", "4711")]).await;
    assert_eq!((refused.status(), refused.body.len()), (200, 0));
    assert_eq!(refused.header("content-type"), Some("application/grpc"));
    assert_eq!(refused.header("grpc-status"), Some("14"));
    let message = "The service could not be reached. (request id 4711)";
    assert_eq!(refused.header("grpc-message"), Some(message));
    assert_eq!(refused.header("proxy-status"), Some("trunkline; error=connection_refused"));
    let unknown = call(&proxy, "/other/Method", &[]).await;
    assert_eq!((unknown.status(), unknown.header("grpc-status")), (200, Some("12")));
    assert_eq!(unknown.header("proxy-status"), Some("trunkline; error=destination_not_found"));
}

#[tokio::test]
async fn a_fault_of_a_grpc_web_call_is_plain_http() {
    let proxy = proxy_to("h2c://127.0.0.1:1", "match: { path_prefix: /a }");
    let mut client = client::h1(proxy.address()).await;
    let request = Request::post("/b").header("content-type", "application/grpc-web+proto");
    let response = client.send(&request.body("call".into()).unwrap()).await.unwrap();
    assert_eq!((response.status(), response.header("grpc-status")), (404, None));
}

#[tokio::test]
async fn a_call_ends_at_its_callers_deadline() {
    let origin = origin::h2().start();
    let proxy = proxy_to(&format!("h2c://{origin}"), "timeouts: { request: 1h }");
    let late = call(&proxy, "/hang", &[("grpc-timeout", "150m")]).await;
    assert_eq!((late.status(), late.header("grpc-status")), (200, Some("4")));
    origin.wait_for(|log| log.ended(Ending::ResetByPeer(Reason::CANCEL)) == 1).await;
    // The service knows how much time there is, too.
    assert_eq!(origin.log().requests[0].header("grpc-timeout"), Some("150m"));
    proxy.expect_fault("request_timeout").await;
}

#[tokio::test]
async fn the_routes_own_limit_holds_for_a_caller_that_would_wait_longer() {
    let origin = origin::h2().start();
    let proxy = proxy_to(&format!("h2c://{origin}"), "timeouts: { request: 150ms }");
    for timeout in ["1H", "for ever"] {
        let late = call(&proxy, "/hang", &[("grpc-timeout", timeout)]).await;
        assert_eq!(late.header("grpc-status"), Some("4"), "{timeout}");
    }
}

#[tokio::test]
async fn a_timeout_that_cannot_be_read_limits_nothing_and_goes_on() {
    let origin = origin::h2().start();
    let proxy = proxy_to(&format!("h2c://{origin}"), "");
    let answer = call(&proxy, "/delay/300", &[("grpc-timeout", "1ms")]).await;
    assert_eq!(answer.text(), "slow");
    assert_eq!(origin.log().requests[0].header("grpc-timeout"), Some("1ms"));
}

#[tokio::test]
async fn callers_of_http2_are_told_in_a_single_head() {
    let proxy = proxy_to("h2c://127.0.0.1:1", "match: { path_prefix: /a }");
    let client = client::h2(proxy.address()).await;
    let mut stream = client.open(grpc(&client, "/b/Method", &[]), false).await.unwrap();
    let head = stream.head().await.unwrap();
    assert_eq!(head.headers()["grpc-status"], "12");
    assert!(!head.headers().contains_key("content-length"));
    assert_eq!(stream.part().await.unwrap(), None);
    assert_eq!(stream.trailers().await.unwrap().len(), 0);
}

#[tokio::test]
async fn answers_that_are_trailers_alone_pass_with_binary_metadata() {
    let service = scripted::service().await;
    let proxy = proxy_to(&format!("h2c://{service}"), "");
    let mut peer = service.accept_with(&[]).await;
    let client = client::h2(proxy.address()).await;
    let mut stream = client.open(grpc(&client, "/a/Method", &[("x-own-bin", "AAEC/w")]), true).await.unwrap();
    let request = peer.expect_headers().await;
    assert_eq!((request.field("te"), request.field("x-own-bin")), ("trailers", "AAEC/w"));
    let fields = [("content-type", "application/grpc"), ("grpc-status", "5"), ("x-their-bin", "/wD+")];
    peer.headers(request.stream, 200, &fields, END_STREAM).await;
    let head = stream.head().await.unwrap();
    assert_eq!(
        (&head.headers()["grpc-status"], &head.headers()["x-their-bin"]),
        (&"5".parse().unwrap(), &"/wD+".parse().unwrap())
    );
    assert_eq!(stream.part().await.unwrap(), None);
    assert!(proxy.faults().is_empty(), "{:?}", proxy.faults());
}

#[tokio::test]
async fn messages_go_both_ways_and_the_status_comes_last() {
    let service = scripted::service().await;
    let proxy = proxy_to(&format!("h2c://{service}"), "");
    let mut peer = service.accept_with(&[]).await;
    let client = client::h2(proxy.address()).await;
    let mut stream = client.open(grpc(&client, "/a/Method", &[]), false).await.unwrap();
    let id = peer.expect_headers().await.stream;
    peer.headers(id, 200, &[("content-type", "application/grpc")], OPEN).await;
    stream.head().await.unwrap();
    for message in ["\0\0\0\0\x01a", "\0\0\0\0\x01b"] {
        stream.upload(message.into(), false).await.unwrap();
        assert_eq!(peer.expect_data(id).await.0, message);
        peer.data(id, message, OPEN).await;
        assert_eq!(stream.part().await.unwrap().unwrap(), message);
    }
    // The caller has said all, the service has not.
    stream.sending.send_data(bytes::Bytes::new(), true).unwrap();
    assert!(peer.expect_data(id).await.1);
    peer.trailers(id, &[("grpc-status", "0"), ("x-sum-bin", "Cg")]).await;
    assert_eq!(stream.part().await.unwrap(), None);
    let trailers = stream.trailers().await.unwrap();
    assert_eq!((trailers.len(), &trailers["grpc-status"]), (2, &"0".parse().unwrap()));
}

#[tokio::test]
async fn a_deadline_in_the_middle_of_an_answer_is_told_in_trailers() {
    let service = scripted::service().await;
    let proxy = proxy_to(&format!("h2c://{service}"), "");
    let mut peer = service.accept_with(&[]).await;
    let client = client::h2(proxy.address()).await;
    let fields = [("grpc-timeout", "250m"), ("x-request-id", "4711")];
    let mut stream = client.open(grpc(&client, "/a/Method", &fields), true).await.unwrap();
    let id = peer.expect_headers().await.stream;
    peer.headers(id, 200, &[("content-type", "application/grpc")], OPEN).await;
    stream.head().await.unwrap();
    assert_eq!(stream.part().await.unwrap(), None);
    let trailers = stream.trailers().await.unwrap();
    assert_eq!(trailers["grpc-status"], "4");
    assert_eq!(trailers["grpc-message"], "The request took too long. (request id 4711)");
    assert_eq!(peer.expect_rst(id).await, Reason::CANCEL);
    proxy.expect_fault("request_timeout").await;
}

#[tokio::test]
async fn a_caller_that_gives_up_has_its_call_cancelled() {
    let service = scripted::service().await;
    let proxy = proxy_to(&format!("h2c://{service}"), "");
    let mut peer = service.accept_with(&[]).await;
    let client = client::h2(proxy.address()).await;
    let stream = client.open(grpc(&client, "/a/Method", &[]), false).await.unwrap();
    let id = peer.expect_headers().await.stream;
    stream.reset(Reason::CANCEL);
    assert_eq!(peer.expect_rst(id).await, Reason::CANCEL);
    proxy.expect_fault("client_gone").await;
}

fn grpc(client: &H2Client, target: &str, fields: &[(&str, &str)]) -> Request<()> {
    let request = client.request(target).method("POST").header("content-type", "application/grpc");
    let request = request.header("te", "trailers");
    fields.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(()).unwrap()
}

/// As a caller behind something that has made HTTP/1.1 of its call; nothing else about it is of gRPC's.
async fn call(proxy: &proxy::Proxy, target: &str, fields: &[(&str, &str)]) -> Response {
    let mut client = client::h1(proxy.address()).await;
    let mut request = Request::post(target).header("content-type", "application/grpc+proto").header("te", "trailers");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    client.send(&request.body("\0\0\0\0\0".into()).unwrap()).await.unwrap()
}
