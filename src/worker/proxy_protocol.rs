//! Who a client is when a balancer passes its connection on: the PROXY header, read before anything else.
//!
//! A header counts only from whom `trust_forwarded_from` names, if it names anybody; from others it is skipped where it is
//! `optional`, and where it is `required` they are not served. Not a byte beyond the header is read.
//!
//! Lives on one worker. Knows no HTTP and no TLS. The PROXY protocol, versions 1 and 2.

mod header;

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

use self::header::{Look, look};
use super::admission::ListenerShared;
use super::local::Local;
use super::peer::Peer;
use super::timer::Timer;
use super::transport::Transport;
use crate::config::ProxyProtocol;
use crate::translate::is_trusted;

/// Reads the header of a connection that `listener` has accepted at `since`; `None` if it is not to be served, which is
/// told here.
pub(crate) async fn introduce(
    local: &Rc<Local>,
    listener: &Arc<ListenerShared>,
    mut transport: Transport,
    peer: Peer,
    since: Instant,
) -> Option<(Transport, Peer)> {
    let settings = &listener.settings;
    let is_required = settings.proxy_protocol == ProxyProtocol::Required;
    let trusted = &settings.trust_forwarded_from;
    let is_believed = trusted.is_empty() || is_trusted(peer.address(), trusted);
    let tell = |failure: Failure| {
        local.metrics.proxy_protocol_failures.increment(failure.reason());
        tracing::debug!(listener = settings.name, %peer, reason = failure.reason(), "no use of a PROXY header");
    };
    if is_required && !is_believed {
        tell(Failure::Untrusted);
        return None;
    }
    match read(local, listener, &mut transport, since).await {
        Ok(Beginning::Header(_)) if !is_believed => {
            tell(Failure::Untrusted);
            Some((transport, peer))
        }
        Ok(Beginning::Header(source)) => {
            let source = source.map_or(peer, Peer::Tcp);
            tracing::debug!(listener = settings.name, %peer, client = %source, "PROXY header");
            Some((transport, source))
        }
        Ok(Beginning::Foreign(_)) if is_required => {
            tell(Failure::Missing);
            None
        }
        Ok(Beginning::Foreign(bytes)) => Some((transport.begun(bytes), peer)),
        Err(End::Failed(failure)) => {
            tell(failure);
            None
        }
        // Nothing was promised.
        Err(End::Late { is_silent: true }) if !is_required => None,
        Err(End::Late { .. }) => {
            tell(Failure::Timeout);
            None
        }
        Err(End::Gone) => None,
    }
}

/// How a connection begins.
enum Beginning {
    Header(Option<std::net::SocketAddr>),
    /// With something else, of which these bytes have been read.
    Foreign(Bytes),
}

/// Why a connection ends before it has begun.
enum End {
    /// The client has left before it said a word, as health checks do, or the listener closes.
    Gone,
    Late {
        is_silent: bool,
    },
    Failed(Failure),
}

#[derive(Debug, Clone, Copy)]
enum Failure {
    Missing,
    Malformed,
    TooLong,
    Timeout,
    /// The client has left within the header.
    Truncated,
    Untrusted,
}

impl Failure {
    /// One of [`PROXY_PROTOCOL_FAILURES`](crate::metrics::PROXY_PROTOCOL_FAILURES).
    const fn reason(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::TooLong => "too_long",
            Self::Timeout => "timeout",
            Self::Truncated => "truncated",
            Self::Untrusted => "untrusted",
        }
    }
}

async fn read(
    local: &Rc<Local>,
    listener: &Arc<ListenerShared>,
    transport: &mut Transport,
    since: Instant,
) -> Result<Beginning, End> {
    let end = since + listener.settings.header_timeout;
    let timer = Timer::new(&local.wheel);
    timer.arm(end);
    let _registration = local.register(&timer);
    let mut is_closing = false;
    let mut bytes = Vec::new();
    loop {
        let missing = match look(&bytes) {
            Look::More(missing) => missing,
            Look::Header(source) => return Ok(Beginning::Header(source)),
            Look::Foreign => return Ok(Beginning::Foreign(bytes.into())),
            Look::Malformed => return Err(End::Failed(Failure::Malformed)),
            Look::TooLong => return Err(End::Failed(Failure::TooLong)),
        };
        let come = bytes.len();
        bytes.resize(come + missing, 0);
        let read = poll_fn(|cx| {
            timer.register(cx);
            let mut room = ReadBuf::new(&mut bytes[come..]);
            if let Poll::Ready(read) = Pin::new(&mut *transport).poll_read(cx, &mut room) {
                return Poll::Ready(Ok(read.map_or(0, |()| room.filled().len())));
            }
            if !is_closing && (local.is_draining() || listener.is_retired()) {
                is_closing = true;
                timer.arm(end.min(Instant::now() + LINGER));
            }
            if !timer.is_expired() {
                return Poll::Pending;
            }
            Poll::Ready(Err(if is_closing { End::Gone } else { End::Late { is_silent: come == 0 } }))
        })
        .await?;
        if read == 0 {
            return Err(if come == 0 { End::Gone } else { End::Failed(Failure::Truncated) });
        }
        bytes.truncate(come + read);
    }
}

/// A header may be on its way when the listener closes, and the request behind it is still answered.
const LINGER: Duration = Duration::from_millis(50);
