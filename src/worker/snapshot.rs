//! A configuration in the form that control publishes and workers take up.
//!
//! Immutable. Endpoints that did not change are the very same from one snapshot to the next.

use std::sync::Arc;
use std::time::Duration;

use super::share::EndpointShared;
use crate::access_log::AccessSink;
use crate::config::{Balance, RetryBudget, Route};

/// An immutable configuration, as the workers use it.
pub struct Snapshot {
    pub routes: Vec<Route>,
    pub upstreams: Vec<UpstreamSnapshot>,
    /// What a drain may last at most: clients that are told when to come back do so within it.
    pub drain_timeout: Duration,
    pub access: Arc<AccessSink>,
}

/// One upstream of a [`Snapshot`]. Endpoints that did not change are the very same as in the snapshot before.
pub struct UpstreamSnapshot {
    pub name: String,
    pub balance: Balance,
    pub retry_budget: RetryBudget,
    pub endpoints: Vec<Arc<EndpointShared>>,
}
