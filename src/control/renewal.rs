//! Certificates, keys and CAs whose files have changed while the configuration stays: new handshakes use the new ones.
//!
//! Each listener and each upstream is looked at by itself. Where the new files cannot be used, the old certificates stay
//! in use, and the operator is told once. Connections that run are left alone; requests to an upstream whose CA or
//! certificate has changed go over new connections.
//!
//! Runs on control.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::reload::{client_tls, server_tls, upstream_snapshot};
use super::{Applied, Control, StartError};
use crate::config::{CaSource, Config, Identity};
use crate::worker::{Command, Snapshot};

/// The files that certificates, keys and CAs come from.
pub(super) fn files(config: &Config) -> BTreeSet<PathBuf> {
    let identities = |identity: &Identity| [identity.cert.clone(), identity.key.clone()];
    let listeners = config.listeners.iter().filter_map(|listener| listener.tls.as_ref()).flat_map(|tls| {
        let certificates = tls.certificates.iter().flat_map(identities);
        certificates.chain(tls.client_ca.clone()).collect::<Vec<_>>()
    });
    let upstreams = config.upstreams.iter().filter(|upstream| upstream.has_tls()).flat_map(|upstream| {
        let ca = match &upstream.tls.ca {
            CaSource::System => None,
            CaSource::File(path) => Some(path.clone()),
        };
        ca.into_iter().chain(upstream.tls.client.iter().flat_map(identities)).collect::<Vec<_>>()
    });
    listeners.chain(upstreams).collect()
}

/// Reads all of them again, and takes what has changed and can be used.
pub(super) fn renew(control: &Control) {
    let mut applied = control.applied();
    renew_listeners(control, &mut applied);
    renew_upstreams(control, &mut applied);
}

fn renew_listeners(control: &Control, applied: &mut Applied) {
    let Applied { listeners, refused, .. } = applied;
    for listener in listeners.values_mut() {
        let what = format!("listener {}", listener.settings.name);
        match (server_tls(&listener.settings), &listener.tls) {
            (Ok(Some(new)), Some(old)) => {
                refused.remove(&what);
                if new.is_same_as(old) {
                    continue;
                }
                let new = listener.with_settings(listener.settings.clone(), Some(Arc::new(new)));
                control.crew.broadcast(|| Command::Replace { old: listener.clone(), new: new.clone() });
                *listener = new;
                tracing::info!(listener = listener.settings.name, "certificates renewed");
            }
            (Ok(_), _) => {}
            (Err(error), _) => refuse(refused, what, &error),
        }
    }
}

fn renew_upstreams(control: &Control, applied: &mut Applied) {
    let mut next = applied.client_tls.clone();
    let mut renewed = Vec::new();
    for upstream in &applied.config.upstreams {
        let what = format!("upstreams.{}", upstream.name);
        match (client_tls(upstream), next.get_mut(&upstream.name)) {
            (Ok(Some(new)), Some(old)) => {
                applied.refused.remove(&what);
                if !new.is_same_as(old) {
                    *old = Arc::new(new);
                    renewed.push(&upstream.name);
                }
            }
            (Ok(_), _) => {}
            (Err(error), _) => refuse(&mut applied.refused, what, &error),
        }
    }
    if renewed.is_empty() {
        return;
    }
    let workers = control.registry().workers().len();
    let upstreams = applied.config.upstreams.iter();
    let upstreams = upstreams.map(|it| upstream_snapshot(it, next.get(&it.name), Some(applied), workers));
    // It can fail only by the names of endpoints, and those are the same as before.
    let upstreams = match upstreams.collect::<Result<Vec<_>, StartError>>() {
        Ok(upstreams) => upstreams,
        Err(error) => return refuse(&mut applied.refused, "upstreams".to_owned(), &error),
    };
    for upstream in renewed {
        tracing::info!(upstream, "certificates renewed");
    }
    let Snapshot { routes, drain_timeout, .. } = &*applied.snapshot;
    let (routes, drain_timeout, access) = (routes.clone(), *drain_timeout, applied.sink.clone());
    applied.snapshot = Arc::new(Snapshot { routes, upstreams, drain_timeout, access });
    applied.client_tls = next;
    control.crew.broadcast(|| Command::Apply(applied.snapshot.clone()));
}

/// Tells why the old ones are kept, unless that has been told.
fn refuse(refused: &mut std::collections::BTreeMap<String, String>, what: String, error: &StartError) {
    let why = error.to_string();
    if refused.get(&what) != Some(&why) {
        tracing::error!(why, "certificates not renewed, the old ones are kept");
        refused.insert(what, why);
    }
}
