//! HTTP/2 frames on their way to h2, without those that say nothing.
//!
//! h2 ends a connection, and every stream on it, at the 101st empty DATA frame of its life. Such a frame says nothing
//! unless it ends its stream, so it is taken out before h2 sees it. (Not one that is padded: its bytes count for the windows.)
//!
//! Knows of frames only where they begin. RFC 9113 §4.1, §6.1.

use bytes::{Buf, BytesMut};

/// Where in a peer's bytes we are.
#[derive(Debug)]
pub(crate) struct FrameFilter {
    /// Bytes that may pass before the next frame's header.
    left_bytes: usize,
    messages: u64,
}

impl FrameFilter {
    /// So many bytes come before the first frame.
    pub(crate) const fn behind(bytes: usize) -> Self {
        Self { left_bytes: bytes, messages: 0 }
    }

    /// How many frames that belong to a message have begun to pass: HEADERS, and DATA that says something.
    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }

    /// How many bytes of `ahead` may pass at once, `room` at most; none while a frame's header is incomplete.
    ///
    /// Takes frames that say nothing out of the beginning of `ahead`.
    pub(crate) fn passable_bytes(&mut self, ahead: &mut BytesMut, room: usize) -> usize {
        let mut passable = 0;
        loop {
            let step = self.left_bytes.min(ahead.len() - passable).min(room - passable);
            passable += step;
            self.left_bytes -= step;
            if self.left_bytes > 0 || passable == room {
                return passable;
            }
            let Some(header) = ahead[passable..].first_chunk::<HEADER_BYTES>() else { return passable };
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            let says_nothing = length == 0 && header[3] == DATA && header[4] & END_STREAM == 0;
            if !says_nothing {
                self.left_bytes = HEADER_BYTES + length;
                self.messages += u64::from(matches!(header[3], DATA | HEADERS));
            } else if passable == 0 {
                ahead.advance(HEADER_BYTES);
            } else {
                return passable;
            }
        }
    }
}

const HEADER_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    proptest! {
        #[test]
        fn all_passes_but_empty_data_that_ends_nothing(
            frames in prop::collection::vec((0u8..3, 0u8..3, prop::collection::vec(any::<u8>(), 0..20)), 0..20),
            size in 1usize..30,
            room in 1usize..30,
        ) {
            let mut filter = FrameFilter::behind(3);
            let (mut sent, mut wanted, mut messages) = (b"PRI".to_vec(), b"PRI".to_vec(), 0);
            for (kind, flags, payload) in &frames {
                let frame = frame(*kind, *flags, payload);
                sent.extend(&frame);
                if !(*kind == DATA && payload.is_empty() && flags & END_STREAM == 0) {
                    wanted.extend(&frame);
                    messages += u64::from(*kind <= HEADERS);
                }
            }
            let (mut ahead, mut passed) = (BytesMut::new(), Vec::new());
            for piece in sent.chunks(size) {
                ahead.extend_from_slice(piece);
                loop {
                    let bytes = filter.passable_bytes(&mut ahead, room);
                    if bytes == 0 {
                        break;
                    }
                    passed.extend(ahead.split_to(bytes));
                }
            }
            prop_assert_eq!((passed, filter.messages()), (wanted, messages));
        }
    }
}
