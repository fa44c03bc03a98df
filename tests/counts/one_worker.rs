//! One worker, its clients and its service on one thread, taking turns: what the worker does can be counted alone, and
//! comes out the same each time.
//!
//! All clients send before the worker has its turn, so as many requests are under way together as there are clients.
//! Clients and service are bare sockets of the loopback interface and allocate nothing once they are warm.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use trunkline::config::{Source, load};
use trunkline::control::lone_worker;
use trunkline::worker::LoneWorker;

/// What every client asks.
#[derive(Debug, Clone, Copy)]
pub enum Ask {
    Get,
    /// 512 bytes, sent together with their head.
    Post,
}

/// A warm worker between its clients and its service.
pub struct OneWorker {
    #[allow(dead_code, reason = "only the instructions are counted of its parts too")]
    pub worker: LoneWorker,
    clients: Vec<TcpStream>,
    service: Service,
    request: Request,
    runtime: LocalRuntime,
}

impl OneWorker {
    pub fn new(ask: Ask, clients: usize) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let (worker, address) = runtime.block_on(async { start(listener.local_addr().unwrap()) });
        let socket = until(|| listener.accept().ok(), || turn(&runtime)).0;
        let connect = |_| {
            let client = TcpStream::connect(address).unwrap();
            client.set_nonblocking(true).unwrap();
            client
        };
        let clients = (0..clients).map(connect).collect();
        let mut one = Self { worker, clients, service: Service::new(socket), request: Request::new(ask), runtime };
        one.rounds(WARM_UP_ROUNDS, turn);
        one
    }

    /// Has every client ask and get its answer, so many times. `turn` gives the worker its turns: [`turn`], or what
    /// counts around it.
    pub fn rounds(&mut self, rounds: usize, turn: fn(&LocalRuntime)) {
        for _ in 0..rounds {
            for client in &mut self.clients {
                client.write_all(self.request.next()).unwrap();
            }
            let waiting = self.clients.len();
            until(|| (self.service.hear() == waiting).then_some(()), || turn(&self.runtime));
            self.service.answer();
            for client in &mut self.clients {
                let mut answer = Answer::default();
                until(|| answer.is_whole(client).then_some(()), || turn(&self.runtime));
            }
        }
    }
}

/// Has the worker do what it can do now, then look at its sockets once.
pub fn turn(runtime: &LocalRuntime) {
    runtime.block_on(tokio::task::yield_now());
}

/// Gives turns until there is something.
fn until<T>(mut look: impl FnMut() -> Option<T>, mut turn: impl FnMut()) -> T {
    for _ in 0..TURNS_MAX {
        if let Some(found) = look() {
            return found;
        }
        turn();
    }
    panic!("nothing came of {TURNS_MAX} turns");
}

fn start(service: SocketAddr) -> (LoneWorker, SocketAddr) {
    let text = format!("listen: 127.0.0.1:0\nupstream: h2c://{service}\nlogs: {{ access: {{ only: none }} }}\n");
    let (config, _) = load(&Source::new("counts.yaml", &text), &|_| None).unwrap_or_else(|errors| panic!("{errors}"));
    lone_worker(&config).unwrap()
}

/// A request as a client sends it, with a new number each time.
struct Request {
    bytes: Vec<u8>,
    /// Where the number stands.
    places: Vec<usize>,
    number: u64,
}

impl Request {
    fn new(ask: Ask) -> Self {
        let (method, body) = match ask {
            Ask::Get => ("GET", None),
            Ask::Post => ("POST", Some([b'x'; 512])),
        };
        let mut bytes = format!("{method} {TARGET} HTTP/1.1\r\n").into_bytes();
        for (name, value) in REQUEST_FIELDS {
            write!(bytes, "{name}: {value}\r\n").unwrap();
        }
        if let Some(body) = body {
            write!(bytes, "content-type: application/json\r\ncontent-length: {}\r\n", body.len()).unwrap();
        }
        bytes.extend(b"\r\n");
        bytes.extend(body.into_iter().flatten());
        let text = str::from_utf8(&bytes).unwrap();
        let places = text.match_indices(NUMBER).map(|(place, _)| place).collect();
        Self { bytes, places, number: 0 }
    }

    fn next(&mut self) -> &[u8] {
        self.number += 1;
        for place in &self.places {
            write!(&mut self.bytes[*place..][..NUMBER.len()], "{:016x}", self.number).unwrap();
        }
        &self.bytes
    }
}

/// What has arrived of an answer.
struct Answer {
    bytes: [u8; 2048],
    length: usize,
}

impl Default for Answer {
    fn default() -> Self {
        Self { bytes: [0; 2048], length: 0 }
    }
}

impl Answer {
    fn is_whole(&mut self, client: &mut TcpStream) -> bool {
        self.length += read(client, &mut self.bytes[self.length..]);
        let answer = &self.bytes[..self.length];
        assert!(answer.len() < 12 || answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(answer));
        answer.ends_with(ANSWER)
    }
}

/// A service with one HTTP/2 connection that knows as much of it as these requests need (RFC 9113 §4, §6).
struct Service {
    socket: TcpStream,
    heard: Vec<u8>,
    /// The streams whose requests have ended.
    waiting: Vec<[u8; 4]>,
    answers: Vec<u8>,
    /// Field section of an answer.
    fields: Vec<u8>,
    is_begun: bool,
}

impl Service {
    fn new(mut socket: TcpStream) -> Self {
        socket.set_nodelay(true).unwrap();
        socket.set_nonblocking(true).unwrap();
        // As many streams as nginx allows, and a connection window that lasts.
        let mut hello = Vec::new();
        push_frame(&mut hello, SETTINGS, 0, [0; 4], &[0, MAX_CONCURRENT_STREAMS, 0, 0, 0, 128]);
        push_frame(&mut hello, WINDOW_UPDATE, 0, [0; 4], &0x7fff_0000_u32.to_be_bytes());
        socket.write_all(&hello).unwrap();
        let room = || Vec::with_capacity(256 * 1024);
        let waiting = Vec::with_capacity(128);
        Self { socket, heard: room(), waiting, answers: room(), fields: answer_fields(), is_begun: false }
    }

    /// Reads what is there; returns how many requests wait for an answer.
    fn hear(&mut self) -> usize {
        let before = self.heard.len();
        self.heard.resize(self.heard.capacity(), 0);
        let read = read(&mut self.socket, &mut self.heard[before..]);
        self.heard.truncate(before + read);
        let mut at = 0;
        if !self.is_begun && self.heard.len() >= PREFACE_BYTES {
            (self.is_begun, at) = (true, PREFACE_BYTES);
        }
        while let Some(&[a, b, c, kind, flags, s0, s1, s2, s3]) = self.heard[at..].first_chunk() {
            let end = at + 9 + u32::from_be_bytes([0, a, b, c]) as usize;
            if !self.is_begun || end > self.heard.len() {
                break;
            }
            let stream = [s0, s1, s2, s3];
            match kind {
                HEADERS | DATA if flags & END_STREAM != 0 => self.waiting.push(stream),
                // Goes out with the answers: nothing that the worker does waits for it.
                SETTINGS if flags & ACK == 0 => push_frame(&mut self.answers, SETTINGS, ACK, stream, &[]),
                PING if flags & ACK == 0 => {
                    push_frame(&mut self.answers, PING, ACK, stream, &self.heard[at + 9..end]);
                }
                _ => {}
            }
            at = end;
        }
        self.heard.drain(..at);
        self.waiting.len()
    }

    /// Answers all that wait with one write.
    fn answer(&mut self) {
        for stream in self.waiting.drain(..) {
            push_frame(&mut self.answers, HEADERS, END_HEADERS, stream, &self.fields);
            push_frame(&mut self.answers, DATA, END_STREAM, stream, ANSWER);
        }
        self.socket.write_all(&self.answers).unwrap();
        self.answers.clear();
    }
}

/// The field section of an answer: literals without indexing, as nginx sends them (RFC 7541 §6.2.2).
fn answer_fields() -> Vec<u8> {
    let mut section = vec![STATUS_200];
    for (name, value) in ANSWER_FIELDS {
        section.push(0);
        for text in [name, value] {
            section.push(text.len() as u8);
            section.extend(text.bytes());
        }
    }
    section
}

fn push_frame(to: &mut Vec<u8>, kind: u8, flags: u8, stream: [u8; 4], payload: &[u8]) {
    to.extend(&(payload.len() as u32).to_be_bytes()[1..]);
    to.extend([kind, flags]);
    to.extend(stream);
    to.extend(payload);
}

/// Reads what is there; panics at the end of the stream.
fn read(socket: &mut TcpStream, into: &mut [u8]) -> usize {
    match socket.read(into) {
        Ok(0) => panic!("the worker has closed a connection"),
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        Err(error) => panic!("{error}"),
    }
}

/// In each request these digits are replaced by its number: a usual request has fields that no other one has.
const NUMBER: &str = "0000000000000000";
pub const TARGET: &str = "/v1/items/4711?fields=name,price";
pub const REQUEST_FIELDS: &[(&str, &str)] = &[
    ("host", "api.example.com"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    ("accept", "application/json, text/plain;q=0.9, */*;q=0.8"),
    ("accept-language", "en-US,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br"),
    ("referer", "https://api.example.com/v1/items"),
    ("cookie", "session=0f8fad5bd9cb469fa16570867728950e; theme=dark; consent=1"),
    ("authorization", "Bearer 2YotnFZFEjr1zCsicMWpAAoFeLkLsz8q"),
    ("x-request-id", "0f8fad5bd9cb469f0000000000000000"),
    ("traceparent", "00-4bf92f3577b34da60000000000000000-00f067aa0ba902b7-01"),
];
pub const ANSWER_FIELDS: &[(&str, &str)] = &[
    ("server", "nginx/1.22.1"),
    ("date", "Sat, 21 Nov 2026 03:02:23 GMT"),
    ("content-type", "application/json"),
    ("content-length", "65"),
    ("cache-control", "no-store"),
    ("vary", "accept-encoding"),
];
const ANSWER: &[u8; 65] = b"sixty-five bytes, the size of the answers in the tables of speed.";

const WARM_UP_ROUNDS: usize = 200;
/// Far more than anything takes that works.
const TURNS_MAX: usize = 100_000;

const PREFACE_BYTES: usize = 24;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const MAX_CONCURRENT_STREAMS: u8 = 3;
/// `:status: 200` of the static table.
const STATUS_200: u8 = 0x88;
