//! Services to look at: each the least that does it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use rustls_pki_types::PrivateKeyDer;

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

/// Shows a certificate in a handshake, with these protocols to choose from by ALPN, and says nothing after it. Returns the
/// certificate too, in PEM.
pub fn tls(is_expired: bool, alpn: &[&str]) -> (SocketAddr, String) {
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
    if is_expired {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    }
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    let chain = vec![certificate.der().clone()];
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.expect("versions").with_no_client_auth().with_single_cert(chain, key);
    let mut config = config.expect("a configuration");
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut tls = rustls::ServerConnection::new(config.clone()).expect("a connection");
            while tls.is_handshaking() && tls.complete_io(&mut stream).is_ok() {}
        }
    });
    (address, certificate.pem())
}

/// An address that refuses connections: it was free a moment ago.
pub fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}
