//! Whether new clients are welcome: what a load balancer or Kubernetes asks every few seconds.
//!
//! Runs on control.

use std::fmt::Write as _;

use http::StatusCode;

use super::Reply;
use crate::control::{Control, Stage};

/// 200 when the configuration is loaded, the listeners accept, the `min_connections` of each endpoint that can be reached
/// have been opened once and no drain has begun; 503 otherwise.
///
/// The health of upstreams is listed, but decides nothing: every replica would become unready at once when the service
/// is down, and a load balancer without any answers worse than our own 503, which says what is wrong. An upstream that
/// is down at the start is a warning for the same reason. `up` means not known to be down: an endpoint counts as down
/// only when it has been away for longer than a restart takes.
pub(super) fn reply(control: &Control, query: &str) -> Reply {
    let checks = checks(control);
    let is_ready = checks.iter().all(|check| check.is_passed);
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let verdict = if is_ready { "ready\n" } else { "not ready\n" };
    let mut text = String::new();
    if query.split('&').any(|part| part == "verbose" || part.starts_with("verbose=")) {
        for check in &checks {
            let mark = if check.is_passed { '+' } else { '-' };
            writeln!(text, "[{mark}] {}: {}", check.name, check.found).expect(INFALLIBLE);
        }
        for (upstream, endpoint, is_down) in control.endpoints() {
            let state = if is_down { "down" } else { "up" };
            writeln!(text, "[i] upstream {upstream} {endpoint}: {state}").expect(INFALLIBLE);
        }
    } else {
        for check in checks.iter().filter(|check| !check.is_passed) {
            writeln!(text, "{}: {}", check.name, check.found).expect(INFALLIBLE);
        }
    }
    text.push_str(verdict);
    Reply::text(status, text)
}

struct Check {
    name: &'static str,
    is_passed: bool,
    found: String,
}

fn checks(control: &Control) -> [Check; 4] {
    let (_, generation) = control.config();
    // A process exists only with a configuration, and its sockets listen before it does.
    let listeners: Vec<_> =
        control.listeners().into_iter().map(|(name, address)| format!("{name} {address}")).collect();
    let stage = control.stage();
    let cold = control.cold_endpoints();
    [
        Check {
            name: "configuration",
            is_passed: generation > 0,
            found: match (generation, control.is_reloaded()) {
                (0, _) => "not loaded".to_owned(),
                (_, true) => format!("generation {generation}"),
                (_, false) => format!("generation {generation}, kept because the latest reload failed"),
            },
        },
        Check {
            name: "listeners",
            is_passed: stage != Stage::Starting && !listeners.is_empty(),
            found: if listeners.is_empty() { "none".to_owned() } else { listeners.join(", ") },
        },
        Check {
            name: "connections",
            is_passed: cold.is_empty(),
            found: if cold.is_empty() { "warm".to_owned() } else { format!("being opened to {}", cold.join(", ")) },
        },
        Check { name: "stage", is_passed: stage == Stage::Serving, found: stage.word().to_owned() },
    ]
}

const INFALLIBLE: &str = "writing to a string cannot fail";
