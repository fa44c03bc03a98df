//! Clients and services that do not take what they are sent.

use bytes::Bytes;

use crate::harness::{client, origin, proxy};

#[tokio::test]
async fn a_stream_that_its_client_does_not_read_hurts_no_other_on_the_connection() {
    let origin = origin::h2().windows(1 << 20, 1 << 24).start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    // A client whose connection window is large, as with every good client.
    let client = client::h2_with(proxy.address(), |builder| {
        builder.initial_connection_window_size(1 << 24);
    })
    .await;
    let mut stalled = Vec::new();
    for _ in 0..50 {
        let mut stream = client.open(client.request("/bytes/1000000").body(()).unwrap(), true).await.unwrap();
        stream.head().await.unwrap();
        stalled.push(stream);
    }
    assert_eq!(client.get("/bytes/60000").await.body.len(), 60_000);
    for mut stream in stalled {
        let mut length = 0;
        while let Some(part) = stream.part().await.unwrap() {
            length += part.len();
        }
        assert_eq!(length, 1_000_000);
    }
}

#[tokio::test]
async fn a_stream_whose_client_takes_nothing_is_reset_and_the_connection_goes_on() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!(
        "upstreams: {{ a: {{ endpoints: [\"h2c://{origin}\"] }} }}\n\
         routes: [{{ upstream: a, timeouts: {{ stream_idle: 300ms }} }}]"
    ));
    let client = client::h2(proxy.address()).await;
    let mut stream = client.open(client.request("/bytes/1000000").body(()).unwrap(), true).await.unwrap();
    stream.head().await.unwrap();
    proxy.expect_fault("write_stalled").await;
    let mut end = stream.part().await;
    while let Ok(Some(_)) = end {
        end = stream.part().await;
    }
    assert_eq!(end.unwrap_err().code, Some(h2::Reason::CANCEL));
    assert_eq!(client.get("/status/200").await.status(), 200);
    origin.wait_for(|log| log.requests_in_flight() == 0).await;
}

#[tokio::test]
async fn an_answer_of_our_own_is_not_held_for_ever_for_a_client_that_does_not_read_it() {
    let proxy = proxy::with(
        "upstreams: { a: { endpoints: [\"h2c://127.0.0.1:9\"] } }\n\
         routes: [{ upstream: a, match: { path_prefix: /a } }]\n\
         listeners: [{ address: 127.0.0.1:0, timeouts: { idle: 200ms } }]",
    );
    let client = client::h2_with(proxy.address(), |builder| {
        builder.initial_window_size(0);
    })
    .await;
    let mut stream = client.open(client.request("/").body(()).unwrap(), true).await.unwrap();
    assert_eq!(stream.head().await.unwrap().status(), 404);
    assert_eq!(stream.part().await.unwrap_err().code, Some(h2::Reason::CANCEL));
    assert_eq!(client.ended().await, Ok(()));
}

#[tokio::test]
async fn a_body_that_the_service_does_not_take_stops_its_client_and_nobody_else() {
    let origin = origin::h2().handler(|mut exchange| async move {
        if exchange.path() == "/never" {
            return exchange.hang().await;
        }
        origin::behaviour::by_path(exchange).await
    });
    let origin = origin.start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let client = client::h2(proxy.address()).await;
    let request = client.request("/never").method("POST").body(()).unwrap();
    let mut stuck = client.open(request, false).await.unwrap();
    let body = Bytes::from(vec![0; 1 << 20]);
    let sent = tokio::time::timeout(std::time::Duration::from_millis(300), stuck.upload(body.clone(), true)).await;
    assert!(sent.is_err(), "the service takes nothing, and yet all has gone");
    assert_eq!(client.post("/upload", body.clone()).await.text(), body.len().to_string());
}
