//! What each request pays for its heads, its route and its line in the access log. `make bench` runs all,
//! `cargo bench --profile profiling -- request_head` one.
//!
//! One thread, no sockets: the part of a request that is ours alone.

#![allow(clippy::unwrap_used, reason = "a benchmark: a panic is how it reports")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::uri::{Authority, Scheme};
use http::{Method, Request, Response, request, response};
use trunkline::access_log::{self, AccessLogger, Outcome};
use trunkline::config::{AccessLog, AccessLogFormat, AccessLogOnly, AccessLogOutput, RouteMatch};
use trunkline::metrics::WorkerMetrics;
use trunkline::route::RouteTable;
use trunkline::translate::{self, Hop, RequestHead};

criterion_group!(heads, request_head, response_head, route, access_log_line);
criterion_main!(heads);

fn request_head(criterion: &mut Criterion) {
    let hop = hop();
    let fallback = Authority::from_static("127.0.0.1:9000");
    let mut group = criterion.benchmark_group("request_head");
    for (name, fields) in [("tool", TOOL), ("browser", BROWSER)] {
        let to_http2 = |parts| {
            let head = RequestHead::from_http1(parts, &hop).unwrap();
            head.into_http2(&Scheme::HTTP, &fallback)
        };
        group.bench_function(name, |bencher| {
            bencher.iter_batched(|| request_parts(fields), to_http2, BatchSize::SmallInput);
        });
    }
    group.finish();
}

fn response_head(criterion: &mut Criterion) {
    criterion.bench_function("response_head", |bencher| {
        let to_http1 = |mut parts: response::Parts| {
            let body = translate::response_for_client(&mut parts, &Method::GET).unwrap();
            (parts, body)
        };
        bencher.iter_batched(response_parts, to_http1, BatchSize::SmallInput);
    });
}

fn route(criterion: &mut Criterion) {
    let head = RequestHead::from_http1(request_parts(BROWSER), &hop()).unwrap();
    let table = |count: usize| {
        let conditions = (1..count).map(|number| RouteMatch {
            hosts: vec![format!("service-{number}.example.com")],
            path_prefix: Some(format!("/v{number}")),
            ..RouteMatch::default()
        });
        // The last one takes everything, so all of those before it are looked at.
        RouteTable::new(conditions.chain([RouteMatch::default()]).enumerate().map(|(number, route)| (route, number)))
    };
    let mut group = criterion.benchmark_group("route");
    for count in [1, 10, 100] {
        let table = table(count);
        group.bench_function(format!("last_of_{count}"), |bencher| bencher.iter(|| table.find(black_box(&head))));
    }
    group.finish();
}

fn access_log_line(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("access_log_line");
    for (name, format) in [("json", AccessLogFormat::Json), ("text", AccessLogFormat::Text)] {
        let output = AccessLogOutput::File("/dev/null".into());
        let (sink, writer) = access_log::open(&AccessLog { only: AccessLogOnly::All, format, output }).unwrap();
        // The writer ends with the sink; until then it takes what the bench hands over.
        std::thread::spawn(|| writer.run());
        let logger = AccessLogger::new(sink, Arc::new(WorkerMetrics::default()));
        let outcome = outcome();
        group.bench_function(name, |bencher| bencher.iter(|| logger.record(black_box(&outcome))));
    }
    group.finish();
}

fn hop() -> Hop {
    let via = Hop::via("trunkline").unwrap();
    Hop::new("trunkline".into(), via, IpAddr::V4(Ipv4Addr::LOCALHOST))
}

fn request_parts(fields: &[(&'static str, &'static str)]) -> request::Parts {
    let mut request = Request::get("/v1/items/4711?fields=name,price");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn response_parts() -> response::Parts {
    let fields = [
        ("server", "nginx/1.22.1"),
        ("date", "Sat, 21 Nov 2026 03:02:23 GMT"),
        ("content-type", "application/json"),
        ("content-length", "65"),
        ("cache-control", "no-store"),
        ("vary", "accept-encoding"),
    ];
    let mut response = Response::builder();
    for (name, value) in fields {
        response = response.header(name, value);
    }
    response.body(()).unwrap().into_parts().0
}

fn outcome() -> Outcome<'static> {
    Outcome {
        client: IpAddr::V4(Ipv4Addr::LOCALHOST).into(),
        method: "GET",
        protocol: "HTTP/1.1",
        host: "api.example.com",
        path: "/v1/items/4711?fields=name,price",
        route: "reads",
        upstream: "api",
        endpoint: "h2c://127.0.0.1:9000",
        status: 200,
        fault: None,
        phase: "done",
        total: Duration::from_micros(1234),
        wait: Duration::from_micros(3),
        first_byte: Some(Duration::from_micros(1100)),
        attempts: 1,
        connection_id: 7,
        stream_id: 4711,
        received_bytes: 0,
        sent_bytes: 65,
        request_id: "0f8fad5b-d9cb-469f-a165-70867728950e",
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    }
}

/// As wrk and curl send it.
const TOOL: &[(&str, &str)] = &[("host", "api.example.com"), ("user-agent", "curl/7.88.1"), ("accept", "*/*")];

const BROWSER: &[(&str, &str)] = &[
    ("host", "api.example.com"),
    ("connection", "keep-alive"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("accept-language", "en-US,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br"),
    ("referer", "https://api.example.com/v1/items"),
    ("cookie", "session=0f8fad5bd9cb469fa16570867728950e; theme=dark; consent=1"),
    ("upgrade-insecure-requests", "1"),
    ("sec-fetch-dest", "document"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-site", "same-origin"),
    ("priority", "u=0, i"),
];
