//! nginx as an h2c service, with a second, plain face on a Unix socket that tells how many requests it has had.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Command;

use super::address::ReservedAddress;
use super::files::Files;
use super::process::Process;
use super::{poll, programs};

/// A running nginx; dropping it kills it.
pub struct Nginx {
    pub files: Files,
    address: ReservedAddress,
    /// `None` while it is stopped.
    process: Option<Process>,
}

impl Nginx {
    /// Starts nginx with one worker; `settings` are directives of its http block, each ended by a semicolon.
    pub fn start(settings: &str) -> Self {
        let files = Files::new();
        let address = ReservedAddress::new();
        let folder = files.path().display().to_string();
        let text = CONFIGURATION
            .replace("FOLDER", &folder)
            .replace("ADDRESS", &address.to_string())
            .replace("SETTINGS", settings);
        files.write("nginx.conf", &text);
        let mut nginx = Self { files, address, process: None };
        nginx.restart();
        nginx
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &ReservedAddress {
        &self.address
    }

    /// Starts it again after [`Nginx::stop`]; returns when it accepts.
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "restart follows stop");
        let mut command = Command::new(programs::path("nginx"));
        command.arg("-p").arg(self.files.path()).arg("-c").arg(self.files.path().join("nginx.conf"));
        let mut process = Process::start("nginx", command.args(["-e", "stderr"]));
        poll("nginx that accepts", || {
            assert!(!process.has_ended(), "nginx ended early:\n{}", process.text());
            TcpStream::connect(self.address.socket_address()).ok()
        });
        self.process = Some(process);
    }

    /// Sends `signal` to the master, as `nginx -s` does: HUP reloads.
    pub fn signal(&self, signal: &str) {
        self.process.as_ref().expect("a running nginx").signal(signal);
    }

    /// Ends it with `signal` (QUIT lets requests finish, TERM does not) and waits until it has ended.
    pub fn stop(&mut self, signal: &str) {
        let mut process = self.process.take().expect("a running nginx");
        process.signal(signal);
        process.wait();
        // A Unix socket's file outlives who made it, and nginx does not take it over.
        _ = std::fs::remove_file(self.files.path().join("status.sock"));
    }

    /// Ends it at once, workers included.
    pub fn kill(&mut self) {
        drop(self.process.take().expect("a running nginx"));
        _ = std::fs::remove_file(self.files.path().join("status.sock"));
    }

    /// Stops it where it is, workers included, with every connection open; the kernel goes on accepting for it.
    pub fn freeze(&self) {
        self.process.as_ref().expect("a running nginx").signal_all("STOP");
    }

    pub fn thaw(&self) {
        self.process.as_ref().expect("a running nginx").signal_all("CONT");
    }

    /// Requests since its start; `None` while nobody answers.
    pub fn requests(&self) -> Option<u64> {
        let mut stream = UnixStream::connect(self.files.path().join("status.sock")).ok()?;
        stream.write_all(b"GET /status HTTP/1.0\r\n\r\n").ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        // The line after "server accepts handled requests" has three numbers.
        let (_, numbers) = page.split_once("handled requests")?;
        numbers.split_whitespace().nth(2)?.parse().ok()
    }

    /// Waits until it has had `count` requests more than now.
    #[track_caller]
    pub fn wait_for_requests(&self, count: u64) {
        let before = poll("status of nginx", || self.requests());
        poll("requests at nginx", || self.requests().filter(|now| *now >= before + count));
    }
}

/// `user` only matters for root: the worker then reads what we have written all the same.
const CONFIGURATION: &str = "\
daemon off;
user root;
worker_processes 1;
pid FOLDER/nginx.pid;
error_log stderr error;
worker_shutdown_timeout 10s;
events { worker_connections 1024; }
http {
    access_log off;
    client_body_temp_path FOLDER/body;
    proxy_temp_path FOLDER/proxy;
    fastcgi_temp_path FOLDER/fastcgi;
    uwsgi_temp_path FOLDER/uwsgi;
    scgi_temp_path FOLDER/scgi;
    client_max_body_size 0;
    SETTINGS
    server {
        listen ADDRESS http2;
        location / { root FOLDER; }
        location /put/ { root FOLDER; dav_methods PUT; create_full_put_path on; }
    }
    server {
        listen unix:FOLDER/status.sock;
        location /status { stub_status; }
    }
}
";

/// For loads: connections are not ended after so many requests (the default is 1000).
pub const ENDLESS: &str = "keepalive_requests 1000000000;";
