//! Figures as people read them.

use std::time::Duration;

/// `1 listener`, `2 listeners`.
pub(super) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// `1,234,567`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// How many in one second.
pub(super) fn per_second(number: u64, elapsed: Duration) -> u64 {
    let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    number.saturating_mul(1000) / ms
}

/// Three digits and a unit: `312 us`, `3.41 ms`, `1.20 s`.
pub(super) fn time(duration: Duration) -> String {
    let us = duration.as_secs_f64() * 1e6;
    let (value, unit) = match us {
        ..1e3 => return format!("{us:.0} us"),
        ..1e6 => (us / 1e3, "ms"),
        _ => (us / 1e6, "s"),
    };
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.decimals$} {unit}")
}

/// A size in binary units, without decimals that are zero: `256 KiB`, `1.5 GiB`.
pub(super) fn size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) if bytes.is_multiple_of(*unit) => format!("{} {name}", bytes / unit),
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_have_units() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        let times = [0, 312, 3_410, 34_100, 341_000, 1_200_000].map(|us| time(Duration::from_micros(us)));
        assert_eq!(times, ["0 us", "312 us", "3.41 ms", "34.1 ms", "341 ms", "1.20 s"]);
        assert_eq!([12, 256 << 10, 1536 << 20].map(size), ["12 B", "256 KiB", "1.5 GiB"]);
        assert_eq!([count(1, "route"), count(0, "route")], ["1 route", "0 routes"]);
    }
}
