//! What the services serve: a folder with a short and a long file.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A folder that goes with its owner.
pub struct Files {
    folder: TempDir,
    pub large: Vec<u8>,
}

impl Files {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Workers of a service that root has started run as somebody else.
        let everyone = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o777);
        fs::set_permissions(folder.path(), everyone).unwrap();
        let large = noise(1024 * 1024);
        fs::write(folder.path().join("small"), SMALL).unwrap();
        fs::write(folder.path().join("large"), &large).unwrap();
        Self { folder, large }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.folder.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

pub const SMALL: &str = "sixty-five bytes, the size of the answers in the tables of speed.\n";

/// Bytes of which no two stretches are alike, so that a lost, doubled or moved piece shows (xorshift).
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.by_ref().take(bytes / 8).flatten().collect()
}
