//! What stays open: event streams, WebSockets, calls of gRPC.

use http::Request;

use super::recipe;
use crate::harness::{client, origin, websocket};

#[tokio::test]
async fn sse_passes_events_at_once_keeps_the_stream_alive_and_spreads_who_comes_back() {
    let origin = origin::h2()
        .handler(|mut exchange| async move {
            exchange.start(exchange.response(200).header("content-type", "text/event-stream"))?;
            exchange.send("data: 1\n\n").await?;
            exchange.hang().await
        })
        .start();
    let proxy = recipe("sse.yaml", &[("SERVICE", &format!("h2c://{origin}")), ("HEARTBEAT", "50ms")]);
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::get("/").body(()).unwrap(), false).await.unwrap();
    assert_eq!(client.head().await.unwrap().status(), Ok(200));
    assert_eq!(client.part().await.unwrap().unwrap(), "data: 1\n\n");
    assert_eq!(client.part().await.unwrap().unwrap(), ":\n\n");
    proxy.drain();
    let rest = client.body().await.expect("a clean end");
    let rest = String::from_utf8(rest.to_vec()).unwrap();
    assert!(rest.contains("retry: ") && rest.ends_with("\n\n"), "{rest:?}");
}

#[tokio::test]
async fn websocket_carries_hundreds_on_two_connections() {
    let origin = origin::h2().max_concurrent_streams(1000).handler(websocket::echo).start();
    let proxy = recipe("websocket.yaml", &[("SERVICE", &format!("h2c://{origin}"))]);
    let mut sockets = Vec::new();
    for _ in 0..200 {
        sockets.push(websocket::open(proxy.address(), "/").await);
    }
    for (n, socket) in sockets.iter_mut().enumerate() {
        socket.expect_echo(&format!("message {n}")).await;
    }
    assert!(origin.log().connections_open_max <= 2);
    for socket in sockets {
        socket.close(1000).await;
    }
}

#[tokio::test]
async fn websocket_does_for_a_service_without_extended_connect_too() {
    let service = websocket::echo_h1().await;
    let proxy = recipe("websocket.yaml", &[("SERVICE", &format!("http1://{service}"))]);
    let mut sockets = Vec::new();
    // Ten times `max_connections`: tunnels are not counted there.
    for _ in 0..20 {
        sockets.push(websocket::open(proxy.address(), "/").await);
    }
    for socket in &mut sockets {
        socket.expect_echo("hello").await;
    }
    for socket in sockets {
        socket.close(1000).await;
    }
}

#[tokio::test]
async fn grpc_lets_a_client_make_many_calls_on_one_connection_and_tells_faults_in_its_words() {
    let mut origin = origin::h2().max_concurrent_streams(1000).start();
    let proxy = recipe("grpc.yaml", &[("SERVICE", &format!("h2c://{origin}"))]);
    let client = client::h2(proxy.address()).await;
    let call = |path| client.request(path).method("POST").header("content-type", "application/grpc").body(()).unwrap();
    let mut held = Vec::new();
    // More than a listener allows by default.
    for _ in 0..150 {
        held.push(client.open(call("/hang"), true).await.unwrap());
    }
    origin.wait_for(|log| log.requests_in_flight() == 150).await;
    let mut answered = client.open(call("/echo"), false).await.unwrap();
    answered.upload("message".into(), true).await.unwrap();
    assert_eq!(answered.answer().await.unwrap().text(), "message");

    origin.crash().await;
    for mut call in held {
        let answer = call.answer().await.unwrap();
        assert_eq!((answer.status(), answer.header("grpc-status")), (200, "14"));
    }
}
