//! Services to look at: each the least that does it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};

/// Answers everything, whatever it is, with `answer`, and closes.
pub fn http1(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

/// Speaks HTTP/2 in the clear, allows `streams_max` streams and extended CONNECT.
pub fn h2c(streams_max: u32) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("a socket option");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut builder = h2::server::Builder::new();
                    builder.max_concurrent_streams(streams_max).enable_connect_protocol();
                    let mut connection = builder.handshake::<_, bytes::Bytes>(stream).await?;
                    while let Some(request) = connection.accept().await {
                        drop(request?);
                    }
                    Ok::<_, h2::Error>(())
                });
            }
        });
    });
    address
}

/// An address that refuses connections: it was free a moment ago.
pub fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}
