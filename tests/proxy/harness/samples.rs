//! A page of Prometheus text, read into samples.

use std::collections::BTreeMap;

/// The samples of one scrape, by `name` or `name{label="value",...}` as written on the page.
#[derive(Debug, Clone, Default)]
pub struct Samples(BTreeMap<String, f64>);

impl Samples {
    /// Reads the text format; comments are skipped, time stamps are dropped.
    ///
    /// Panics at a line that is not a sample, or at a series that appears twice: both would be our defect.
    pub fn parse(page: &str) -> Self {
        let mut samples = BTreeMap::new();
        for line in page.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let end = line.rfind('}').map_or_else(|| line.find(' '), |brace| Some(brace + 1));
            let (series, rest) = line.split_at(end.unwrap_or_else(|| panic!("not a sample: {line:?}")));
            let value = rest.split_whitespace().next().and_then(|value| value.parse().ok());
            let value = value.unwrap_or_else(|| panic!("no value: {line:?}"));
            assert!(samples.insert(series.to_owned(), value).is_none(), "twice on the page: {series}");
        }
        Self(samples)
    }

    /// The sum over all series of `name` whose labels contain each of `labels` (`("reason", "idle")`).
    ///
    /// Zero if there is none: a counter that never counted may be absent.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.series(name)
            .filter(|(series, _)| labels.iter().all(|(key, value)| has_label(series, key, value)))
            .map(|(_, value)| value)
            .sum()
    }

    /// All series of `name`, with their labels as written.
    pub fn series<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        let is_named = move |series: &str| {
            series.strip_prefix(name).is_some_and(|labels| labels.is_empty() || labels.starts_with('{'))
        };
        self.0.iter().filter(move |(series, _)| is_named(series)).map(|(series, value)| (series.as_str(), *value))
    }

    pub fn has(&self, name: &str) -> bool {
        self.series(name).next().is_some()
    }
}

/// Whether the label set holds `key="value"` as a whole label.
fn has_label(series: &str, key: &str, value: &str) -> bool {
    let label = format!("{key}=\"{value}\"");
    series.match_indices(&label).any(|(at, _)| matches!(series.as_bytes().get(at.wrapping_sub(1)), Some(b'{' | b',')))
}
