//! HTTP/2 frames on their way to h2, without those that say nothing.
//!
//! h2 ends a connection, and every stream on it, at the 101st empty DATA frame of its life. Such a frame says nothing
//! unless it ends its stream, so it is taken out before h2 sees it. (Not one that is padded: its bytes count for the windows.)
//! Who has the socket is told of each frame, and may count them.
//!
//! Knows of frames only where they begin. RFC 9113 §4.1, §6.1.

use bytes::{Buf, BytesMut};

/// Where in a peer's bytes we are.
#[derive(Debug)]
pub(crate) struct FrameFilter {
    /// Bytes that may pass before the next frame's header.
    left_bytes: usize,
}

/// How a frame begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameHeader {
    pub(crate) length: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
}

impl FrameHeader {
    /// Empty DATA that does not end its stream.
    pub(crate) fn says_nothing(self) -> bool {
        self.length == 0 && self.kind == DATA && self.flags & END_STREAM == 0
    }
}

impl FrameFilter {
    /// So many bytes come before the first frame.
    pub(crate) const fn behind(bytes: usize) -> Self {
        Self { left_bytes: bytes }
    }

    /// What has passed ends within a frame, or within what comes before the first one.
    pub(crate) fn is_in_frame(&self) -> bool {
        self.left_bytes > 0
    }

    /// How many bytes of `ahead` may pass at once, `room` at most; none while a frame's header is incomplete.
    ///
    /// Takes frames that say nothing out of the beginning of `ahead`. `on_frame` is told of each frame once, those included.
    pub(crate) fn passable_bytes(
        &mut self,
        ahead: &mut BytesMut,
        room: usize,
        mut on_frame: impl FnMut(FrameHeader),
    ) -> usize {
        let mut passable = 0;
        loop {
            let step = self.left_bytes.min(ahead.len() - passable).min(room - passable);
            passable += step;
            self.left_bytes -= step;
            if self.left_bytes > 0 || passable == room {
                return passable;
            }
            let Some(&[a, b, c, kind, flags, ..]) = ahead[passable..].first_chunk::<HEADER_BYTES>() else {
                return passable;
            };
            let header = FrameHeader { length: u32::from_be_bytes([0, a, b, c]) as usize, kind, flags };
            if !header.says_nothing() {
                self.left_bytes = HEADER_BYTES + header.length;
            } else if passable == 0 {
                ahead.advance(HEADER_BYTES);
            } else {
                return passable;
            }
            on_frame(header);
        }
    }
}

const HEADER_BYTES: usize = 9;
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
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
            let (mut sent, mut wanted) = (b"PRI".to_vec(), b"PRI".to_vec());
            let headers = frames.iter().map(|(kind, flags, payload)| (payload.len(), *kind, *flags)).collect::<Vec<_>>();
            for (kind, flags, payload) in &frames {
                let frame = frame(*kind, *flags, payload);
                sent.extend(&frame);
                if !(*kind == DATA && payload.is_empty() && flags & END_STREAM == 0) {
                    wanted.extend(&frame);
                }
            }
            let (mut ahead, mut passed, mut told) = (BytesMut::new(), Vec::new(), Vec::new());
            for piece in sent.chunks(size) {
                ahead.extend_from_slice(piece);
                loop {
                    let bytes = filter.passable_bytes(&mut ahead, room, |it| told.push((it.length, it.kind, it.flags)));
                    if bytes == 0 {
                        break;
                    }
                    passed.extend(ahead.split_to(bytes));
                }
            }
            prop_assert_eq!((passed, told), (wanted, headers));
            prop_assert!(!filter.is_in_frame());
        }
    }
}
