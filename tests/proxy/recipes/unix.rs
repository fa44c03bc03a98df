//! Unix sockets on both sides.

use http::Request;

use super::recipe;
use crate::harness::{client, origin, proxy};
use crate::translation::Seen;

#[tokio::test]
async fn unix_goes_from_socket_to_socket_and_believes_the_proxy_in_front() {
    let (origin, folder) = (origin::h2().start(), tempfile::tempdir().unwrap());
    let (front, back) = (folder.path().join("front.sock"), folder.path().join("back.sock"));
    let _service = proxy::with(&format!(
        "listeners: [{{ address: \"unix:{}\", trust_forwarded_from: [unix] }}]\n\
         upstreams: {{ up: {{ endpoints: [\"h2c://{origin}\"] }} }}",
        back.display()
    ));
    let _proxy = recipe(
        "unix.yaml",
        &[("LISTEN", &format!("unix:{}", front.display())), ("SERVICE", &format!("h2c+unix:{}", back.display()))],
    );
    let mut client = client::h1_unix(&front).await;
    let request = Request::get("/head").header("x-forwarded-for", "203.0.113.9").body(bytes::Bytes::new()).unwrap();
    let seen = Seen(client.send(&request).await.unwrap().json());
    assert_eq!(seen.field("x-forwarded-for"), "203.0.113.9");
}
