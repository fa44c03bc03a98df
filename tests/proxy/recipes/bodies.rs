//! Long polls and uploads: answers and bodies that take their time.

use std::sync::Arc;

use http::Request;
use tokio::sync::Semaphore;

use super::recipe;
use crate::harness::{client, origin};

/// More than the default's four connections of a hundred streams can hold.
const POLLS: usize = 500;

#[tokio::test]
async fn long_poll_holds_hundreds_of_requests_on_few_connections() {
    let gate = Arc::new(Semaphore::new(0));
    let origin = {
        let gate = gate.clone();
        origin::h2()
            .max_concurrent_streams(1000)
            .handler(move |mut exchange| {
                let gate = gate.clone();
                async move {
                    _ = exchange.until(gate.acquire()).await?;
                    exchange.answer(exchange.response(200), "news").await
                }
            })
            .start()
    };
    let proxy = recipe("long-poll.yaml", &[("SERVICE", &format!("h2c://{origin}"))]);
    let mut clients = Vec::new();
    for _ in 0..POLLS {
        let mut client = client::h1(proxy.address()).await;
        client.start(&Request::get("/").body(()).unwrap(), false).await.unwrap();
        clients.push(client);
    }
    origin.wait_for(|log| log.requests_in_flight() == POLLS).await;
    assert!(origin.log().connections_open <= 4);
    gate.close();
    for client in &mut clients {
        assert_eq!(client.head().await.unwrap().status(), Ok(200));
        assert_eq!(client.body().await.unwrap(), "news");
    }
}

#[tokio::test]
async fn uploads_are_relayed_as_they_come_and_bounded_by_the_size_that_they_state() {
    let origin = origin::h2().start();
    let service = format!("h2c://{origin}");
    let proxy = recipe("uploads.yaml", &[("SERVICE", &service), ("BODY_BYTES", "64KiB")]);
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::post("/echo").body(()).unwrap(), true).await.unwrap();
    client.send_chunk(b"first").await.unwrap();
    // The rest is only sent when the first piece has been there and back.
    assert_eq!(client.head().await.unwrap().status(), Ok(200));
    assert_eq!(client.part().await.unwrap().unwrap(), "first");
    client.send_chunk(b" and last").await.unwrap();
    client.end_chunks().await.unwrap();
    assert_eq!(client.body().await.unwrap(), " and last");

    let mut client = client::h1(proxy.address()).await;
    assert_eq!(client.post("/echo", vec![0; 65 * 1024]).await.status(), 413);
}
