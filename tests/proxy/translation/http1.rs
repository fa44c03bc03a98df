//! The same through an HTTP/1.1 upstream, as bytes.

use http::Request;

use super::Target;
use crate::harness::{client, origin, proxy};

#[tokio::test]
async fn the_target_is_in_origin_form_and_host_comes_first_and_once() {
    let service = origin::raw_h1().await;
    let proxy = proxy::on_one_worker(&format!("upstream: http1://{service}"));
    let mut connection = service.accept().await;
    let mut client = client::raw(proxy.address()).await;
    client.send("GET http://api.example:81/x?y HTTP/1.1\r\naccept: */*\r\nHOST: api.example:81\r\n\r\n").await;
    let head = connection.expect_request().await.head;
    assert_eq!(head.start, "GET /x?y HTTP/1.1");
    assert_eq!(head.fields[0], ("host".to_owned(), "api.example:81".to_owned()));
    assert_eq!(head.headers("host").count(), 1);
}

#[tokio::test]
async fn fields_for_the_clients_hop_stay_here() {
    let seen = Target::h1()
        .ask(
            "GET /head HTTP/1.1\r\nhost: a\r\nconnection: close, x-one\r\nx-one: 1\r\nkeep-alive: timeout=5\r\n\
             proxy-connection: close\r\nupgrade: h2c\r\nexpect: 100-continue\r\nx-kept: 1\r\nx-real-ip: 1.2.3.4\r\n\r\n",
        )
        .await;
    assert_eq!(seen.names(), ["host", "via", "x-forwarded-for", "x-forwarded-proto", "x-kept"]);
}

#[tokio::test]
async fn cookie_lines_become_one() {
    let seen = Target::h1().ask("GET /head HTTP/1.1\r\nhost: a\r\ncookie: a=1\r\ncookie: b=2\r\n\r\n").await;
    assert_eq!(seen.field("cookie"), "a=1; b=2");
}

#[tokio::test]
async fn te_trailers_is_named_in_connection() {
    let seen = Target::h1().ask("GET /head HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te\r\n\r\n").await;
    assert_eq!((seen.field("te"), seen.field("connection")), ("trailers", "te"));
}

#[tokio::test]
async fn options_asterisk_stays_asterisk() {
    let target = Target::h1();
    let mut client = client::raw(target.proxy.address()).await;
    client.send("OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.expect_response_to("OPTIONS").await.status(), 200);
    let log = target.origin.log();
    assert_eq!((&*log.requests[0].target, &*log.requests[0].authority), ("*", "a"));
}

#[tokio::test]
async fn a_client_that_closes_does_not_close_the_services_connection() {
    let origin = origin::h1().start();
    let proxy = proxy::on_one_worker(&format!("upstream: http1://{origin}"));
    for _ in 0..3 {
        let mut client = client::h1(proxy.address()).await;
        let request = Request::get("/bytes/1").header("connection", "close").body(bytes::Bytes::new()).unwrap();
        assert!(client.send(&request).await.unwrap().head.is_closing());
    }
    let used: Vec<_> = origin.log().requests.iter().map(|request| request.connection).collect();
    assert_eq!(used, [used[0]; 3]);
}

#[tokio::test]
async fn fields_for_the_services_hop_stay_here_and_so_does_its_close() {
    let service = origin::raw_h1().await.answer_all(
        b"HTTP/1.1 200 OK\r\nconnection: close, x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=1\r\nproxy-connection: close\r\n\
          upgrade: h2c\r\nx-kept: 1\r\ncontent-length: 2\r\n\r\nok",
    );
    let proxy = proxy::with(&format!("upstream: http1://{service}"));
    let mut client = client::h1(proxy.address()).await;
    for _ in 0..2 {
        let response = client.get("/").await;
        assert_eq!((response.text(), response.header("x-kept"), response.head.is_closing()), ("ok", Some("1"), false));
        for name in ["connection", "x-hop", "keep-alive", "proxy-connection", "upgrade"] {
            assert_eq!(response.header(name), None, "{:?}", response.head);
        }
    }
}
