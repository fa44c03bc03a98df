//! What each path of an admin address shows or does.
//!
//! [`Page`] is the one list of paths: routing, the 404 that names them and the links of the status page are made from
//! it. Everything with a number in it is printed from one [`Figures`](crate::metrics::figures::Figures).
//!
//! Runs on control. Knows no connections; who may ask has been checked.

mod readiness;
mod status;

use std::fmt::Write as _;

use http::StatusCode;

use super::Access;
use crate::config::{self, Secrets};
use crate::control::{Control, Stage};
use crate::metrics::exposition;

/// One path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    Livez,
    Readyz,
    Startupz,
    Metrics,
    Status,
    Stats,
    Upstreams,
    Config,
    Drain,
    Reload,
    Quit,
}

impl Page {
    const ALL: [Self; 11] = [
        Self::Livez,
        Self::Readyz,
        Self::Startupz,
        Self::Metrics,
        Self::Status,
        Self::Stats,
        Self::Upstreams,
        Self::Config,
        Self::Drain,
        Self::Reload,
        Self::Quit,
    ];

    /// The page of `path`, if an address with `access` has it.
    pub(super) fn find(path: &str, access: Access) -> Option<Self> {
        Self::of(access).find(|page| page.path() == path)
    }

    fn of(access: Access) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |page| access == Access::Full || page.is_probe())
    }

    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Livez => "/livez",
            Self::Readyz => "/readyz",
            Self::Startupz => "/startupz",
            Self::Metrics => "/metrics",
            Self::Status => "/",
            Self::Stats => "/stats.json",
            Self::Upstreams => "/upstreams",
            Self::Config => "/config",
            Self::Drain => "/drain",
            Self::Reload => "/reload",
            Self::Quit => "/quit",
        }
    }

    const fn about(self) -> &'static str {
        match self {
            Self::Livez => "200 while the process can answer",
            Self::Readyz => "200 when new clients are welcome; ?verbose lists the checks",
            Self::Startupz => "200 once the process has started",
            Self::Metrics => "figures for Prometheus",
            Self::Status => "status",
            Self::Stats => "all figures as JSON",
            Self::Upstreams => "the endpoints as JSON",
            Self::Config => "the effective configuration, secrets redacted",
            Self::Drain => "not ready, finish what runs, end",
            Self::Reload => "read the configuration again",
            Self::Quit => "end now; what runs is cut",
        }
    }

    /// Shows nothing that is not for everyone who reaches the address, and changes nothing.
    pub(super) const fn is_probe(self) -> bool {
        matches!(self, Self::Livez | Self::Readyz | Self::Startupz | Self::Metrics)
    }

    /// Changes the process: POST only.
    pub(super) const fn is_change(self) -> bool {
        matches!(self, Self::Drain | Self::Reload | Self::Quit)
    }

    pub(super) async fn reply(self, control: &Control, access: Access, query: &str) -> Reply {
        match self {
            Self::Readyz => readiness::reply(control, query),
            Self::Startupz if control.stage() == Stage::Starting => {
                Reply::text(StatusCode::SERVICE_UNAVAILABLE, "starting\n")
            }
            Self::Livez | Self::Startupz => Reply::text(StatusCode::OK, "ok\n"),
            Self::Metrics => Reply {
                media_type: exposition::CONTENT_TYPE,
                ..Reply::text(StatusCode::OK, exposition::text(control.figures()))
            },
            Self::Status => Reply {
                media_type: "text/html; charset=utf-8",
                ..Reply::text(StatusCode::OK, status::page(&control.figures(), &control.listeners(), access))
            },
            Self::Stats => json(&control.figures()),
            Self::Upstreams => json(&control.figures().endpoints),
            // As plain text, so that a browser shows it.
            Self::Config => Reply::text(StatusCode::OK, config::print(&control.config().0, Secrets::Redacted)),
            Self::Drain => drain(control),
            Self::Reload => reload(control).await,
            Self::Quit => {
                control.stop();
                Reply { is_closing: true, ..Reply::text(StatusCode::OK, "ending\n") }
            }
        }
    }
}

/// An answer before it is HTTP.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) media_type: &'static str,
    pub(super) body: String,
    /// The methods that would be right.
    pub(super) allow: Option<&'static str>,
    pub(super) is_closing: bool,
}

impl Reply {
    pub(super) fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self { status, media_type: "text/plain; charset=utf-8", body: body.into(), allow: None, is_closing: false }
    }
}

/// Names the paths that there are.
pub(super) fn not_found(access: Access) -> Reply {
    let mut text = "there is no such path; there are:\n".to_owned();
    for page in Page::of(access) {
        let method = if page.is_change() { "POST" } else { "GET" };
        writeln!(text, "{method:<4} {:<12} {}", page.path(), page.about()).expect("writing to a string cannot fail");
    }
    Reply::text(StatusCode::NOT_FOUND, text)
}

/// Asking twice is asking once: only a second signal, or `/quit`, cuts what still runs.
fn drain(control: &Control) -> Reply {
    let text = if control.stage() == Stage::Draining {
        "draining already\n"
    } else {
        control.drain();
        "draining\n"
    };
    Reply { is_closing: true, ..Reply::text(StatusCode::OK, text) }
}

async fn reload(control: &Control) -> Reply {
    let (status, mut text) = match control.reload().await {
        Ok(change) => (StatusCode::OK, change),
        Err(why) if control.stage() == Stage::Draining => (StatusCode::SERVICE_UNAVAILABLE, why),
        Err(why) => (StatusCode::UNPROCESSABLE_ENTITY, why),
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Reply::text(status, text)
}

fn json(figures: &impl serde::Serialize) -> Reply {
    let mut body = serde_json::to_string(figures).expect("figures have string keys only");
    body.push('\n');
    Reply { media_type: "application/json", ..Reply::text(StatusCode::OK, body) }
}
