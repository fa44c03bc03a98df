//! What the user sees while the demo runs: a block that is rewritten in place on a terminal, else a line a second.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use crossterm::cursor::{Hide, MoveToColumn, MoveUp, Show};
use crossterm::terminal::{Clear, ClearType, size};
use crossterm::{execute, queue};

use super::super::text::{count, per_second, thousands, time};
use super::load::Tally;
use super::pair::Medians;
use super::sidecar::{Reading, Sidecar};
use super::total::Total;

/// Writes frames to stdout.
pub(super) struct View {
    is_terminal: bool,
    /// Stands above the figures, or before the first line.
    head: String,
    /// Stands below the figures on a terminal.
    foot: String,
    /// Lines of the block that is on the screen.
    lines: u16,
    has_load: bool,
    last_elapsed: Duration,
    last_requests: u64,
}

/// One moment.
pub(super) struct Frame<'a> {
    pub(super) elapsed: Duration,
    pub(super) figures: Reading,
    /// Since the last frame.
    pub(super) tally: &'a Tally,
    pub(super) total: &'a Total,
    pub(super) pair: Option<Medians>,
}

impl View {
    /// `load` is the number of the built-in client's connections.
    pub(super) fn new(sidecar: &Sidecar, load: Option<u32>) -> Self {
        let address = sidecar.address();
        let upstream =
            sidecar.yaml().split(['"', ' ', '\n']).find(|word| word.starts_with("h2c://")).unwrap_or_default();
        let clients =
            load.map_or("your clients".to_owned(), |clients| format!("{clients} HTTP/1.1 clients + 1 that measures"));
        let mut head = format!(
            "trunkline demo: {clients}\n  -> sidecar {address} ({}) -> service {upstream}\n",
            count(sidecar.workers(), "worker")
        );
        let mut foot = String::from("\n  the sidecar's whole configuration:\n");
        for line in sidecar.yaml().lines() {
            let _ = writeln!(foot, "    {line}");
        }
        foot.push_str("  try it:\n");
        if load.is_none() {
            let _ = writeln!(foot, "    wrk -t1 -c256 -d10s http://{address}/");
            let _ = writeln!(foot, "    bombardier -c 256 -d 10s http://{address}/");
        }
        let _ = writeln!(foot, "    curl -i http://{address}/\n    curl -N http://{address}/events");
        let is_terminal = io::stdout().is_terminal();
        if !is_terminal {
            head.push_str(foot.trim_start_matches('\n'));
        }
        foot.push_str("  Ctrl-C ends it\n");
        Self {
            is_terminal,
            head,
            foot,
            lines: 0,
            has_load: load.is_some(),
            last_elapsed: Duration::ZERO,
            last_requests: 0,
        }
    }

    /// Time between frames.
    pub(super) fn period(&self) -> Duration {
        Duration::from_millis(if self.is_terminal { 500 } else { 1000 })
    }

    /// # Errors
    /// stdout is closed.
    pub(super) fn show(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        let elapsed = frame.elapsed.saturating_sub(self.last_elapsed);
        let requests = if self.has_load { frame.tally.answers } else { frame.figures.requests - self.last_requests };
        let rate = per_second(requests, elapsed);
        (self.last_elapsed, self.last_requests) = (frame.elapsed, frame.figures.requests);
        if self.is_terminal { self.show_block(frame, rate) } else { self.show_line(frame, rate) }
    }

    /// Gives the terminal back.
    pub(super) fn leave(&mut self) {
        if self.is_terminal && self.lines > 0 {
            let _ = execute!(io::stdout(), Show);
        }
    }

    /// Writes below what was shown.
    ///
    /// # Errors
    /// stdout is closed.
    pub(super) fn print(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(if self.is_terminal { b"\n" } else { b"" })?;
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    fn show_line(&mut self, frame: &Frame<'_>, rate: u64) -> io::Result<()> {
        let Frame { elapsed, figures, tally, total, pair } = frame;
        let mut line = std::mem::take(&mut self.head);
        let _ = write!(
            line,
            "{:3.0} s  {} client connections on {} upstream ({}), {} requests/s, {} streams/connection, {} waiting, ",
            elapsed.as_secs_f64(),
            thousands(figures.client_connections),
            figures.upstream_connections,
            fan_in(figures),
            thousands(rate),
            streams(figures),
            figures.waiting,
        );
        if self.has_load {
            let _ = write!(line, "{} errors, {} wrong", total.tally.errors, total.tally.wrong);
        } else {
            let _ = write!(line, "{} faults", figures.faults);
        }
        if let (Some(p50), Some(p99)) = (tally.quantile(0.5), tally.quantile(0.99)) {
            let _ = write!(line, ", p50 {}, p99 {}", time(p50), time(p99));
        }
        if let Some(Medians { through, direct }) = pair {
            let _ = write!(line, ", the sidecar adds {}", time(through.saturating_sub(*direct)));
        }
        line.push('\n');
        let mut out = io::stdout().lock();
        out.write_all(line.as_bytes())?;
        out.flush()
    }

    fn show_block(&mut self, frame: &Frame<'_>, rate: u64) -> io::Result<()> {
        let Frame { elapsed, figures, tally, total, pair } = frame;
        let mut text = self.head.clone();
        let mut row = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:<22} {value}");
        };
        row("time", format!("{:.0} s", elapsed.as_secs_f64()));
        row("client connections", thousands(figures.client_connections));
        row("upstream connections", format!("{}   fan-in {}", figures.upstream_connections, fan_in(figures)));
        row("requests/s", thousands(rate));
        row("streams/connection", format!("{}   waiting {}", streams(figures), figures.waiting));
        if self.has_load {
            row("errors", format!("{}   wrong answers {}", total.tally.errors, total.tally.wrong));
            if let (Some(p50), Some(p99)) = (tally.quantile(0.5), tally.quantile(0.99)) {
                row("latency at the client", format!("p50 {}   p99 {}", time(p50), time(p99)));
            }
        } else {
            row("faults", thousands(figures.faults));
        }
        if let Some(pair) = pair {
            row("one at a time", pair.to_string());
        }
        text.push_str(&self.foot);
        let (width, _) = size().unwrap_or((80, 24));
        let mut out = io::stdout().lock();
        if self.lines > 0 {
            queue!(out, MoveUp(self.lines))?;
        }
        queue!(out, Hide, MoveToColumn(0), Clear(ClearType::FromCursorDown))?;
        for line in text.lines() {
            // A line that wraps would count for two, and the block would creep down the screen.
            let shown: String = line.chars().take(usize::from(width).saturating_sub(1)).collect();
            writeln!(out, "{shown}")?;
        }
        self.lines = text.lines().count() as u16;
        out.flush()
    }
}

/// Client connections for each upstream connection.
fn fan_in(figures: &Reading) -> String {
    match figures.upstream_connections {
        0 => "-".to_owned(),
        upstream => format!("{:.0} : 1", figures.client_connections as f64 / upstream as f64),
    }
}

/// Streams on each upstream connection, at the moment of the look.
fn streams(figures: &Reading) -> String {
    match figures.upstream_connections {
        0 => "-".to_owned(),
        upstream => format!("{:.1}", figures.streams as f64 / upstream as f64),
    }
}
