//! The status page: what a person wants to see first.
//!
//! Plain HTML without scripts; it changes nothing, so it offers the commands that do instead of buttons.
//!
//! Pure: from figures to text.

use std::fmt::{self, Display, Write as _};
use std::time::Duration;

use super::{Access, Page};
use crate::config::ListenAddress;
use crate::metrics::STATUS_CLASSES;
use crate::metrics::figures::Figures;
use crate::metrics::latency::HistogramSum;

/// Draws the page.
pub(super) fn page(figures: &Figures, listeners: &[(String, ListenAddress)], access: Access) -> String {
    let mut out = String::new();
    write(&mut out, figures, listeners, access).expect("writing to a string cannot fail");
    out
}

fn write(out: &mut String, figures: &Figures, listeners: &[(String, ListenAddress)], access: Access) -> fmt::Result {
    let standing = &figures.standing;
    writeln!(out, "{HEAD}<h1>Trunkline {}</h1>", Escaped(&standing.version))?;
    let reload = if standing.is_reloaded { "" } else { " (the latest reload failed, the old one is kept)" };
    writeln!(
        out,
        "<p><b>{}</b> for {:.0} s with {} workers, configuration {}{reload}</p>",
        Escaped(&standing.stage),
        standing.uptime_seconds,
        figures.workers,
        standing.config_generation,
    )?;
    traffic(out, figures)?;

    table(out, "Listeners", &["listener", "address"], |out| {
        listeners.iter().try_for_each(|(name, address)| row(out, &[&Escaped(name), address]))
    })?;
    let columns =
        ["upstream", "endpoint", "state", "active", "idle", "draining", "streams", "of", "pending", "requests"];
    table(out, "Upstreams", &columns, |out| {
        figures.endpoints.iter().try_for_each(|it| {
            row(
                out,
                &[
                    &Escaped(&it.upstream),
                    &Escaped(&it.endpoint),
                    &it.state.word(),
                    &it.active,
                    &it.idle,
                    &it.draining,
                    &it.streams,
                    &it.stream_limit,
                    &it.pending,
                    &it.requests,
                ],
            )
        })
    })?;
    let mut columns = vec!["route"];
    columns.extend(STATUS_CLASSES);
    columns.extend(["p50", "p99"]);
    table(out, "Routes", &columns, |out| {
        figures.routes.iter().try_for_each(|route| {
            let total = route.total();
            let counts: Vec<u64> =
                STATUS_CLASSES.iter().map(|class| route.durations.get(*class).map_or(0, HistogramSum::count)).collect();
            let (name, p50, p99) =
                (Escaped(&route.route), Milliseconds(total.quantile(0.5)), Milliseconds(total.quantile(0.99)));
            let mut cells: Vec<&dyn Display> = vec![&name];
            cells.extend(counts.iter().map(|count| count as &dyn Display));
            cells.extend([&p50 as &dyn Display, &p99]);
            row(out, &cells)
        })
    })?;

    writeln!(out, "<h2>More</h2>\n<ul>")?;
    for page in Page::of(access).filter(|page| *page != Page::Status) {
        let path = page.path();
        if page.is_change() {
            writeln!(out, "<li><code>curl -X POST .../{}</code> {}</li>", &path[1..], page.about())?;
        } else {
            writeln!(out, "<li><a href=\"{path}\">{path}</a> {}</li>", page.about())?;
        }
    }
    writeln!(out, "</ul>\n</html>")
}

fn traffic(out: &mut String, figures: &Figures) -> fmt::Result {
    let durations = figures.durations();
    let ratio = figures.fan_in_ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.1}"));
    let faults: u64 = figures.faults.values().sum();
    let columns =
        ["client connections", "upstream connections", "fan-in", "in flight", "requests", "faults", "p50", "p99"];
    table(out, "Traffic", &columns, |out| {
        row(
            out,
            &[
                &figures.downstream.connections,
                &figures.upstream_connections(),
                &ratio,
                &figures.requests_in_flight,
                &durations.count(),
                &faults,
                &Milliseconds(durations.quantile(0.5)),
                &Milliseconds(durations.quantile(0.99)),
            ],
        )
    })
}

fn table(
    out: &mut String,
    title: &str,
    columns: &[&str],
    rows: impl FnOnce(&mut String) -> fmt::Result,
) -> fmt::Result {
    write!(out, "<h2>{title}</h2>\n<table>\n<tr>")?;
    columns.iter().try_for_each(|column| write!(out, "<th>{column}</th>"))?;
    writeln!(out, "</tr>")?;
    rows(out)?;
    writeln!(out, "</table>")
}

/// Cells are escaped by who makes them.
fn row(out: &mut String, cells: &[&dyn Display]) -> fmt::Result {
    write!(out, "<tr>")?;
    cells.iter().try_for_each(|cell| write!(out, "<td>{cell}</td>"))?;
    writeln!(out, "</tr>")
}

struct Milliseconds(Option<Duration>);

impl Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(duration) => write!(f, "{:.2} ms", duration.as_secs_f64() * 1e3),
            None => f.write_str("-"),
        }
    }
}

/// Text from a configuration, which may hold anything.
struct Escaped<'t>(&'t str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            other => f.write_char(other),
        })
    }
}

const HEAD: &str = "<!DOCTYPE html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<title>Trunkline</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em; max-width: 75em }
table { border-collapse: collapse }
th, td { text-align: left; padding: .2em 1.2em .2em 0; border-bottom: 1px solid #ccc; font-variant-numeric: tabular-nums }
</style>
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::figures::{EndpointFigures, RouteFigures};

    #[test]
    fn names_are_shown_as_text_only() {
        let evil = "<script>\"&'";
        let figures = Figures {
            routes: vec![RouteFigures { route: evil.to_owned(), ..RouteFigures::default() }],
            endpoints: vec![EndpointFigures { upstream: evil.to_owned(), ..EndpointFigures::default() }],
            ..Figures::default()
        };
        let listeners = [(evil.to_owned(), std::net::SocketAddr::from(([127, 0, 0, 1], 8080)).into())];
        let html = page(&figures, &listeners, Access::Full);
        assert!(!html.contains("<script"), "{html}");
        assert_eq!(html.matches("&lt;script&gt;&quot;&amp;&#39;").count(), 3);
    }

    #[test]
    fn every_other_page_is_named() {
        let html = page(&Figures::default(), &[], Access::Full);
        for path in ["href=\"/metrics\"", "href=\"/config\"", "POST .../drain"] {
            assert!(html.contains(path), "{path} is not in {html}");
        }
    }
}
