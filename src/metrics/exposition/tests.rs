//! Reads the text back with a strict parser of its own, as a scraper would.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::figures::{EndpointState, Figures, Standing};
use super::super::process::ProcessFigures;
use super::super::{Registry, STATUS_CLASSES};
use super::text;
use crate::error::Fault;

type Labels = BTreeMap<String, String>;

/// An exposition, taken apart.
struct Parsed {
    /// The type of each family.
    types: BTreeMap<String, String>,
    samples: Vec<(String, Labels, f64)>,
}

impl Parsed {
    /// Panics on everything that `OpenMetrics` does not allow here.
    fn new(text: &str) -> Self {
        let body = text.strip_suffix("# EOF\n").expect("the text ends with EOF");
        let mut parsed = Self { types: BTreeMap::new(), samples: Vec::new() };
        let mut current = String::new();
        let mut helped = String::new();
        for line in body.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("HELP has a text");
                assert!(!help.is_empty(), "{name}");
                helped = name.to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("TYPE has a type");
                assert_eq!(helped, name, "HELP stands before TYPE");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(parsed.types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} is there twice");
                current = name.to_owned();
            } else {
                let (name, labels, value) = sample(line);
                let kind = &parsed.types[&current];
                let suffixes: &[&str] = match kind.as_str() {
                    "counter" => &["_total"],
                    "histogram" => &["_bucket", "_sum", "_count"],
                    _ => &[""],
                };
                let is_of_family = suffixes.iter().any(|suffix| name == format!("{current}{suffix}"));
                assert!(is_of_family, "{name} is not a sample of the {kind} {current}");
                let is_known = parsed.samples.iter().any(|(known, other, _)| (known, other) == (&name, &labels));
                assert!(!is_known, "{line} is there twice");
                parsed.samples.push((name, labels, value));
            }
        }
        parsed
    }

    fn find(&self, name: &str, wanted: &[(&str, &str)]) -> Option<f64> {
        let matches =
            |labels: &Labels| wanted.iter().all(|(key, value)| labels.get(*key).is_some_and(|it| it == value));
        self.samples.iter().find(|(known, labels, _)| known == name && matches(labels)).map(|(_, _, value)| *value)
    }

    fn values(&self, name: &str, label: &str) -> Vec<&str> {
        let samples = self.samples.iter().filter(|(known, _, _)| known == name);
        samples.map(|(_, labels, _)| labels[label].as_str()).collect()
    }
}

/// `name{key="value",...} number`, nothing else.
fn sample(line: &str) -> (String, Labels, f64) {
    let (head, value) = line.rsplit_once(' ').expect("a sample has a value");
    let value = value.parse().expect("a sample's value is a number");
    let Some((name, rest)) = head.split_once('{') else { return (head.to_owned(), Labels::new(), value) };
    let mut rest = rest.strip_suffix('}').expect("labels are closed");
    let mut labels = Labels::new();
    while !rest.is_empty() {
        let (key, quoted) = rest.split_once("=\"").expect("a label has a quoted value");
        let mut text = String::new();
        let mut characters = quoted.char_indices();
        let end = loop {
            match characters.next().expect("a value is closed") {
                (at, '"') => break at,
                (_, '\\') => match characters.next().expect("an escape is complete").1 {
                    'n' => text.push('\n'),
                    it @ ('"' | '\\') => text.push(it),
                    it => panic!("unknown escape {it}"),
                },
                (_, it) => text.push(it),
            }
        };
        assert!(labels.insert(key.to_owned(), text).is_none(), "{key} is there twice: {line}");
        rest = &quoted[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    (name.to_owned(), labels, value)
}

const ENDPOINT: &str = "h2c://127.0.0.1:9000";

fn registry() -> Registry {
    let registry = Registry::new(2);
    for worker in 0..2 {
        registry.workers()[worker].downstream_connections.add(10);
        registry.workers()[worker].faults.increment("pool_full");
        registry.route(worker, "reads").record(Some(200), Duration::from_millis(3));
        registry.route(worker, "reads").record(Some(503), Duration::from_mins(1));
        registry.route(worker, "reads").retries.increment("status");
        registry.route(worker, "reads").retry_budget_exhausted.increment();
        let endpoint = registry.endpoint(worker, &("api".to_owned(), ENDPOINT.to_owned()));
        endpoint.active.set(1);
        endpoint.streams.set(3);
        endpoint.stream_limit.set(100);
        endpoint.goaway_received.increment("NO_ERROR");
        endpoint.resets_sent.increment("CANCEL");
        endpoint.dial_failures.increment("connect_refused");
        endpoint.wait.record(Duration::from_millis(1));
    }
    registry
}

fn scrape(registry: &Registry, process: ProcessFigures) -> Parsed {
    let standing = Standing { version: "1.2.3".into(), config_generation: 2, is_reloaded: true, ..Standing::default() };
    let text = text(Figures::merge(registry, standing, process, |_| EndpointState::Up));
    Parsed::new(&text)
}

#[test]
fn every_sample_has_a_family_and_every_family_samples() {
    for (registry, process) in [(registry(), ProcessFigures::read()), (Registry::new(1), ProcessFigures::default())] {
        let parsed = scrape(&registry, process);
        for name in parsed.types.keys() {
            assert!(parsed.samples.iter().any(|(sample, _, _)| sample.starts_with(name)), "{name} has no samples");
        }
    }
}

#[test]
fn buckets_are_cumulative_and_the_last_one_is_the_count() {
    let parsed = scrape(&registry(), ProcessFigures::default());
    let mut histograms = 0;
    for (name, labels, count) in parsed.samples.iter().filter(|(name, ..)| name.ends_with("_count")) {
        let family = name.trim_end_matches("_count");
        let buckets: Vec<(f64, f64)> = parsed
            .samples
            .iter()
            .filter(|(bucket, of, _)| {
                let mut of = of.clone();
                of.remove("le");
                *bucket == format!("{family}_bucket") && of == *labels
            })
            .map(|(_, labels, count)| (labels["le"].parse().unwrap(), *count))
            .collect();
        assert!(buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1), "{buckets:?}");
        assert_eq!(*buckets.last().unwrap(), (f64::INFINITY, *count), "{name}{labels:?}");
        histograms += 1;
    }
    // One for each class of the one route, one for the wait of the one endpoint.
    assert_eq!(histograms, STATUS_CLASSES.len() + 1);
    let family = "http_server_request_duration_seconds";
    let of = [("http_route", "reads"), ("http_response_status_code", "2xx")];
    assert_eq!(parsed.find(&format!("{family}_count"), &of), Some(2.0));
    assert_eq!(parsed.find(&format!("{family}_sum"), &of), Some(0.006));
    assert_eq!(parsed.find(&format!("{family}_bucket"), &[of[0], of[1], ("le", "0.0025")]), Some(0.0));
    assert_eq!(parsed.find(&format!("{family}_bucket"), &[of[0], of[1], ("le", "0.005")]), Some(2.0));
}

#[test]
fn the_text_shows_the_sums_of_all_workers() {
    let parsed = scrape(&registry(), ProcessFigures { open_fds: Some(17), ..ProcessFigures::default() });
    let of = [("upstream", "api"), ("endpoint", ENDPOINT)];
    let with = |label, value| [of[0], of[1], (label, value)];
    assert_eq!(parsed.find("trunkline_downstream_connections", &[]), Some(20.0));
    assert_eq!(parsed.find("trunkline_fan_in_ratio", &[]), Some(10.0));
    assert_eq!(parsed.find("trunkline_upstream_connections", &with("state", "active")), Some(2.0));
    assert_eq!(parsed.find("trunkline_upstream_connections", &with("state", "draining")), Some(0.0));
    assert_eq!(parsed.find("trunkline_upstream_streams", &of), Some(6.0));
    assert_eq!(parsed.find("trunkline_upstream_stream_limit", &of), Some(200.0));
    assert_eq!(parsed.find("trunkline_faults_total", &[("reason", "pool_full")]), Some(2.0));
    let tries = [("http_route", "reads"), ("reason", "status")];
    assert_eq!(parsed.find("trunkline_route_retries_total", &tries), Some(2.0));
    assert_eq!(parsed.find("trunkline_retry_budget_exhausted_total", &tries[..1]), Some(2.0));
    assert_eq!(parsed.find("trunkline_config_generation", &[]), Some(2.0));
    assert_eq!(parsed.find("trunkline_config_last_reload_success", &[]), Some(1.0));
    assert_eq!(parsed.find("trunkline_build_info", &[("version", "1.2.3")]), Some(1.0));
    assert_eq!(parsed.find("process_open_fds", &[]), Some(17.0));
    assert_eq!(parsed.find("process_threads", &[]), None);
}

#[test]
fn short_sets_are_complete_and_long_ones_show_what_has_happened() {
    let parsed = scrape(&registry(), ProcessFigures::default());
    assert_eq!(parsed.values("trunkline_pool_rejected_total", "reason"), ["full", "timeout", "unavailable"]);
    assert_eq!(
        parsed.values("trunkline_retries_total", "proof"),
        ["goaway", "http_1_1_required", "http_2_answered", "refused_stream", "unwritten"]
    );
    assert_eq!(parsed.values("trunkline_faults_total", "reason").len(), Fault::ALL.len());
    assert_eq!(
        parsed.values("trunkline_proxy_protocol_failures_total", "reason").len(),
        super::super::PROXY_PROTOCOL_FAILURES.len()
    );
    assert_eq!(parsed.values("trunkline_goaway_total", "code"), ["NO_ERROR"]);
    assert_eq!(parsed.values("trunkline_goaway_total", "side"), ["upstream"]);
    assert_eq!(parsed.values("trunkline_resets_total", "side"), ["proxy"]);
    assert_eq!(parsed.values("trunkline_dial_failures_total", "reason"), ["connect_refused"]);
}

#[test]
fn a_name_cannot_break_out_of_its_label() {
    let registry = Registry::new(1);
    let name = "a\"} 1\n\\evil";
    registry.route(0, name).record(Some(200), Duration::from_millis(3));
    let parsed = scrape(&registry, ProcessFigures::default());
    let of = [("http_route", name), ("http_response_status_code", "2xx")];
    assert_eq!(parsed.find("http_server_request_duration_seconds_count", &of), Some(1.0));
}
