//! The files that certificates come from, watched: whoever asked is told when one of them may hold something else.
//!
//! Folders are watched, not files: a file is replaced by a rename more often than it is written, and Kubernetes swaps
//! the link `..data` in the folder that the files' own links lead through. So each link on the way to a file counts as
//! the file does, and the way is walked anew after each change.
//!
//! Runs on control; the events come on a thread of the watcher's own. Knows no certificates.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

/// Tells of changes to some files.
pub(super) struct Watch {
    changed: Arc<Notify>,
    files: BTreeSet<PathBuf>,
    /// What decides what the files hold: they, and the links and missing folders on the way to them.
    entries: Arc<Mutex<BTreeSet<PathBuf>>>,
    folders: BTreeSet<PathBuf>,
    /// Made when there is something to watch.
    watcher: Option<RecommendedWatcher>,
    /// The system does not tell of changes.
    is_blind: bool,
}

impl Watch {
    /// `changed` is told, once for however many changes it has not been asked about.
    pub(super) fn new(changed: Arc<Notify>) -> Self {
        Self {
            changed,
            files: BTreeSet::new(),
            entries: Arc::default(),
            folders: BTreeSet::new(),
            watcher: None,
            is_blind: false,
        }
    }

    /// Watches `files` from now on. What they hold must be looked at after this, not before.
    pub(super) fn follow(&mut self, files: BTreeSet<PathBuf>) {
        let entries: BTreeSet<_> = files.iter().flat_map(|file| way(file)).collect();
        let folders: BTreeSet<_> = entries.iter().filter_map(|entry| entry.parent().map(Path::to_owned)).collect();
        self.files = files;
        // That a folder itself goes away is told under its own name.
        let all = entries.into_iter().chain(folders.iter().cloned()).collect();
        *self.entries.lock().unwrap_or_else(PoisonError::into_inner) = all;
        if let Err(error) = self.watch(folders) {
            if !self.is_blind {
                tracing::warn!(%error, "changed certificates are looked for every {LOOK_INTERVAL:?}: the system does not tell of them");
            }
            self.is_blind = true;
        } else {
            self.is_blind = false;
        }
    }

    fn watch(&mut self, folders: BTreeSet<PathBuf>) -> notify::Result<()> {
        if folders.is_empty() && self.watcher.is_none() {
            return Ok(());
        }
        let watcher = match &mut self.watcher {
            Some(watcher) => watcher,
            None => self.watcher.insert(watcher(self.changed.clone(), self.entries.clone())?),
        };
        // Also those that are watched already: under the same name may be another folder.
        for folder in std::mem::take(&mut self.folders) {
            // Fails for a folder that is gone, and then it is not watched any more.
            let _ = watcher.unwatch(&folder);
        }
        for folder in folders {
            watcher.watch(&folder, RecursiveMode::NonRecursive)?;
            self.folders.insert(folder);
        }
        Ok(())
    }

    /// When to look without having been told.
    pub(super) fn look_interval(&self) -> Option<Duration> {
        (self.is_blind && !self.files.is_empty()).then_some(LOOK_INTERVAL)
    }
}

/// Resolves when `changed` has been told, and nothing more has come for a moment: a certificate and its key are two files.
pub(super) async fn settled(changed: &Notify) {
    changed.notified().await;
    let end = tokio::time::Instant::now() + SETTLED_AT_LAST;
    while tokio::time::timeout(SETTLED_AFTER, changed.notified()).await.is_ok() && tokio::time::Instant::now() < end {}
}

fn watcher(changed: Arc<Notify>, entries: Arc<Mutex<BTreeSet<PathBuf>>>) -> notify::Result<RecommendedWatcher> {
    notify::recommended_watcher(move |event: notify::Result<Event>| {
        let is_meant = match &event {
            Ok(event) => {
                let entries = entries.lock().unwrap_or_else(PoisonError::into_inner);
                event.need_rescan() || is_change(event.kind) && event.paths.iter().any(|path| entries.contains(path))
            }
            // Events may have been lost.
            Err(_) => true,
        };
        if is_meant {
            changed.notify_one();
        }
    })
}

/// Reading a file is an event too.
fn is_change(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(_)) || kind == EventKind::Access(AccessKind::Close(AccessMode::Write))
}

/// Each directory entry that decides what `file` holds: the links on the way to it, the file that they lead to, and
/// whatever is missing there.
fn way(file: &Path) -> Vec<PathBuf> {
    let mut entries = Vec::new();
    let Ok(mut path) = std::path::absolute(file) else { return entries };
    'links: for _ in 0..LINKS_MAX {
        let mut walked = PathBuf::new();
        let mut rest = path.components();
        while let Some(part) = rest.next() {
            walked.push(part);
            if let Ok(target) = std::fs::read_link(&walked) {
                entries.push(walked.clone());
                walked.pop();
                path = walked.join(target).join(rest.as_path());
                continue 'links;
            }
        }
        break;
    }
    while let Some(folder) = path.parent().map(Path::to_owned)
        && !folder.exists()
    {
        entries.push(std::mem::replace(&mut path, folder));
    }
    entries.push(path);
    entries
}

/// A tool that writes a certificate and then its key is done by then.
const SETTLED_AFTER: Duration = Duration::from_millis(200);
/// In a folder that never comes to rest.
const SETTLED_AT_LAST: Duration = Duration::from_secs(2);
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// As many as Linux follows.
const LINKS_MAX: usize = 40;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_way_to_a_file_is_each_link_and_the_file_itself() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("..one")).unwrap();
        std::fs::write(root.join("..one/tls.crt"), "").unwrap();
        symlink("..one", root.join("..data")).unwrap();
        symlink("..data/tls.crt", root.join("tls.crt")).unwrap();
        assert_eq!(way(&root.join("tls.crt")), ["tls.crt", "..data", "..one/tls.crt"].map(|name| root.join(name)));
    }

    #[test]
    fn the_way_to_what_is_missing_is_what_would_have_to_be_made() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        assert_eq!(way(&root.join("a/b/tls.crt")), ["a/b/tls.crt", "a/b", "a"].map(|name| root.join(name)));
    }

    #[test]
    fn links_in_a_circle_end() {
        let folder = tempfile::tempdir().unwrap();
        symlink("b", folder.path().join("a")).unwrap();
        symlink("a", folder.path().join("b")).unwrap();
        assert!(way(&folder.path().join("a")).len() <= LINKS_MAX + 1);
    }

    #[tokio::test]
    async fn a_changed_file_is_told_and_its_neighbour_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (file, neighbour) = (folder.path().join("a"), folder.path().join("b"));
        std::fs::write(&file, "one").unwrap();
        let changed = Arc::new(Notify::new());
        let mut watch = Watch::new(changed.clone());
        watch.follow(BTreeSet::from([file.clone()]));
        std::fs::write(&neighbour, "two").unwrap();
        assert!(std::fs::read(&file).is_ok());
        assert!(tokio::time::timeout(Duration::from_millis(300), changed.notified()).await.is_err());
        std::fs::write(&file, "three").unwrap();
        tokio::time::timeout(Duration::from_secs(10), changed.notified()).await.unwrap();
    }
}
