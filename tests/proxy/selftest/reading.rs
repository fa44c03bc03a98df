//! What the harness reads, it reads strictly: messages, metrics pages, the kernel's counts.

use crate::harness::samples::Samples;
use crate::harness::wire::Broken;
use crate::harness::{client, origin, process};

#[tokio::test]
async fn pipelined_answers_are_read_in_order_and_the_end_is_clean() {
    let origin = origin::h1().start();
    let mut client = client::raw(origin.address()).await;
    client.send("GET /status/201 HTTP/1.1\r\nhost: a\r\n\r\nHEAD /bytes/9 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    client.send("GET /status/202 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert_eq!(client.expect_response().await.status(), 201);
    assert_eq!(client.expect_response_to("HEAD").await.header("content-length"), Some("9"));
    assert_eq!(client.expect_response().await.status(), 202);
    client.expect_close().await;
}

#[tokio::test]
async fn answers_that_break_the_rules_are_called_malformed() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx"[..],
        b"HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;ext=1\r\nx\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nxyz\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nname : value\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: b\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: b\nc: d\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
    ] {
        let mut client = client::raw(origin::raw_h1().await.answer_all(answer)).await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let response = client.response_to("GET").await;
        assert!(matches!(response, Err(Broken::Malformed(_))), "{}: {response:?}", answer.escape_ascii());
    }
}

#[tokio::test]
async fn a_body_after_204_stays_as_leftover() {
    let mut client = client::raw(origin::raw_h1().await.answer_all(b"HTTP/1.1 204 No Content\r\n\r\nbody")).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.expect_response().await.body, "");
    assert_eq!(client.leftover(), b"body");
}

#[tokio::test]
async fn interim_heads_are_kept_beside_the_final_answer() {
    let answer = b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let mut client = client::h1(origin::raw_h1().await.answer_all(answer)).await;
    let response = client.get("/").await;
    assert_eq!((response.status(), response.text(), response.interim[0].header("link")), (200, "ok", Some("a")));
}

#[test]
fn samples_are_summed_by_whole_labels() {
    let page = "# TYPE a counter\na_total{reason=\"idle\",upstream=\"x y\"} 2\na_total{reason=\"age\"} 3 1700000000\n\
                a_total_other 9\nb 1e3\n";
    let samples = Samples::parse(page);
    assert!((samples.sum("a_total", &[]) - 5.0).abs() < f64::EPSILON);
    assert!((samples.sum("a_total", &[("reason", "idle")]) - 2.0).abs() < f64::EPSILON);
    assert!((samples.sum("a_total", &[("eason", "idle")])).abs() < f64::EPSILON);
    assert!((samples.sum("b", &[]) - 1000.0).abs() < f64::EPSILON);
    assert!(samples.has("b") && !samples.has("a"));
}

#[test]
fn kernel_counts_are_plausible() {
    assert!((1 << 20..1 << 40).contains(&process::resident_bytes()));
    assert!(process::open_descriptors() >= 3);
}
