//! The fault table, row by row: what the client reads, whether its connection is kept, and what is counted.
//!
//! The rows are spelt out here a second time, so that a change of the table is a decision. RFC 9110 §15, RFC 9209.

mod absence;
mod client_side;
mod connecting;
mod http1;
mod leaks;
mod streams;
mod tls;

use http::Request;

use crate::harness::client::{self, Client};
use crate::harness::proxy::{self, Proxy};

/// One row, as the client sees it.
struct Row {
    status: u16,
    error: &'static str,
    /// The value of the metric's label.
    reason: &'static str,
    sentence: &'static str,
    is_closing: bool,
    is_retry_after_sent: bool,
}

const fn row(status: u16, error: &'static str, reason: &'static str, sentence: &'static str) -> Row {
    Row { status, error, reason, sentence, is_closing: false, is_retry_after_sent: false }
}

impl Row {
    const fn closing(mut self) -> Self {
        self.is_closing = true;
        self
    }

    const fn retry_after(mut self) -> Self {
        self.is_retry_after_sent = true;
        self
    }
}

const GONE: &str = "The service could not be reached.";
const BROKEN: &str = "The service broke off the answer.";
const INVALID: &str = "The service's answer is not valid.";

/// A request on its way, whose answer will be a fault.
struct Asking {
    client: Client,
}

impl Asking {
    async fn new(proxy: &Proxy) -> Self {
        Self::with(proxy, &Request::get("/asked").body(()).unwrap()).await
    }

    async fn with(proxy: &Proxy, request: &Request<()>) -> Self {
        let mut client = client::h1(proxy.address()).await;
        let mut request = request.clone();
        request.headers_mut().insert("x-request-id", "the id".parse().unwrap());
        client.start(&request, false).await.unwrap();
        Self { client }
    }

    /// Reads the whole answer, and everything around it that the row says.
    #[track_caller]
    fn expect(self, proxy: &Proxy, row: Row) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let Self { mut client } = self;
            let head = client.head().await.unwrap_or_else(|broken| panic!("{caller}: no answer: {broken:?}"));
            let Row { status, error, reason, sentence, is_closing, is_retry_after_sent } = row;
            let proxy_status = format!("trunkline; error={error}");
            let token = head.header("proxy-status");
            assert_eq!((head.status(), token), (Ok(status), Some(proxy_status.as_str())), "{caller}");
            assert_eq!(head.header("x-request-id"), Some("the id"), "{caller}");
            assert_eq!(head.header("retry-after"), is_retry_after_sent.then_some("1"), "{caller}");
            assert_eq!(head.header("content-type"), Some("text/plain; charset=utf-8"), "{caller}");
            assert!(head.header("date").is_some(), "{caller}: {head:?}");
            let body = client.body().await.unwrap();
            assert_eq!(body, format!("{status} {sentence}\nrequest id: the id\n"), "{caller}");
            assert_eq!(head.is_closing(), is_closing, "{caller}: {head:?}");
            proxy.expect_fault(reason).await;
            if is_closing {
                client.into_raw().expect_close().await;
            } else {
                client.start(&Request::trace("/").body(()).unwrap(), false).await.unwrap();
                assert_eq!(client.head().await.unwrap().status(), Ok(405), "{caller}: the connection is kept");
            }
        }
    }
}

/// A proxy before `endpoint`, with more keys of its upstream; requests wait shortly for a service that is away.
fn proxy_before(endpoint: &str, upstream: &str) -> Proxy {
    proxy::on_one_worker(&format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\n\
         upstreams: {{ a: {{ endpoints: [\"{endpoint}\"], pool: {{ pending_timeout: 200ms }}, {upstream} }} }}\n"
    ))
}
