//! h2 itself takes every head and every trailer section that translation lets through.
//!
//! The unit tests check against a list of what h2 refuses; here h2 is asked, on both ends of a pipe.

#![allow(clippy::unwrap_used)] // a test fails by panicking; clippy does not see that the functions below are tests' own

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Version};
use tokio::task::LocalSet;
use trunkline::translate::{Hop, RequestHead, trailers};

type Fields = &'static [(&'static str, &'static str)];

/// Heads with everything in them that HTTP/2 forbids.
const HEADS: [(&str, &str, Fields); 6] = [
    ("GET", "/", &[]),
    ("OPTIONS", "*", &[("upgrade", "h2c"), ("http2-settings", "AAMAAABk"), ("connection", "upgrade, http2-settings")]),
    ("OPTIONS", "http://a", &[("te", "gzip, trailers"), ("connection", "TE"), ("connection", "close")]),
    (
        "POST",
        "http://a?q",
        &[("transfer-encoding", "chunked"), ("expect", "100-continue"), ("keep-alive", "timeout=5")],
    ),
    ("PUT", "//x/../%2e", &[("te", "gzip"), ("te", "deflate"), ("proxy-connection", "keep-alive")]),
    ("x-own", "/{}\"|", &[("cookie", "a=b"), ("cookie", "c=d"), ("content-length", "0"), ("x-request-id", "1")]),
];

#[tokio::test(flavor = "current_thread")]
async fn h2_takes_what_translation_lets_through() {
    let (client, server) = tokio::io::duplex(1 << 16);
    let local = LocalSet::new();
    let origin = local.spawn_local(serve(server));
    local
        .run_until(async {
            let (send_request, connection) = h2::client::handshake(client).await.unwrap();
            tokio::task::spawn_local(connection);
            for (method, target, fields) in HEADS {
                let mut send_request = send_request.clone().ready().await.unwrap();
                let request = translated(method, target, fields);
                let (response, mut body) = send_request.send_request(request, false).unwrap();
                body.send_trailers(trailers(forbidden_trailers())).unwrap();
                assert_eq!(response.await.unwrap().status(), 200, "{method} {target}");
            }
            drop(send_request);
            assert_eq!(origin.await.unwrap(), ["/", "*", "*", "/?q", "//x/../%2e", "/{}\"|"]);
        })
        .await;
}

/// Answers every request when its trailers have come, and returns their paths.
async fn serve(io: tokio::io::DuplexStream) -> Vec<String> {
    let mut paths = Vec::new();
    let mut connection = h2::server::handshake(io).await.unwrap();
    while let Some(accepted) = connection.accept().await {
        let (request, mut respond) = accepted.unwrap();
        paths.push(request.uri().path_and_query().unwrap().to_string());
        tokio::task::spawn_local(async move {
            let mut body = request.into_body();
            while let Some(data) = body.data().await {
                assert_eq!(data.unwrap(), Bytes::new());
            }
            assert_eq!(body.trailers().await.unwrap().unwrap()["x-checksum"], "1");
            respond.send_response(Response::new(()), true).unwrap();
        });
    }
    paths
}

fn translated(method: &str, target: &str, fields: Fields) -> Request<()> {
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = method.parse().unwrap();
    parts.uri = target.parse().unwrap();
    parts.version = Version::HTTP_11;
    parts.headers.insert("host", HeaderValue::from_static("a"));
    for (name, value) in fields {
        parts.headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let hop = Hop::new("me".into(), Hop::via("me").unwrap(), [192, 0, 2, 7].into());
    let head = RequestHead::from_http1(parts, &hop).unwrap();
    head.into_http2(&Scheme::HTTP, &Authority::from_static("fallback"))
}

fn forbidden_trailers() -> HeaderMap {
    let names = ["connection", "te", "transfer-encoding", "upgrade", "keep-alive", "proxy-connection", "x-checksum"];
    names.map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1"))).into_iter().collect()
}
