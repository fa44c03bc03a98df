//! Small writes that wait to go out as one.
//!
//! h2 flushes after each DATA frame of 256 bytes or more, which would be a system call for each. Who drives it has it
//! write here, and sends what has been gathered at the end of its turn.
//!
//! Knows bytes, and no frames.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};

/// Bytes that have been taken, and not been written. Holds no memory while there are none.
#[derive(Debug, Default)]
pub(crate) struct Gathered(BytesMut);

impl Gathered {
    /// Takes all of `bufs`, if that is little and there is room; how many bytes it took.
    pub(crate) fn take(&mut self, bufs: &[IoSlice<'_>]) -> Option<usize> {
        let bytes = bufs.iter().map(|buf| buf.len()).sum::<usize>();
        if bytes > COPIED_BYTES_MAX || self.0.len() + bytes > BYTES_MAX {
            return None;
        }
        if self.0.capacity() - self.0.len() < bytes {
            // Once more than a first write has come, there will be many.
            self.0.reserve(if self.0.is_empty() { bytes } else { BYTES_MAX - self.0.len() });
        }
        for buf in bufs {
            self.0.extend_from_slice(buf);
        }
        Some(bytes)
    }

    /// Has `write` take what has been gathered, then `bufs`; ready with how much of `bufs` was taken.
    pub(crate) fn poll_write_behind(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
        mut write: impl FnMut(&mut Context<'_>, &[IoSlice<'_>]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        while self.0.has_remaining() {
            let mut all = [IoSlice::new(&[]); SLICES_MAX];
            let used = bufs.len().min(SLICES_MAX - 1);
            all[0] = IoSlice::new(&self.0);
            all[1..=used].copy_from_slice(&bufs[..used]);
            let mut written = ready!(write(cx, &all[..=used]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if written < self.0.len() {
                self.0.advance(written);
                continue;
            }
            written -= self.0.len();
            self.0 = BytesMut::new();
            if written > 0 {
                return Poll::Ready(Ok(written));
            }
        }
        if bufs.is_empty() { Poll::Ready(Ok(0)) } else { write(cx, bufs) }
    }
}

/// A larger write is not copied: it goes out at once, behind what has been gathered.
const COPIED_BYTES_MAX: usize = 9 * 1024;
/// As much as the usual socket buffer takes at once.
const BYTES_MAX: usize = 64 * 1024;
/// h2 writes a head and a payload; more slices than that wait for the next call.
const SLICES_MAX: usize = 8;
