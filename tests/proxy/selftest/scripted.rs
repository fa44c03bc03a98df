//! The scripted peer speaks HTTP/2 well enough for a real client, and badly enough for the tests.

use bytes::Bytes;
use h2::Reason;
use h2::client::SendRequest;
use http::Request;

use crate::harness::scripted;
use crate::harness::scripted::frame::{ENABLE_CONNECT_PROTOCOL, END_STREAM, MAX_CONCURRENT_STREAMS, OPEN};
use crate::harness::scripted::{Frame, Peer, Service};

#[tokio::test]
async fn script_answers_a_real_client_with_trailers() {
    let service = scripted::service().await;
    let (mut client, mut peer) = connected(&service).await;
    let (answer, mut body) = client.send_request(request("/a"), false).unwrap();
    body.send_data(Bytes::from_static(b"question"), true).unwrap();
    let head = peer.expect_headers().await;
    assert_eq!((head.field(":path"), head.field("x-request-id"), head.is_end), ("/a", "id-/a", false));
    assert_eq!(peer.expect_body(head.stream).await, "question");
    peer.headers(head.stream, 200, &[("x-long", &"y".repeat(300))], OPEN).await;
    peer.data(head.stream, "answer", OPEN).await;
    peer.trailers(head.stream, &[("x-sum", "7")]).await;
    let mut answer = answer.await.unwrap();
    assert_eq!(answer.headers()["x-long"].len(), 300);
    assert_eq!(answer.body_mut().data().await.unwrap().unwrap(), "answer");
    assert_eq!(answer.body_mut().trailers().await.unwrap().unwrap()["x-sum"], "7");
}

#[tokio::test]
async fn repeated_requests_come_through_the_dynamic_table() {
    let service = scripted::service().await;
    let (mut client, mut peer) = connected(&service).await;
    for stream in [1, 3, 5] {
        let (answer, _) = client.send_request(request("/same"), true).unwrap();
        let head = peer.expect_headers().await;
        assert_eq!((head.stream, head.field("x-request-id")), (stream, "id-/same"));
        peer.answer(&head, 200, "ok").await;
        assert_eq!(answer.await.unwrap().headers()["x-request-id"], "id-/same");
    }
}

#[tokio::test]
async fn reset_and_goaway_reach_the_client_with_their_codes() {
    let service = scripted::service().await;
    let (mut client, mut peer) = connected(&service).await;
    let (refused, _) = client.send_request(request("/r"), true).unwrap();
    let head = peer.expect_headers().await;
    peer.rst_stream(head.stream, Reason::REFUSED_STREAM).await;
    assert_eq!(refused.await.unwrap_err().reason(), Some(Reason::REFUSED_STREAM));

    let (above, _) = client.send_request(request("/g"), true).unwrap();
    let head = peer.expect_headers().await;
    peer.goaway(head.stream - 2, Reason::NO_ERROR).await;
    assert!(above.await.unwrap_err().is_go_away());
    peer.expect_closed().await;
}

#[tokio::test]
async fn gather_shows_that_a_limit_of_one_holds_the_second_stream_back() {
    let service = scripted::service().await;
    let (client, mut peer) = connected(&service).await;
    peer.settings(&[(MAX_CONCURRENT_STREAMS, 1), (ENABLE_CONNECT_PROTOCOL, 1)]).await;
    peer.expect_settings_ack().await;
    peer.expect_settings_ack().await;
    let (first, _) = client.clone().send_request(request("/1"), true).unwrap();
    // A handle takes one waiting stream: the second needs its own.
    let (_second, _) = client.clone().send_request(request("/2"), true).unwrap();
    let head = peer.expect_headers().await;
    assert!(!peer.gather().await.iter().any(|frame| matches!(frame, Frame::Headers(_))));
    peer.headers(head.stream, 204, &[], END_STREAM).await;
    first.await.unwrap();
    assert_eq!(peer.expect_headers().await.field(":path"), "/2");
}

#[tokio::test]
async fn client_reset_is_seen_with_its_code_and_abort_is_a_reset() {
    let service = scripted::service().await;
    let (mut client, mut peer) = connected(&service).await;
    let (answer, mut stream) = client.send_request(request("/x"), false).unwrap();
    let head = peer.expect_headers().await;
    stream.send_reset(Reason::CANCEL);
    assert_eq!(peer.expect_rst(head.stream).await, Reason::CANCEL);
    drop(answer);
    let (answer, _) = client.send_request(request("/y"), true).unwrap();
    peer.expect_headers().await;
    peer.abort().await;
    let error = answer.await.unwrap_err();
    assert!(error.is_io(), "{error}");
}

async fn connected(service: &Service) -> (SendRequest<Bytes>, Peer) {
    let connect = async {
        let stream = tokio::net::TcpStream::connect(service.address()).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        client
    };
    tokio::join!(connect, service.accept_with(&[]))
}

fn request(path: &str) -> Request<()> {
    let request = Request::get(format!("http://origin{path}")).header("x-request-id", format!("id-{path}"));
    request.body(()).unwrap()
}
