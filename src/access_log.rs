//! One line per request, written off the request path.
//!
//! A worker formats lines into a buffer of its own and hands full buffers to one writer thread over a bounded queue;
//! when the disk cannot keep up, lines are dropped and counted rather than requests delayed.
//!
//! A shared edge. Knows the record of a request, not how it came about.

use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use crate::config::{AccessLog, AccessLogFormat, AccessLogOnly, AccessLogOutput};
use crate::error::Fault;
use crate::metrics::WorkerMetrics;
use crate::translate::ClientAddress;

/// A buffer goes to the writer at this size, or after [`FLUSH_INTERVAL`].
const BUFFER_BYTES: usize = 32 * 1024;
/// How long a line may wait in a worker's buffer.
pub const FLUSH_INTERVAL: Duration = Duration::from_millis(100);
/// Buffers between the workers and the writer.
const QUEUE_BUFFERS: usize = 64;

/// What happened to one request: the one record that metrics and the log are made from.
#[derive(Debug, Clone, Copy)]
pub struct Outcome<'a> {
    pub client: ClientAddress,
    pub method: &'a str,
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2`: what the client spoke. Empty if its head could not be read.
    pub protocol: &'static str,
    pub host: &'a str,
    /// Path and query as received.
    pub path: &'a str,
    pub route: &'a str,
    pub upstream: &'a str,
    pub endpoint: &'a str,
    /// The status that the client saw; 499 when it saw none.
    pub status: u16,
    pub fault: Option<Fault>,
    /// Where it ended: `head`, `wait`, `upload`, `response_head`, `body`, `done`.
    pub phase: &'static str,
    pub total: Duration,
    /// For a place on a connection.
    pub wait: Duration,
    /// From the place to the response head.
    pub first_byte: Option<Duration>,
    pub attempts: u32,
    /// Zero when none was reached.
    pub connection_id: u64,
    pub stream_id: u32,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    pub request_id: &'a str,
    pub traceparent: &'a str,
}

/// Where the lines of one configuration go.
#[derive(Debug, Clone)]
pub struct AccessSink {
    only: AccessLogOnly,
    format: AccessLogFormat,
    queue: SyncSender<Batch>,
}

/// Whole lines on their way to the writer.
#[derive(Debug)]
pub struct Batch(Vec<u8>);

/// The writing end: run it on a thread of its own until every [`AccessSink`] is gone.
#[derive(Debug)]
pub struct Writer {
    output: Output,
    queue: Receiver<Batch>,
}

#[derive(Debug)]
enum Output {
    Stdout,
    Stderr,
    File(File),
}

/// Opens the output and connects a sink to its writer.
///
/// # Errors
/// The file cannot be opened for appending.
pub fn open(config: &AccessLog) -> io::Result<(Arc<AccessSink>, Writer)> {
    let output = match &config.output {
        AccessLogOutput::Stdout => Output::Stdout,
        AccessLogOutput::Stderr => Output::Stderr,
        AccessLogOutput::File(path) => Output::File(OpenOptions::new().create(true).append(true).open(path)?),
    };
    let (sender, queue) = sync_channel(QUEUE_BUFFERS);
    let sink = AccessSink { only: config.only, format: config.format, queue: sender };
    Ok((Arc::new(sink), Writer { output, queue }))
}

/// A sink that takes nothing.
pub fn none() -> (Arc<AccessSink>, Receiver<Batch>) {
    let (queue, receiver) = sync_channel(0);
    (Arc::new(AccessSink { only: AccessLogOnly::None, format: AccessLogFormat::Json, queue }), receiver)
}

impl Writer {
    /// Writes until every sink is gone. An output that fails loses lines, never requests.
    pub fn run(mut self) {
        let mut is_failing = false;
        while let Ok(Batch(lines)) = self.queue.recv() {
            let written = match &mut self.output {
                Output::Stdout => io::stdout().lock().write_all(&lines).and_then(|()| io::stdout().flush()),
                Output::Stderr => io::stderr().lock().write_all(&lines),
                Output::File(file) => file.write_all(&lines),
            };
            if let Err(error) = &written
                && !is_failing
            {
                tracing::error!(%error, "access log cannot be written");
            }
            is_failing = written.is_err();
        }
    }
}

/// One worker's end of the log.
#[derive(Debug)]
pub struct AccessLogger {
    sink: RefCell<Arc<AccessSink>>,
    buffer: RefCell<Vec<u8>>,
    lines: Cell<u64>,
    metrics: Arc<WorkerMetrics>,
}

impl AccessLogger {
    pub fn new(sink: Arc<AccessSink>, metrics: Arc<WorkerMetrics>) -> Self {
        Self { sink: RefCell::new(sink), buffer: RefCell::default(), lines: Cell::new(0), metrics }
    }

    /// Whether any line may be written, so that what only the log needs is kept.
    pub fn is_active(&self) -> bool {
        self.sink.borrow().only != AccessLogOnly::None
    }

    /// Writes to another place from now on.
    pub fn replace(&self, sink: Arc<AccessSink>) {
        self.flush();
        *self.sink.borrow_mut() = sink;
    }

    /// Adds a line if the configuration asks for it. True when the buffer was empty: someone must flush it
    /// within [`FLUSH_INTERVAL`].
    pub fn record(&self, outcome: &Outcome<'_>) -> bool {
        let sink = self.sink.borrow();
        let is_wanted = match sink.only {
            AccessLogOnly::All => true,
            AccessLogOnly::Failures => outcome.fault.is_some() || outcome.status >= 500,
            AccessLogOnly::None => false,
        };
        if !is_wanted {
            return false;
        }
        let mut buffer = self.buffer.borrow_mut();
        let was_empty = buffer.is_empty();
        match sink.format {
            AccessLogFormat::Json => json_line(&mut buffer, outcome),
            AccessLogFormat::Text => text_line(&mut buffer, outcome),
        }
        self.lines.set(self.lines.get() + 1);
        let is_full = buffer.len() >= BUFFER_BYTES;
        drop((buffer, sink));
        if is_full {
            self.flush();
        }
        was_empty && !is_full
    }

    /// Hands what is there to the writer, or drops and counts it when the queue is full.
    pub fn flush(&self) {
        let lines = self.lines.replace(0);
        if lines == 0 {
            return;
        }
        let buffer = std::mem::replace(&mut *self.buffer.borrow_mut(), Vec::with_capacity(BUFFER_BYTES + 1024));
        if self.sink.borrow().queue.try_send(Batch(buffer)).is_err() {
            self.metrics.access_log_dropped.add(lines);
        }
    }
}

impl Drop for AccessLogger {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Appends one JSON object and a line feed; every control character is escaped, so a line stays a line.
fn json_line(line: &mut Vec<u8>, outcome: &Outcome<'_>) {
    line.extend_from_slice(b"{\"time\":\"");
    timestamp(line);
    line.push(b'"');
    let _ = write!(line, ",\"client\":\"{}\"", outcome.client);
    json_text(line, "method", outcome.method);
    json_text(line, "protocol", outcome.protocol);
    json_text(line, "host", outcome.host);
    json_text(line, "path", outcome.path);
    json_number(line, "status", u64::from(outcome.status));
    json_text(line, "route", outcome.route);
    json_text(line, "upstream", outcome.upstream);
    json_text(line, "endpoint", outcome.endpoint);
    json_text(line, "ended_by", outcome.fault.map_or("upstream", Fault::ended_by));
    json_text(line, "phase", outcome.phase);
    json_text(line, "reason", outcome.fault.map_or("complete", Fault::reason));
    json_number(line, "total_us", micros(outcome.total));
    json_number(line, "wait_us", micros(outcome.wait));
    if let Some(first_byte) = outcome.first_byte {
        json_number(line, "first_byte_us", micros(first_byte));
    }
    json_number(line, "attempts", u64::from(outcome.attempts));
    json_number(line, "connection_id", outcome.connection_id);
    json_number(line, "stream_id", u64::from(outcome.stream_id));
    json_number(line, "received_bytes", outcome.received_bytes);
    json_number(line, "sent_bytes", outcome.sent_bytes);
    json_text(line, "request_id", outcome.request_id);
    json_text(line, "traceparent", outcome.traceparent);
    line.extend_from_slice(b"}\n");
}

fn json_number(line: &mut Vec<u8>, name: &str, value: u64) {
    line.extend_from_slice(b",\"");
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(b"\":");
    line.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Leaves empty values out.
fn json_text(line: &mut Vec<u8>, name: &str, value: &str) {
    if value.is_empty() {
        return;
    }
    line.extend_from_slice(b",\"");
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(b"\":\"");
    escape(line, value);
    line.push(b'"');
}

/// `time client "METHOD host path" status route endpoint reason total`.
fn text_line(line: &mut Vec<u8>, outcome: &Outcome<'_>) {
    timestamp(line);
    let _ = write!(line, " {} \"{} ", outcome.client, dash(outcome.method));
    escape(line, outcome.host);
    line.push(b' ');
    escape(line, outcome.path);
    let _ = writeln!(
        line,
        "\" {} {} {} {} {}us {}B/{}B",
        outcome.status,
        dash(outcome.route),
        dash(outcome.endpoint),
        outcome.fault.map_or("complete", Fault::reason),
        micros(outcome.total),
        outcome.received_bytes,
        outcome.sent_bytes,
    );
}

fn dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Escapes as JSON does; quote, backslash and control characters only.
fn escape(line: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| *byte < 0x20 || *byte == b'"' || *byte == b'\\' || *byte == 0x7f) {
        line.extend_from_slice(&rest[..at]);
        match rest[at] {
            byte @ (b'"' | b'\\') => line.extend_from_slice(&[b'\\', byte]),
            byte => {
                let _ = write!(line, "\\u{byte:04x}");
            }
        }
        rest = &rest[at + 1..];
    }
    line.extend_from_slice(rest);
}

thread_local! {
    /// The second last written and its text: most lines share it.
    static SECOND: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

/// RFC 3339 in UTC with milliseconds.
fn timestamp(line: &mut Vec<u8>) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != now.as_secs() {
            *second = now.as_secs();
            *text = utc(now.as_secs());
        }
        line.extend_from_slice(text.as_bytes());
    });
    let _ = write!(line, ".{:03}Z", now.subsec_millis());
}

/// `YYYY-MM-DDTHH:MM:SS` of a Unix time (days to civil by Howard Hinnant's algorithm).
fn utc(unix_seconds: u64) -> String {
    let days = unix_seconds / 86_400 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (unix_seconds / 3600 % 24, unix_seconds / 60 % 60, unix_seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::UpstreamFault;

    fn outcome<'a>() -> Outcome<'a> {
        Outcome {
            client: std::net::IpAddr::from([127, 0, 0, 1]).into(),
            method: "GET",
            protocol: "HTTP/1.1",
            host: "a.example",
            path: "/x\r\n\u{1b}[31m\"\\",
            route: "r",
            upstream: "u",
            endpoint: "h2c://127.0.0.1:9",
            status: 502,
            fault: Some(UpstreamFault::ConnectionLost.into()),
            phase: "response_head",
            total: Duration::from_micros(1234),
            wait: Duration::ZERO,
            first_byte: None,
            attempts: 1,
            connection_id: 7,
            stream_id: 3,
            received_bytes: 0,
            sent_bytes: 5,
            request_id: "",
            traceparent: "",
        }
    }

    #[test]
    fn a_json_line_is_one_json_object_whatever_the_path_holds() {
        let mut line = Vec::new();
        json_line(&mut line, &outcome());
        assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["path"], "/x\r\n\u{1b}[31m\"\\");
        assert_eq!((&value["reason"], &value["ended_by"]), (&"connection_lost".into(), &"upstream".into()));
        assert_eq!(value["total_us"], 1234);
    }

    #[test]
    fn a_text_line_holds_no_control_character() {
        let mut line = Vec::new();
        text_line(&mut line, &outcome());
        assert_eq!(line.pop(), Some(b'\n'));
        assert!(line.iter().all(|byte| *byte >= 0x20), "{}", String::from_utf8_lossy(&line));
    }

    #[test]
    fn dates_are_right_at_leap_days_and_year_ends() {
        assert_eq!(utc(0), "1970-01-01T00:00:00");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00");
        assert_eq!(utc(1_735_689_599), "2024-12-31T23:59:59");
        assert_eq!(utc(4_107_542_399), "2100-02-28T23:59:59");
    }

    #[test]
    fn a_full_queue_drops_lines_and_counts_them() {
        let metrics = Arc::new(WorkerMetrics::default());
        let config =
            AccessLog { only: AccessLogOnly::All, format: AccessLogFormat::Json, output: AccessLogOutput::Stderr };
        let (sink, writer) = open(&config).unwrap();
        let logger = AccessLogger::new(sink, metrics.clone());
        for _ in 0..QUEUE_BUFFERS + 2 {
            logger.record(&outcome());
            logger.flush();
        }
        assert_eq!(metrics.access_log_dropped.value(), 2);
        drop(writer);
    }
}
