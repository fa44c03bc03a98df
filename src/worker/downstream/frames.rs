//! The frames of an HTTP/2 client as they pass: whether one is incomplete, and how many ask for nothing.
//!
//! h2 reads frames and keeps its own limits, but does not tell that it waits for the rest of a head, and answers any
//! number of PING and SETTINGS. Only the nine bytes before each frame are looked at. Empty DATA frames, of which h2 bears
//! a hundred in a connection's life, are counted here and kept from it.
//!
//! Lives on one worker. Knows no streams. RFC 9113 §4.1, §6.2, §10.5.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::time::Instant;

use super::preface::PREFACE;

/// What is known of a client's frames.
pub(super) struct Frames {
    reading: RefCell<Reading>,
    /// Frames that may still come although they ask for nothing.
    idle_left: Cell<u32>,
    /// Up to when `idle_left` has been filled up.
    filled_at: Cell<Instant>,
}

/// Where in the client's bytes we are.
struct Reading {
    /// Bytes of the preface, or of the present frame behind its head, that are still to come.
    skip: usize,
    head: [u8; HEAD_BYTES],
    head_length: usize,
    /// A header block has begun and not ended.
    is_in_head: bool,
    /// The present frame ends it.
    ends_head: bool,
    /// Header blocks that have begun.
    heads: u64,
}

impl Frames {
    pub(super) fn new(now: Instant) -> Rc<Self> {
        let reading = Reading {
            skip: PREFACE.len(),
            head: [0; HEAD_BYTES],
            head_length: 0,
            is_in_head: false,
            ends_head: false,
            heads: 0,
        };
        Rc::new(Self { reading: RefCell::new(reading), idle_left: Cell::new(IDLE_MAX), filled_at: Cell::new(now) })
    }

    /// Part of a request's head has come, and the rest has not.
    pub(super) fn is_in_head(&self) -> bool {
        self.reading.borrow().is_in_head
    }

    /// How many heads have begun.
    pub(super) fn heads(&self) -> u64 {
        self.reading.borrow().heads
    }

    /// Part of the preface, of a frame or of a head has come, and the rest has not.
    pub(super) fn is_incomplete(&self) -> bool {
        let reading = self.reading.borrow();
        reading.skip > 0 || reading.head_length > 0 || reading.is_in_head
    }

    /// More frames that ask for nothing have come than any client needs.
    pub(super) fn is_flooded(&self) -> bool {
        self.idle_left.get() == 0
    }

    /// The flood has been dealt with.
    pub(super) fn forgive(&self) {
        self.idle_left.set(IDLE_MAX);
    }

    /// Something has come.
    pub(super) fn read(&self, bytes: &[u8]) {
        let idle = self.reading.borrow_mut().read(bytes);
        if idle == 0 {
            return;
        }
        if self.idle_left.get() <= idle {
            self.fill(Instant::now());
        }
        self.idle_left.set(self.idle_left.get().saturating_sub(idle));
    }

    fn fill(&self, now: Instant) {
        let since = now.saturating_duration_since(self.filled_at.replace(now));
        let more = since.as_millis() * u128::from(IDLE_PER_SECOND) / 1000;
        let left = u128::from(self.idle_left.get()) + more;
        self.idle_left.set(u32::try_from(left).map_or(IDLE_MAX, |left| left.min(IDLE_MAX)));
    }
}

impl Reading {
    /// Passes over `bytes`; returns how many frames among them ask for nothing.
    fn read(&mut self, mut bytes: &[u8]) -> u32 {
        let mut idle = 0;
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if self.skip == 0 && std::mem::take(&mut self.ends_head) {
                self.is_in_head = false;
            }
            if bytes.is_empty() {
                return idle;
            }
            let taken = (HEAD_BYTES - self.head_length).min(bytes.len());
            self.head[self.head_length..self.head_length + taken].copy_from_slice(&bytes[..taken]);
            self.head_length += taken;
            bytes = &bytes[taken..];
            if self.head_length == HEAD_BYTES {
                idle += u32::from(self.begin_frame());
            }
        }
    }

    /// Whether the frame asks for nothing.
    fn begin_frame(&mut self) -> bool {
        let [a, b, c, kind, flags, ..] = self.head;
        self.head_length = 0;
        self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        match kind {
            HEADERS | CONTINUATION => {
                self.heads += u64::from(kind == HEADERS);
                self.is_in_head = true;
                self.ends_head = flags & END_HEADERS != 0;
                // Continuing without end is asking for nothing, too.
                kind == CONTINUATION
            }
            DATA => self.skip == 0 && flags & END_STREAM == 0,
            RST_STREAM | WINDOW_UPDATE => false,
            _ => true,
        }
    }
}

const HEAD_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// PING, SETTINGS, PRIORITY, CONTINUATION, unknown frames and empty DATA: so many at once, and so many per second from then on. A
/// gRPC client that measures a fast link sends some hundreds of PINGs per second for a moment.
const IDLE_MAX: u32 = 10_000;
const IDLE_PER_SECOND: u64 = 1000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn frames(bytes: &[u8]) -> Rc<Frames> {
        let frames = Frames::new(Instant::now());
        frames.read(PREFACE);
        frames.read(bytes);
        frames
    }

    #[test]
    fn a_preface_a_frame_or_a_block_may_be_incomplete() {
        assert!(Frames::new(Instant::now()).is_incomplete() && !frames(&[]).is_incomplete());
        let head = frame(HEADERS, 0, b"abc");
        assert!(frames(&head[..5]).is_incomplete() && !frames(&head[..5]).is_in_head());
        assert!(frames(&head[..11]).is_in_head());
        // All of the frame, and yet not all of the block.
        assert!(frames(&head).is_in_head() && frames(&head).is_incomplete());
        assert!(!frames(&[head, frame(CONTINUATION, END_HEADERS, b"def")].concat()).is_incomplete());
        assert!(!frames(&frame(HEADERS, END_HEADERS, &[])).is_incomplete());
        let data = frame(DATA, 0, b"abc");
        assert!(frames(&data[..10]).is_incomplete() && !frames(&data[..10]).is_in_head());
    }

    #[test]
    fn only_frames_that_ask_for_nothing_are_counted() {
        let of = |kind: u8| {
            let sent: Vec<u8> = std::iter::repeat_n(frame(kind, END_HEADERS, &[0; 8]), 20_000).flatten().collect();
            frames(&sent).is_flooded()
        };
        for ping_settings_priority_continuation_unknown in [6, 4, 2, 9, 77] {
            assert!(of(ping_settings_priority_continuation_unknown));
        }
        for asks in [DATA, HEADERS, RST_STREAM, WINDOW_UPDATE] {
            assert!(!of(asks));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_slowly_is_no_flood() {
        let frames = frames(&[]);
        for _ in 0..60 {
            frames.read(&std::iter::repeat_n(frame(6, 0, &[0; 8]), 900).flatten().collect::<Vec<u8>>());
            assert!(!frames.is_flooded());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_come(
            payloads in prop::collection::vec((0u8..12, 0u8..8, prop::collection::vec(any::<u8>(), 0..40)), 0..20),
            size in 1usize..20,
        ) {
            let bytes: Vec<u8> = payloads.iter().flat_map(|(kind, flags, payload)| frame(*kind, *flags, payload)).collect();
            let whole = frames(&bytes);
            let parts = frames(&[]);
            bytes.chunks(size).for_each(|part| parts.read(part));
            prop_assert_eq!(whole.is_incomplete(), parts.is_incomplete());
            prop_assert_eq!(whole.idle_left.get(), parts.idle_left.get());
        }
    }
}
