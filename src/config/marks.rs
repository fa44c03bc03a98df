//! Where the parts of a configuration were written, for messages about what does not fit together.
//!
//! Pure.

use super::source::Span;

/// Where the parts of a listener were written.
pub(super) struct ListenerMarks {
    /// In the list as it was written: those that cannot be judged are left out of the draft.
    pub(super) position: usize,
    pub(super) name: Span,
    pub(super) address: Span,
    /// Each part of `trust_forwarded_from`.
    pub(super) trusted: Vec<Span>,
    pub(super) proxy_protocol: Span,
    pub(super) tls: ListenerTlsMarks,
}

pub(super) struct ListenerTlsMarks {
    /// If the section was written.
    pub(super) whole: Option<Span>,
    /// Of each certificate whose files were both named, its position in the list as it was written, and where they were.
    pub(super) certificates: Vec<(usize, IdentityMarks)>,
    /// Whether any certificate was written, right or wrong.
    pub(super) has_certificates: bool,
    /// Each word, to find one that stands there twice.
    pub(super) alpn: Vec<Span>,
    pub(super) client_ca: Span,
}

/// Where a certificate and its key were named.
pub(super) struct IdentityMarks {
    pub(super) cert: Span,
    pub(super) key: Span,
}

pub(super) struct RouteMarks {
    pub(super) whole: Span,
    pub(super) name: Span,
    pub(super) upstream: Option<Span>,
    pub(super) rewrite: Option<Span>,
    /// The number of tries, if it was written.
    pub(super) attempts: Option<Span>,
    pub(super) per_try_timeout: Span,
    pub(super) heartbeat: Span,
    /// Each field that the route looks at, sets or removes.
    pub(super) headers: Vec<Span>,
    pub(super) set: Vec<Span>,
    pub(super) remove: Vec<Span>,
}

pub(super) struct UpstreamMarks {
    pub(super) whole: Span,
    pub(super) endpoints: Vec<Span>,
    pub(super) min_connections: Span,
    /// What made the connection's window: the number of streams if it was written, else the window of each.
    pub(super) window: Span,
    /// If any TLS setting was written.
    pub(super) tls: Option<Span>,
    pub(super) ca: Span,
    pub(super) client_cert: Option<Span>,
    pub(super) client_key: Option<Span>,
    /// Whether the endpoints were understood, so that what follows from them can be judged.
    pub(super) has_endpoints: bool,
}

pub(super) struct AdminMarks {
    pub(super) address: Span,
    pub(super) probes: Span,
}
