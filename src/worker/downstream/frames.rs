//! The frames of an HTTP/2 client as they pass: whether one is incomplete, and how many ask for nothing.
//!
//! h2 reads frames and keeps its own limits, but does not tell that it waits for the rest of a head, and answers any
//! number of PING and SETTINGS. Only the nine bytes before each frame are looked at.
//!
//! Lives on one worker. Knows no streams. RFC 9113 §4.1, §6.2, §10.5.

use std::cell::Cell;
use std::rc::Rc;

use tokio::time::Instant;

use super::super::frame_filter::{DATA, FrameHeader, HEADERS};

/// What is known of a client's frames.
pub(super) struct Frames {
    /// All that has come has passed: h2 waits for more. It may leave frames for later while it cannot write.
    is_waiting: Cell<bool>,
    block: Cell<Block>,
    /// What has come ends within the preface or a frame.
    is_in_frame: Cell<bool>,
    /// Header blocks that have begun.
    heads: Cell<u64>,
    /// Frames that may still come although they ask for nothing.
    idle_left: Cell<u32>,
    /// Up to when `idle_left` has been filled up.
    filled_at: Cell<Instant>,
}

/// What the present frame means for a header block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    None,
    /// Another frame must follow.
    Open,
    /// It is the block's last.
    Last,
}

impl Frames {
    pub(super) fn new(now: Instant) -> Rc<Self> {
        Rc::new(Self {
            is_waiting: Cell::new(true),
            block: Cell::new(Block::None),
            is_in_frame: Cell::new(true),
            heads: Cell::new(0),
            idle_left: Cell::new(IDLE_MAX),
            filled_at: Cell::new(now),
        })
    }

    /// Part of a request's head has come, and the rest has not.
    pub(super) fn is_in_head(&self) -> bool {
        self.is_waiting.get() && self.block.get() != Block::None
    }

    /// How many heads have begun.
    pub(super) fn heads(&self) -> u64 {
        self.heads.get()
    }

    /// Part of the preface, of a frame or of a head has come, and the rest has not.
    pub(super) fn is_incomplete(&self) -> bool {
        self.is_waiting.get() && self.is_in_frame.get() || self.is_in_head()
    }

    /// More frames that ask for nothing have come than any client needs.
    pub(super) fn is_flooded(&self) -> bool {
        self.idle_left.get() == 0
    }

    /// The flood has been dealt with.
    pub(super) fn forgive(&self) {
        self.idle_left.set(IDLE_MAX);
    }

    /// A frame has come, or at least its header.
    pub(super) fn begin(&self, frame: FrameHeader) {
        self.end_frame();
        let is_idle = match frame.kind {
            HEADERS | CONTINUATION => {
                self.heads.set(self.heads.get() + u64::from(frame.kind == HEADERS));
                self.block.set(if frame.flags & END_HEADERS == 0 { Block::Open } else { Block::Last });
                // Continuing without end is asking for nothing, too.
                frame.kind == CONTINUATION
            }
            DATA => frame.says_nothing(),
            RST_STREAM | WINDOW_UPDATE => false,
            _ => true,
        };
        if is_idle {
            self.count_idle();
        }
    }

    /// All that has come has passed; whether that ends within a frame.
    pub(super) fn pause(&self, is_in_frame: bool) {
        self.is_waiting.set(true);
        self.is_in_frame.set(is_in_frame);
        if !is_in_frame {
            self.end_frame();
        }
    }

    /// Something has come, which has still to pass.
    pub(super) fn resume(&self) {
        self.is_waiting.set(false);
    }

    fn end_frame(&self) {
        if self.block.get() == Block::Last {
            self.block.set(Block::None);
        }
    }

    fn count_idle(&self) {
        if self.idle_left.get() <= 1 {
            self.fill(Instant::now());
        }
        self.idle_left.set(self.idle_left.get().saturating_sub(1));
    }

    fn fill(&self, now: Instant) {
        let since = now.saturating_duration_since(self.filled_at.replace(now));
        let more = since.as_millis() * u128::from(IDLE_PER_SECOND) / 1000;
        let left = u128::from(self.idle_left.get()) + more;
        self.idle_left.set(u32::try_from(left).map_or(IDLE_MAX, |left| left.min(IDLE_MAX)));
    }
}

const RST_STREAM: u8 = 3;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// PING, SETTINGS, PRIORITY, CONTINUATION, unknown frames and empty DATA: so many at once, and so many per second from then on. A
/// gRPC client that measures a fast link sends some hundreds of PINGs per second for a moment.
const IDLE_MAX: u32 = 10_000;
const IDLE_PER_SECOND: u64 = 1000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn frames() -> Rc<Frames> {
        let frames = Frames::new(Instant::now());
        frames.pause(false);
        frames
    }

    fn header(kind: u8, flags: u8, length: usize) -> FrameHeader {
        FrameHeader { length, kind, flags }
    }

    #[test]
    fn a_preface_a_frame_or_a_block_may_be_incomplete() {
        let is = |frames: &Frames| (frames.is_incomplete(), frames.is_in_head());
        assert_eq!(is(&Frames::new(Instant::now())), (true, false));
        let frames = frames();
        assert_eq!(is(&frames), (false, false));
        // A part of a header.
        frames.pause(true);
        assert_eq!(is(&frames), (true, false));
        frames.begin(header(HEADERS, 0, 3));
        frames.pause(true);
        assert_eq!(is(&frames), (true, true));
        // All of the frame, and yet not all of the block.
        frames.pause(false);
        assert_eq!(is(&frames), (true, true));
        frames.begin(header(CONTINUATION, END_HEADERS, 3));
        frames.pause(true);
        assert_eq!(is(&frames), (true, true));
        frames.pause(false);
        assert_eq!(is(&frames), (false, false));
        frames.begin(header(HEADERS, END_HEADERS, 3));
        frames.begin(header(DATA, 0, 3));
        frames.pause(true);
        assert_eq!(is(&frames), (true, false));
        assert_eq!(frames.heads(), 2);
    }

    #[test]
    fn what_h2_leaves_for_later_has_come_whole() {
        let frames = frames();
        frames.resume();
        frames.begin(header(6, 0, 8));
        frames.begin(header(HEADERS, END_HEADERS, 3));
        assert_eq!((frames.is_incomplete(), frames.is_in_head()), (false, false));
        frames.pause(true);
        assert_eq!((frames.is_incomplete(), frames.is_in_head()), (true, true));
    }

    #[test]
    fn only_frames_that_ask_for_nothing_are_counted() {
        let is_flooded_by = |kind: u8, length| {
            let frames = frames();
            (0..20_000).for_each(|_| frames.begin(header(kind, END_HEADERS, length)));
            frames.is_flooded()
        };
        for ping_settings_priority_continuation_unknown in [6, 4, 2, 9, 77] {
            assert!(is_flooded_by(ping_settings_priority_continuation_unknown, 8));
        }
        assert!(is_flooded_by(DATA, 0));
        for asks in [DATA, HEADERS, RST_STREAM, WINDOW_UPDATE] {
            assert!(!is_flooded_by(asks, 8));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_slowly_is_no_flood() {
        let frames = frames();
        for _ in 0..60 {
            (0..900).for_each(|_| frames.begin(header(6, 0, 8)));
            assert!(!frames.is_flooded());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
    }
}
