//! Why a dial came to nothing, and how those learn of it who wait for its connection.
//!
//! A [`DialFailure`] is the fault that the client's answer is made from, and what else the operator and the discovery of
//! the endpoint's protocol want to know.
//!
//! Used by all workers, off the fast path. Knows no connections.

use tokio::sync::watch;

use crate::error::UpstreamFault;

/// Why a dial came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialFailure {
    pub fault: UpstreamFault,
    /// A clause about the service for its operator, where the fault alone leaves it open.
    pub cause: Option<String>,
    /// It took the whole connect timeout to find out.
    pub is_slow: bool,
}

impl DialFailure {
    pub(crate) fn because(fault: UpstreamFault, cause: impl Into<String>) -> Self {
        Self { cause: Some(cause.into()), ..Self::from(fault) }
    }

    /// The service speaks HTTP/1.1, and not HTTP/2.
    pub(crate) fn tells_http1(&self) -> bool {
        matches!(self.fault, UpstreamFault::NotHttp2 | UpstreamFault::NoHttp2ByAlpn)
    }
}

impl From<UpstreamFault> for DialFailure {
    fn from(fault: UpstreamFault) -> Self {
        Self { fault, cause: None, is_slow: fault == UpstreamFault::ConnectTimeout }
    }
}

/// Where failed dials are told, because bb8 keeps them to itself. (Its error sink also tells of idle connections that have
/// ended, which is no failure.)
#[derive(Debug, Clone)]
pub(crate) struct DialFailures(watch::Sender<Option<DialFailure>>);

impl DialFailures {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    pub(crate) fn tell(&self, failure: &DialFailure) {
        self.0.send_replace(Some(failure.clone()));
    }

    /// Sees the failures from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<DialFailure>> {
        self.0.subscribe()
    }
}

/// The next failure that `failures` sees.
pub(crate) async fn next_failure(failures: &mut watch::Receiver<Option<DialFailure>>) -> DialFailure {
    // The sender lives as long as the pool that is asked for a connection at the same time.
    let _ = failures.changed().await;
    failures.borrow_and_update().clone().unwrap_or_else(|| UpstreamFault::ConnectionLost.into())
}
