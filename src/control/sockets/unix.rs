//! A Unix socket that clients connect to: its file comes with it, and goes with it.
//!
//! A file that was left behind by a process which has ended is replaced; a socket at which somebody answers is not, and
//! neither is any other file. The file's mode follows from the umask.
//!
//! To look and to bind are two steps, and a socket that is bound answers only when it listens. So the folder is locked
//! (flock(2)) for the moment that this takes: of two processes that start at once, the second sees that the first is there.
//!
//! Runs on control, or on whoever starts the process.

use std::fs::{self, File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::super::StartError;
use super::listening;
use crate::config::ListenAddress;

/// A path that this process listens on. Dropping it removes the file, if it is still the one that was made here.
pub(in crate::control) struct UnixBinding {
    socket: UnixListener,
    path: PathBuf,
    file: FileId,
}

impl UnixBinding {
    /// # Errors
    /// The path cannot be had.
    pub(in crate::control) fn new(what: &str, path: &Path) -> Result<Self, StartError> {
        Self::bind(path).map_err(|error| StartError::Bind {
            what: what.to_owned(),
            address: ListenAddress::Unix(path.to_owned()),
            error,
        })
    }

    fn bind(path: &Path) -> io::Result<Self> {
        let _lock = locked(path.parent().unwrap_or(path))?;
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, OTHER_FILE));
            }
            Ok(_) if is_answering(path)? => return Err(io::ErrorKind::AddrInUse.into()),
            Ok(_) => fs::remove_file(path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        let file = FileId::of(&fs::symlink_metadata(path)?);
        Ok(Self { socket: listening(socket)?, path: path.to_owned(), file })
    }

    /// One more descriptor of the socket.
    pub(in crate::control) fn share(&self) -> io::Result<UnixListener> {
        self.socket.try_clone()
    }
}

impl Drop for UnixBinding {
    fn drop(&mut self) {
        // A successor may have put its own there.
        if fs::symlink_metadata(&self.path).is_ok_and(|found| FileId::of(&found) == self.file) {
            // Whatever keeps it, the next one to come replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The lock of a folder, as long as the file lives. None of us holds it for longer than a moment; whoever else has locked
/// the folder for longer does not keep us from serving.
fn locked(folder: &Path) -> io::Result<File> {
    let folder = File::open(folder).map_err(|error| {
        let what = format!("its folder {}: {error}; make it first", folder.display());
        if error.kind() == io::ErrorKind::NotFound { io::Error::new(error.kind(), what) } else { error }
    })?;
    let end = Instant::now() + LOCK_TIMEOUT;
    while let Err(TryLockError::WouldBlock) = folder.try_lock()
        && Instant::now() < end
    {
        std::thread::sleep(LOCK_POLL);
    }
    Ok(folder)
}

/// What tells a file from another one that has the same path later.
#[derive(PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// Whether somebody listens at a socket's file.
fn is_answering(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A full backlog must not hold us up: it has an owner.
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock => Ok(true),
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Ok(false),
            _ => Err(error),
        },
    }
}

const OTHER_FILE: &str = "another file is there, which is no socket: remove it, or write another path";
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
const LOCK_POLL: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &Path) -> String {
        UnixBinding::new("listener a", path).err().expect("an error").to_string()
    }

    #[test]
    fn a_file_that_nobody_answers_at_is_replaced_and_removed_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        // What a process leaves behind that was killed.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let binding = UnixBinding::bind(&path).unwrap();
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        drop(binding);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_at_which_somebody_answers_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let _owner = UnixListener::bind(&path).unwrap();
        let said = refusal(&path);
        assert!(said.starts_with("listener a: unix:/") && said.contains("is in use by another process"), "{said}");
        std::os::unix::net::UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn of_many_who_come_at_one_moment_one_has_it_and_answers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        for _ in 0..200 {
            // What was left behind is removed by each that finds it.
            drop(UnixListener::bind(&path).unwrap());
            let bound = std::thread::scope(|scope| {
                let all: Vec<_> = (0..4).map(|_| scope.spawn(|| UnixBinding::bind(&path).ok())).collect();
                all.into_iter().filter_map(|one| one.join().unwrap()).collect::<Vec<_>>()
            });
            assert_eq!(bound.len(), 1);
            std::os::unix::net::UnixStream::connect(&path).unwrap();
        }
    }

    #[test]
    fn a_folder_that_somebody_else_has_locked_keeps_nobody_from_serving() {
        let folder = tempfile::tempdir().unwrap();
        let lock = File::open(folder.path()).unwrap();
        lock.lock().unwrap();
        assert!(UnixBinding::bind(&folder.path().join("s")).is_ok());
    }

    #[test]
    fn what_is_no_socket_is_never_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        fs::write(&path, "precious").unwrap();
        let said = refusal(&path);
        assert!(
            said.ends_with("another file is there, which is no socket: remove it, or write another path"),
            "{said}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        let said = refusal(&folder.path().join("none/s"));
        assert!(said.contains("cannot listen on unix:/") && said.ends_with("; make it first"), "{said}");
    }

    #[test]
    fn the_file_of_a_successor_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let binding = UnixBinding::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _successor = UnixListener::bind(&path).unwrap();
        drop(binding);
        assert!(path.exists());
    }
}
