//! Files that change while the proxy runs: what is new is used by the next handshake, what is wrong is kept out.

use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use http::Request;
use tokio::sync::Semaphore;

use super::{Serving, serving, serving_from, yaml};
use crate::harness::origin::behaviour::by_path;
use crate::harness::origin::exchange::Exchange;
use crate::harness::proxy::Proxy;
use crate::harness::tls::Identity;
use crate::harness::watched::BOUND;
use crate::harness::{client, origin, proxy, said};

#[tokio::test]
async fn certificates_rotated_under_handshakes_fail_none_of_them() {
    const ROUNDS: u32 = 8;
    let authority = Arc::new(Identity::named("authority"));
    let folder = tempfile::tempdir().unwrap();
    authority.issue(&["localhost"]).store(folder.path(), "one");
    let serving = serving_from(folder, Identity::new(), &["one"], "", "");
    let (is_over, handshakes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let mut clients = Vec::new();
    for _ in 0..8 {
        let (authority, is_over, handshakes) = (authority.clone(), is_over.clone(), handshakes.clone());
        let address = serving.proxy.address();
        clients.push(tokio::spawn(async move {
            let connector = authority.connector(&[]);
            while !is_over.load(Ordering::Relaxed) {
                let mut client = client::h1_tls(address, &connector).await;
                assert_eq!(client.get("/status/200").await.status(), 200);
                handshakes.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    for _ in 0..ROUNDS {
        let next = authority.issue(&["localhost"]);
        next.store(serving.folder.path(), "one");
        shows(&serving.proxy, &authority, &next).await;
    }
    is_over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    assert!(handshakes.load(Ordering::Relaxed) >= ROUNDS);
    assert!(serving.proxy.counts().tls_handshake_failures.is_empty());
}

/// As Kubernetes does it with the files of a secret.
#[tokio::test]
async fn a_swapped_link_on_the_way_to_the_files_is_a_change() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (Identity::new(), Identity::new());
    for (identity, version) in [(&first, "..1"), (&second, "..2")] {
        std::fs::create_dir(folder.path().join(version)).unwrap();
        identity.store(&folder.path().join(version), "one");
    }
    symlink("..1", folder.path().join("..data")).unwrap();
    for name in ["one.crt", "one.key"] {
        symlink(Path::new("..data").join(name), folder.path().join(name)).unwrap();
    }
    let serving = serving_from(folder, first, &["one"], "", "");
    shows(&serving.proxy, &serving.identity, &serving.identity).await;
    symlink("..2", serving.folder.path().join("..data_tmp")).unwrap();
    std::fs::rename(serving.folder.path().join("..data_tmp"), serving.folder.path().join("..data")).unwrap();
    shows(&serving.proxy, &second, &second).await;
}

#[tokio::test]
async fn a_connection_that_runs_stays_when_the_certificate_is_replaced() {
    let serving = serving("", "");
    let mut running = client::h1_tls(serving.proxy.address(), &serving.identity.connector(&[])).await;
    assert_eq!(running.get("/status/200").await.status(), 200);
    let next = Identity::new();
    next.store(serving.folder.path(), "one");
    shows(&serving.proxy, &next, &next).await;
    assert_eq!(running.get("/status/200").await.status(), 200);
}

#[tokio::test]
async fn files_that_cannot_be_used_are_kept_out_and_told_and_good_ones_taken_afterwards() {
    let serving = serving("", "");
    let next = Identity::new();
    let path = serving.folder.path().join("one.crt");
    std::fs::write(&path, "nonsense").unwrap();
    said::line(&[&path.display().to_string(), "ERROR", "certificates not renewed", "holds no certificate"]).await;
    shows(&serving.proxy, &serving.identity, &serving.identity).await;
    let refused = async || serving.proxy.metrics().await.sum("trunkline_tls_renewal_refused", &[]);
    assert!(refused().await > 0.5);
    assert!(serving.proxy.metrics().await.sum("trunkline_config_last_reload_success", &[]) > 0.5);
    assert_eq!(serving.proxy.admin_get("/readyz").await.status(), 200);
    // The certificate alone is not the key's.
    std::fs::write(&path, &next.certificate_pem).unwrap();
    let key = serving.folder.path().join("one.key");
    said::line(&[&key.display().to_string(), "ERROR", "certificates not renewed", "is not the key"]).await;
    next.store(serving.folder.path(), "one");
    shows(&serving.proxy, &next, &next).await;
    assert!(refused().await < 0.5);
    assert_eq!(said::lines(&path.display().to_string()).len(), 1);
}

#[tokio::test]
async fn another_ca_of_the_clients_lets_others_in() {
    let (old, new) = (Identity::named("old"), Identity::named("new"));
    let folder = tempfile::tempdir().unwrap();
    let identity = Identity::new();
    identity.store(folder.path(), "one");
    let (ca, _) = old.store(folder.path(), "ca");
    let serving = serving_from(folder, identity, &["one"], &format!("client_ca: {},", ca.display()), "");
    let (leaving, coming) = (old.issue(&["a"]), new.issue(&["b"]));
    assert!(is_served(&serving, &leaving).await);
    assert!(!is_served(&serving, &coming).await);
    std::fs::write(&ca, &new.certificate_pem).unwrap();
    let changed = async { while !is_served(&serving, &coming).await {} };
    tokio::time::timeout(BOUND, changed).await.unwrap();
    assert!(!is_served(&serving, &leaving).await);
}

#[tokio::test]
async fn a_reload_reads_the_files_again() {
    let serving = serving("", "");
    let next = Identity::new();
    next.store(serving.folder.path(), "one");
    let same = yaml(serving.folder.path(), &["one"], "", "", &serving.origin);
    serving.proxy.reload(&same).await.unwrap();
    // At once, whether the change had been noticed before or not.
    let client = client::raw_tls(serving.proxy.address(), &next.connector(&[])).await;
    assert_eq!(client.socket().peer_certificate(), Some(next.certificate()));
}

/// The certificate was not watched before; it is replaced when it has been read, and the CA behind it has not.
#[tokio::test]
async fn a_file_that_changes_while_a_reload_reads_others_is_taken_after_it() {
    let serving = serving("", "");
    let (between, old, next) = (Identity::new(), Identity::new(), Arc::new(Identity::new()));
    // The look at the files that follows the start is over.
    between.store(serving.folder.path(), "one");
    shows(&serving.proxy, &between, &between).await;
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = old.store(folder.path(), "one");
    let (ca, spare) = (folder.path().join("ca.crt"), folder.path().join("spare"));
    let certificates = format!("certificates: [{{ cert: {}, key: {} }}]", cert.display(), key.display());
    let yaml = format!(
        "listeners:\n  - {{ name: web, address: 127.0.0.1:0, tls: {{ {certificates} }} }}\n\
         \u{20} - {{ name: slow, address: 127.0.0.1:0, tls: {{ {certificates}, client_ca: {} }} }}\n\
         upstreams: {{ up: {{ endpoints: [\"h2c://{}\"] }} }}\n",
        ca.display(),
        serving.origin
    );
    // Whoever reads a pipe waits for its writer.
    make_pipe(&ca);
    std::thread::spawn({
        let (next, folder) = (next.clone(), folder.path().to_owned());
        move || {
            // When the configuration is checked, and when it is taken.
            for is_taken in [false, true] {
                let mut writer = std::fs::OpenOptions::new().write(true).open(&ca).unwrap();
                if is_taken {
                    next.store(&folder, "one");
                    std::fs::write(&spare, &old.certificate_pem).unwrap();
                } else {
                    make_pipe(&spare);
                }
                // The next one to read comes to another file.
                std::fs::rename(&spare, &ca).unwrap();
                writer.write_all(old.certificate_pem.as_bytes()).unwrap();
            }
        }
    });
    serving.proxy.reload(&yaml).await.unwrap();
    shows(&serving.proxy, &next, &next).await;
}

fn make_pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[tokio::test]
async fn a_reload_refuses_files_that_cannot_be_used() {
    let serving = serving("", "");
    std::fs::remove_file(serving.folder.path().join("one.key")).unwrap();
    let same = yaml(serving.folder.path(), &["one"], "", "", &serving.origin);
    let why = serving.proxy.reload(&same).await.unwrap_err();
    assert!(why.contains("listeners[0].tls.certificates[0].key") && why.contains("cannot be read"), "{why}");
    shows(&serving.proxy, &serving.identity, &serving.identity).await;
}

#[tokio::test]
async fn another_ca_of_an_upstream_is_taken_for_its_next_connections() {
    let (old, new) = (Identity::named("old"), Identity::new());
    let origin = origin::h2_tls(&new, &["h2"]).start();
    let folder = tempfile::tempdir().unwrap();
    let (ca, _) = old.store(folder.path(), "ca");
    let endpoint = format!("h2://localhost:{}", origin.address().port());
    let proxy = proxy::with(&format!(
        "upstreams: {{ up: {{ endpoints: [\"{endpoint}\"], tls: {{ ca: {} }} }} }}",
        ca.display()
    ));
    let mut client = client::h1(proxy.address()).await;
    assert_eq!(client.get("/status/200").await.status(), 502);
    std::fs::write(&ca, &new.certificate_pem).unwrap();
    let changed = async { while client.get("/status/200").await.status() != 200 {} };
    tokio::time::timeout(BOUND, changed).await.unwrap();
    assert_eq!(proxy.control().config().1, 1);
}

#[tokio::test]
async fn a_stream_that_is_open_stays_when_the_ca_of_its_service_is_replaced() {
    let (old, new) = (Identity::named("old"), Identity::named("new"));
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let origin = origin::h2_tls(&old.issue(&["localhost"]), &["h2"]).handler(move |mut exchange: Exchange| {
        let held = held.clone();
        async move {
            if exchange.path() != "/held" {
                return by_path(exchange).await;
            }
            exchange.start(exchange.response(200))?;
            exchange.send("first, ").await?;
            let _open = exchange.until(held.acquire()).await?;
            exchange.finish("last").await
        }
    });
    let origin = origin.start();
    let folder = tempfile::tempdir().unwrap();
    let (ca, _) = old.store(folder.path(), "ca");
    let proxy = proxy::with(&format!(
        "upstreams: {{ up: {{ endpoints: [\"h2://localhost:{}\"], tls: {{ ca: {} }} }} }}",
        origin.address().port(),
        ca.display()
    ));
    let mut running = client::h1(proxy.address()).await;
    running.start(&Request::get("/held").body(()).unwrap(), false).await.unwrap();
    assert_eq!(running.head().await.unwrap().status(), Ok(200));
    assert_eq!(running.part().await.unwrap().unwrap(), "first, ");
    // Other requests go over connections that are verified anew, and there are none.
    for (authority, status) in [(&new, 502), (&old, 200)] {
        std::fs::write(&ca, &authority.certificate_pem).unwrap();
        answers(&proxy, "", status).await;
    }
    gate.add_permits(1);
    assert_eq!(running.body().await.unwrap(), "last");
}

#[tokio::test]
async fn another_certificate_of_ours_is_shown_on_the_next_connections() {
    let (old, new, identity) = (Identity::named("old"), Identity::named("new"), Identity::new());
    let folder = tempfile::tempdir().unwrap();
    let (ca, _) = identity.store(folder.path(), "ca");
    let (cert, key) = old.issue(&["proxy"]).store(folder.path(), "client");
    // Each lets in whom one authority has signed for.
    let services = [&old, &new]
        .map(|authority| origin::h2().tls(identity.server_for(authority, &["h2"], rustls::DEFAULT_VERSIONS)).start());
    let upstreams = ["old", "new"].iter().zip(&services).map(|(name, service)| {
        let port = service.address().port();
        format!(
            "{name}: {{ endpoints: [\"h2://localhost:{port}\"], tls: {{ ca: {}, client_cert: {}, client_key: {} }} }}",
            ca.display(),
            cert.display(),
            key.display()
        )
    });
    let proxy = proxy::with(&format!(
        "routes: [{{ match: {{ headers: {{ x-to: new }} }}, upstream: new }}, {{ upstream: old }}]\n\
         upstreams: {{ {} }}\n",
        upstreams.collect::<Vec<_>>().join(", ")
    ));
    answers(&proxy, "x-to: old", 200).await;
    answers(&proxy, "x-to: new", 502).await;
    new.issue(&["proxy"]).store(folder.path(), "client");
    answers(&proxy, "x-to: new", 200).await;
    answers(&proxy, "x-to: old", 502).await;
}

#[tokio::test]
async fn a_parked_client_stays_in_the_clear_when_a_reload_has_its_listener_speak_tls() {
    let (identity, folder, origin) = (Identity::new(), tempfile::tempdir().unwrap(), origin::h2().start());
    identity.store(folder.path(), "one");
    let proxy = proxy::with(&format!(
        "listeners: [{{ name: web, address: 127.0.0.1:0 }}]\nupstreams: {{ up: {{ endpoints: [\"h2c://{origin}\"] }} }}\n"
    ));
    let mut parked = client::h1(proxy.address()).await;
    assert_eq!(parked.get("/status/200").await.status(), 200);
    proxy.wait_for(|counts| counts.downstream_parked == 1).await;
    proxy.reload(&yaml(folder.path(), &["one"], "", "", &origin)).await.unwrap();
    shows(&proxy, &identity, &identity).await;
    let mut plain = client::raw(proxy.address()).await;
    plain.send("GET /status/200 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(plain.expect_response().await.status(), 400);
    assert_eq!(parked.get("/status/200").await.status(), 200);
}

#[tokio::test]
async fn a_ca_of_the_clients_that_a_reload_adds_is_asked_of_new_ones() {
    let serving = serving("", "");
    let authority = Identity::named("authority");
    let (ca, _) = authority.store(serving.folder.path(), "ca");
    let mut running = client::h1_tls(serving.proxy.address(), &serving.identity.connector(&[])).await;
    assert_eq!(running.get("/status/200").await.status(), 200);
    let tls = format!("client_ca: {},", ca.display());
    serving.proxy.reload(&yaml(serving.folder.path(), &["one"], &tls, "", &serving.origin)).await.unwrap();
    let (known, stranger) = (authority.issue(&["a"]), Identity::named("stranger"));
    let changed = async { while is_served(&serving, &stranger).await {} };
    tokio::time::timeout(BOUND, changed).await.unwrap();
    assert!(is_served(&serving, &known).await);
    // It came in when nobody was asked.
    assert_eq!(running.get("/status/200").await.status(), 200);
}

/// Asks with this field until the answer has this status.
async fn answers(proxy: &Proxy, field: &str, status: u16) {
    let mut client = client::raw(proxy.address()).await;
    let field = if field.is_empty() { String::new() } else { format!("{field}\r\n") };
    let answered = async {
        loop {
            client.send(format!("GET /status/200 HTTP/1.1\r\nhost: a\r\n{field}\r\n")).await;
            if client.expect_response().await.status() == status {
                return;
            }
            // Between looks, not for an effect: the next one decides.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(BOUND, answered).await.unwrap_or_else(|_| panic!("no answer {status} to {field:?}"));
}

/// Waits until a new client of `authority` is shown this certificate.
async fn shows(proxy: &Proxy, authority: &Identity, identity: &Identity) {
    let connector = authority.connector(&[]);
    let shown = async {
        loop {
            // A client that does not trust what it is shown fails until it is another one.
            if let Ok(client) = client::try_h1_tls(proxy.address(), &connector, "localhost").await {
                let mut client = client;
                if client.get("/status/200").await.status() == 200
                    && client.into_raw().socket().peer_certificate() == Some(identity.certificate())
                {
                    return;
                }
            }
            // Between looks, not for an effect: the next one decides.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(BOUND, shown).await.expect("the certificate is shown in time");
}

async fn is_served(serving: &Serving, as_client: &Identity) -> bool {
    let connector = serving.identity.connector_as(as_client);
    let Ok(client) = client::try_h1_tls(serving.proxy.address(), &connector, "localhost").await else { return false };
    let mut client = client.into_raw();
    client.send("GET /status/200 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    client.response_to("GET").await.is_ok()
}
