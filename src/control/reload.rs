//! From a configuration to what is served: what must be made anew, and what is kept.
//!
//! A [`Plan`] holds everything that can fail; applying it cannot. An endpoint whose settings did not change is the very
//! same in the next snapshot, so that workers keep its connections; a listener whose name and address did not change
//! keeps its sockets.
//!
//! Runs on control, or on whoever starts the process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use rustls_pki_types::ServerName;

use super::sockets::{self, UnixBinding};
use super::{Applied, Control, StartError};
use crate::access_log::{self, AccessSink, Writer};
use crate::config::{AccessLogOutput, Config, Endpoint, ListenAddress, Listener, Upstream};
use crate::tls::{self, ClientTls, ServerTls};
use crate::worker::{
    Command, Crew, EndpointShared, ListenerShared, ListeningSocket, Snapshot, Target, TargetTls, UpstreamSnapshot,
};

/// What makes a listener the same one over reloads.
pub(super) type ListenerKey = (ListenAddress, String);
/// The Unix sockets that are listened on.
pub(super) type UnixBindings = BTreeMap<PathBuf, Arc<UnixBinding>>;

/// A configuration with all that it needs, not yet served.
pub(super) struct Plan {
    pub(super) snapshot: Arc<Snapshot>,
    listeners: BTreeMap<ListenerKey, Arc<ListenerShared>>,
    fresh_sockets: Vec<(Arc<ListenerShared>, Vec<ListeningSocket>)>,
    unix_bindings: UnixBindings,
    sink: Arc<AccessSink>,
    writer: Option<Writer>,
    client_tls: BTreeMap<String, Arc<ClientTls>>,
}

impl Plan {
    /// Prepares `config`, taking over what `before` has and did not change.
    ///
    /// # Errors
    /// [`StartError`]; `before` is as it was.
    pub(super) fn new(config: &Config, before: Option<&Applied>, workers: usize) -> Result<Self, StartError> {
        let (sink, writer) = match before {
            // A file is opened anew each time, so that a rotated one is let go.
            Some(before)
                if before.config.logs.access == config.logs.access
                    && !matches!(config.logs.access.output, AccessLogOutput::File(_)) =>
            {
                (before.sink.clone(), None)
            }
            _ => {
                let (sink, writer) = access_log::open(&config.logs.access)
                    .map_err(|error| StartError::AccessLog { path: output_name(&config.logs.access.output), error })?;
                (sink, Some(writer))
            }
        };
        let mut client_tls = BTreeMap::new();
        for upstream in &config.upstreams {
            if let Some(tls) = self::client_tls(upstream)? {
                let known = before.and_then(|before| before.client_tls.get(&upstream.name));
                client_tls.insert(upstream.name.clone(), kept_if_same(tls, known, ClientTls::is_same_as));
            }
        }
        let upstreams = config
            .upstreams
            .iter()
            .map(|upstream| upstream_snapshot(upstream, client_tls.get(&upstream.name), before, workers))
            .collect::<Result<_, _>>()?;
        let mut listeners = BTreeMap::new();
        let mut fresh_sockets = Vec::new();
        let mut unix_bindings = kept_unix_bindings(config, before);
        for listener in &config.listeners {
            let key = (listener.address.clone(), listener.name.clone());
            let known = before.and_then(|before| before.listeners.get(&key));
            let known_tls =
                known.filter(|known| known.settings.tls == listener.tls).and_then(|known| known.tls.as_ref());
            let tls = server_tls(listener)?.map(|tls| kept_if_same(tls, known_tls, ServerTls::is_same_as));
            let is_same =
                |known: &ListenerShared| known.settings == *listener && is_same_arc(known.tls.as_ref(), tls.as_ref());
            let shared = match known {
                Some(known) if is_same(known) => known.clone(),
                // The address stays, its settings change: the sockets move to the new record.
                Some(known) => known.with_settings(listener.clone(), tls),
                None => {
                    let (sockets, address) = bind(listener, before, &mut unix_bindings, workers)?;
                    let shared = ListenerShared::new(listener.clone(), tls, address);
                    fresh_sockets.push((shared.clone(), sockets));
                    shared
                }
            };
            listeners.insert(key, shared);
        }
        let (routes, drain_timeout) = (config.routes.clone(), config.shutdown.timeout);
        let snapshot = Snapshot { routes, upstreams, drain_timeout, access: sink.clone() };
        Ok(Self { snapshot: Arc::new(snapshot), listeners, fresh_sockets, unix_bindings, client_tls, sink, writer })
    }

    /// Has the workers serve it. Cannot fail.
    pub(super) fn apply(self, config: &Config, crew: &Crew, before: Option<&mut Applied>) -> Applied {
        let mut writers = Vec::new();
        if let Some(writer) = self.writer {
            writers.extend(super::spawn_writer(writer));
        }
        let mut generation = 1;
        if let Some(before) = before {
            generation = before.generation + 1;
            writers.append(&mut before.writers);
            crew.broadcast(|| Command::Apply(self.snapshot.clone()));
            // Before workers are told to stop accepting there: who comes later is to find no socket.
            before.unix_bindings.retain(|path, _| self.unix_bindings.contains_key(path));
            for (key, old) in &before.listeners {
                match self.listeners.get(key) {
                    Some(new) if Arc::ptr_eq(old, new) => {}
                    Some(new) => crew.broadcast(|| Command::Replace { old: old.clone(), new: new.clone() }),
                    None => {
                        old.retire();
                        crew.broadcast(|| Command::Retire(old.clone()));
                    }
                }
            }
        }
        for (listener, sockets) in self.fresh_sockets {
            tracing::info!(listener = listener.settings.name, address = %listener.address, "listening");
            for (worker, socket) in sockets.into_iter().enumerate() {
                crew.send(worker, Command::Listen(listener.clone(), socket));
            }
        }
        Applied {
            config: config.clone(),
            generation,
            is_reloaded: true,
            snapshot: self.snapshot,
            listeners: self.listeners,
            sink: self.sink,
            writers,
            client_tls: self.client_tls,
            refused: BTreeMap::new(),
            unix_bindings: self.unix_bindings,
        }
    }

    /// Whether files hold something else than they did under the same names.
    fn is_renewal(&self, before: &Applied) -> bool {
        let is_changed = |(key, listener): (&ListenerKey, &Arc<ListenerShared>)| {
            let before = before.listeners.get(key).filter(|before| before.settings.tls == listener.settings.tls);
            before.is_some_and(|before| !is_same_arc(before.tls.as_ref(), listener.tls.as_ref()))
        };
        let is_other = |(name, tls): (&String, &Arc<ClientTls>)| {
            before.client_tls.get(name).is_some_and(|before| !Arc::ptr_eq(before, tls))
        };
        self.listeners.iter().any(is_changed) || self.client_tls.iter().any(is_other)
    }
}

/// Reads the configuration again and serves it, or keeps the old one and says why.
pub(super) fn reload(control: &Control) -> Result<String, String> {
    let reloaded = try_reload(control);
    match &reloaded {
        Ok(change) => tracing::info!(change, "configuration reloaded"),
        Err(why) => tracing::error!("configuration not reloaded, the old one is kept:\n{why}"),
    }
    control.applied().is_reloaded = reloaded.is_ok();
    reloaded
}

fn try_reload(control: &Control) -> Result<String, String> {
    let reader = control.reader.as_ref().ok_or("there is no file to reload from")?;
    let config = reader.read()?;
    let mut applied = control.applied();
    let before = applied.config.clone();
    let plan =
        Plan::new(&config, Some(&applied), control.registry().workers().len()).map_err(|error| error.to_string())?;
    let is_renewal = plan.is_renewal(&applied);
    let next = plan.apply(&config, &control.crew, Some(&mut applied));
    *applied = next;
    reader.taken(&config);
    Ok(change(&before, &config, is_renewal))
}

/// One line about what differs.
fn change(before: &Config, after: &Config, is_renewal: bool) -> String {
    let mut parts = Vec::new();
    let mut note = |is_changed: bool, what: &str| {
        if is_changed {
            parts.push(what.to_owned());
        }
    };
    note(before.listeners != after.listeners, "listeners");
    note(before.routes != after.routes, "routes");
    note(before.upstreams != after.upstreams, "upstreams");
    note(is_renewal, "certificates");
    note(before.logs != after.logs, "logs");
    note(before.shutdown != after.shutdown, "shutdown");
    note(before.admin != after.admin, "admin (needs a restart)");
    note(before.runtime != after.runtime, "runtime (needs a restart)");
    if parts.is_empty() { "nothing changed".to_owned() } else { format!("changed: {}", parts.join(", ")) }
}

/// Binds a new listener: a socket for each worker, and where they listen. An address that a listener under another name
/// gives up is bound beside it, or shared: both are ours.
fn bind(
    listener: &Listener,
    before: Option<&Applied>,
    unix_bindings: &mut UnixBindings,
    workers: usize,
) -> Result<(Vec<ListeningSocket>, ListenAddress), StartError> {
    let what = format!("listener {}", listener.name);
    let wanted = &listener.address;
    match wanted {
        ListenAddress::Tcp(address) => {
            let is_ours =
                before.is_some_and(|before| before.listeners.values().any(|known| known.address.overlaps(wanted)));
            let sockets = sockets::bind_shared(&what, *address, workers, is_ours)?;
            let address = sockets[0].local_addr().unwrap_or(*address);
            Ok((sockets.into_iter().map(ListeningSocket::Tcp).collect(), address.into()))
        }
        ListenAddress::Unix(path) => {
            let binding = match unix_bindings.get(path) {
                Some(binding) => binding.clone(),
                None => Arc::new(UnixBinding::new(&what, path)?),
            };
            let shared = (0..workers).map(|_| binding.share().map(ListeningSocket::Unix)).collect::<Result<_, _>>();
            let sockets =
                shared.map_err(|error| StartError::Bind { what: what.clone(), address: wanted.clone(), error })?;
            unix_bindings.insert(path.clone(), binding);
            Ok((sockets, wanted.clone()))
        }
    }
}

/// The Unix sockets of `before` that `config` still wants.
fn kept_unix_bindings(config: &Config, before: Option<&Applied>) -> UnixBindings {
    let is_wanted = |path: &PathBuf| {
        config.listeners.iter().any(|it| matches!(&it.address, ListenAddress::Unix(wanted) if wanted == path))
    };
    let known = before.into_iter().flat_map(|before| &before.unix_bindings);
    known.filter(|(path, _)| is_wanted(path)).map(|(path, binding)| (path.clone(), binding.clone())).collect()
}

pub(super) fn upstream_snapshot(
    upstream: &Upstream,
    client_tls: Option<&Arc<ClientTls>>,
    before: Option<&Applied>,
    workers: usize,
) -> Result<UpstreamSnapshot, StartError> {
    let known_upstream = |before: &Applied| {
        let config = before.config.upstreams.iter().find(|known| known.name == upstream.name)?;
        // What an endpoint is made of, other than its own address.
        let is_same = config.pool == upstream.pool
            && config.stream_window_bytes == upstream.stream_window_bytes
            && config.connect_timeout == upstream.connect_timeout
            && config.tls == upstream.tls
            && is_same_arc(before.client_tls.get(&upstream.name), client_tls);
        let snapshot = before.snapshot.upstreams.iter().find(|known| known.name == upstream.name)?;
        Some((snapshot.endpoints.clone(), is_same))
    };
    let (known, is_same) = before.and_then(known_upstream).unwrap_or_default();
    let endpoints = upstream
        .endpoints
        .iter()
        .map(|endpoint| {
            let before = known.iter().find(|known| {
                let known = &known.target.endpoint;
                (known.protocol, &known.location) == (endpoint.protocol, &endpoint.location)
            });
            if let Some(kept) = before
                && is_same
                && kept.target.endpoint == *endpoint
            {
                return Ok(kept.clone());
            }
            let target = target(upstream, endpoint, client_tls)?;
            Ok(EndpointShared::new(Arc::new(target), upstream.pool.clone(), workers, before.map(|before| &**before)))
        })
        .collect::<Result<_, StartError>>()?;
    let (name, balance, retry_budget) = (upstream.name.clone(), upstream.balance, upstream.retry_budget);
    Ok(UpstreamSnapshot { name, balance, retry_budget, endpoints })
}

/// How each endpoint of `config` is reached, for whoever only wants to look.
///
/// # Errors
/// [`StartError::Tls`].
pub fn targets(config: &Config) -> Result<Vec<Target>, StartError> {
    let mut targets = Vec::new();
    for upstream in &config.upstreams {
        let client_tls = client_tls(upstream)?.map(Arc::new);
        for endpoint in &upstream.endpoints {
            targets.push(target(upstream, endpoint, client_tls.as_ref())?);
        }
    }
    Ok(targets)
}

/// The TLS settings that the endpoints of `upstream` share; `None` if none of them uses TLS.
pub(super) fn client_tls(upstream: &Upstream) -> Result<Option<ClientTls>, StartError> {
    let client_tls = upstream.has_tls().then(|| ClientTls::new(&upstream.tls)).transpose();
    client_tls.map_err(|why| StartError::Tls { what: format!("upstreams.{}", upstream.name), why })
}

/// The certificates of `listener`; `None` if its clients speak in the clear.
pub(super) fn server_tls(listener: &Listener) -> Result<Option<ServerTls>, StartError> {
    let server_tls = listener.tls.as_ref().map(ServerTls::new).transpose();
    server_tls.map_err(|why| StartError::Tls { what: format!("listener {}", listener.name), why })
}

/// What there was before, if it is the same, so that connections and sessions made with it stay.
fn kept_if_same<T>(new: T, before: Option<&Arc<T>>, is_same: fn(&T, &T) -> bool) -> Arc<T> {
    before.filter(|before| is_same(before, &new)).cloned().unwrap_or_else(|| Arc::new(new))
}

fn is_same_arc<T>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (one, other) => one.is_none() && other.is_none(),
    }
}

fn target(upstream: &Upstream, endpoint: &Endpoint, client_tls: Option<&Arc<ClientTls>>) -> Result<Target, StartError> {
    let tls = match client_tls {
        Some(client_tls) if endpoint.protocol.is_tls() => {
            let name = upstream.tls.server_name.clone().or_else(|| endpoint.host().map(str::to_owned));
            let name = name.expect("no Unix socket has a TLS scheme");
            let name = ServerName::try_from(name).map_err(|error| StartError::Tls {
                what: format!("upstreams.{}", upstream.name),
                why: error.to_string(),
            })?;
            let offers: &[&[u8]] =
                if endpoint.protocol.is_discovered() { &[tls::HTTP2, tls::HTTP1] } else { &[tls::HTTP2] };
            let (http2, http1) =
                (tls::connector(&client_tls.config, offers), tls::connector(&client_tls.config, &[tls::HTTP1]));
            Some(TargetTls { http2, http1, name })
        }
        _ => None,
    };
    Ok(Target {
        upstream: upstream.name.clone(),
        endpoint: endpoint.clone(),
        connect_timeout: upstream.connect_timeout,
        stream_window_bytes: upstream.stream_window_bytes,
        streams_max: upstream.pool.max_streams_per_connection,
        requests_max: upstream.pool.max_requests_per_connection,
        max_age: upstream.pool.max_age,
        ping: upstream.pool.ping.clone(),
        tls,
    })
}

fn output_name(output: &AccessLogOutput) -> String {
    match output {
        AccessLogOutput::Stdout => "stdout".to_owned(),
        AccessLogOutput::Stderr => "stderr".to_owned(),
        AccessLogOutput::File(path) => path.display().to_string(),
    }
}
