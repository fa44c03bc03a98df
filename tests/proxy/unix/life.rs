//! The file of a Unix socket: when it is there, whose it is, and what a reload does to it.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use http::Request;
use trunkline::config::{Source, load};
use trunkline::control::Process;

use super::{Inner, socket, yaml};
use crate::harness::watched::within;
use crate::harness::{client, origin, proxy};

#[tokio::test]
async fn the_file_goes_when_the_drain_begins_and_what_runs_is_finished() {
    let mut inner = Inner::new("");
    let path = inner.path();
    assert!(path.metadata().unwrap().file_type().is_socket());
    let mut running = client::h1_unix(&path).await;
    running.start(&Request::get("/delay/100").body(()).unwrap(), false).await.unwrap();
    inner.origin.wait_for(|log| log.requests.len() == 1).await;
    inner.proxy.drain();
    within("removed file", gone(&path)).await;
    assert_eq!(running.into_raw().expect_response().await.text(), "slow");
    assert_eq!(inner.proxy.join().await.cut_connections, 0);
}

#[tokio::test]
async fn the_file_goes_even_if_the_end_is_hurried() {
    let mut inner = Inner::new("");
    let mut hanging = client::h1_unix(&inner.path()).await;
    hanging.start(&Request::get("/hang").body(()).unwrap(), false).await.unwrap();
    inner.proxy.wait_for(|counts| counts.streams == 1).await;
    inner.proxy.control().stop();
    assert_eq!(inner.proxy.join().await.cut_connections, 1);
    assert!(!inner.path().exists());
}

#[tokio::test]
async fn a_path_at_which_another_process_answers_is_refused() {
    let inner = Inner::new("");
    let text = yaml(&[("mine", &inner.path(), "")], &inner.origin);
    let (config, _) = load(&Source::new("t.yaml", &text), &|_| None).unwrap_or_else(|errors| panic!("{errors}"));
    let said = Process::start(config).err().expect("the path is taken").to_string();
    let expected = format!("listener mine: unix:{} is in use by another process", inner.path().display());
    assert!(said.starts_with(&expected), "{said}");
    assert_eq!(client::h1_unix(&inner.path()).await.get("/status/200").await.status(), 200);
}

#[tokio::test]
async fn a_reload_keeps_the_socket_of_a_listener_that_stays() {
    let inner = Inner::new("");
    let inode = inner.path().metadata().unwrap().ino();
    let mut before = client::h1_unix(&inner.path()).await;
    assert_eq!(before.get("/status/200").await.status(), 200);
    let text = yaml(&[("unix", &inner.path(), "limits: { body_bytes: 3B }")], &inner.origin);
    inner.proxy.reload(&text).await.unwrap();
    assert_eq!(inner.path().metadata().unwrap().ino(), inode);
    assert_eq!(before.post("/upload", "long").await.status(), 200, "as when it connected");
    assert_eq!(client::h1_unix(&inner.path()).await.post("/upload", "long").await.status(), 413);
}

#[tokio::test]
async fn a_listener_under_another_name_takes_the_socket_over() {
    let inner = Inner::new("");
    let inode = inner.path().metadata().unwrap().ino();
    for round in 0..10 {
        let name = format!("unix-{round}");
        inner.proxy.reload(&yaml(&[(&name, &inner.path(), "")], &inner.origin)).await.unwrap();
        assert_eq!(client::h1_unix(&inner.path()).await.get("/status/200").await.status(), 200);
    }
    assert_eq!(inner.path().metadata().unwrap().ino(), inode);
}

#[tokio::test]
async fn the_file_of_a_listener_that_is_gone_is_removed_and_may_come_again() {
    let inner = Inner::new("");
    let other = inner.folder.path().join("other.sock");
    let both = yaml(&[("unix", &inner.path(), ""), ("other", &other, "")], &inner.origin);
    let one = yaml(&[("unix", &inner.path(), "")], &inner.origin);
    for _ in 0..2 {
        inner.proxy.reload(&both).await.unwrap();
        let mut client = client::h1_unix(&other).await;
        assert_eq!(client.get("/status/200").await.status(), 200);
        inner.proxy.reload(&one).await.unwrap();
        assert!(!other.exists());
        client.into_raw().expect_close().await;
    }
    assert_eq!(client::h1_unix(&inner.path()).await.get("/status/200").await.status(), 200);
}

#[tokio::test]
async fn a_reload_that_fails_leaves_no_file_behind() {
    let inner = Inner::new("");
    let (fresh, taken) = (inner.folder.path().join("fresh.sock"), inner.folder.path().join("taken.sock"));
    std::fs::write(&taken, "precious").unwrap();
    let text = yaml(&[("unix", &inner.path(), ""), ("fresh", &fresh, ""), ("taken", &taken, "")], &inner.origin);
    let why = inner.proxy.reload(&text).await.unwrap_err();
    assert!(why.contains("another file is there, which is no socket"), "{why}");
    assert!(!fresh.exists() && taken.exists());
    assert_eq!(client::h1_unix(&inner.path()).await.get("/status/200").await.status(), 200);
}

#[tokio::test]
async fn what_a_killed_process_has_left_is_replaced() {
    let (origin, folder) = (origin::h2().start(), tempfile::tempdir().unwrap());
    let path = socket(&folder);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let _proxy = proxy::with(&yaml(&[("unix", &path, "")], &origin));
    assert_eq!(client::h1_unix(&path).await.get("/status/200").await.status(), 200);
}

async fn gone(path: &Path) {
    while path.exists() {
        // Between looks, not for an effect: the next one decides.
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}
