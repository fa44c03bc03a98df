//! Where WebSocket frames begin and end in a stream of bytes.
//!
//! Only lengths and opcodes are looked at, never payloads: a frame of ours may go between two others, whatever the
//! extensions (RFC 6455 §5.2, §5.4; extensions change payloads and reserved bits, not the framing).
//!
//! Pure.

/// The place in a stream of frames.
#[derive(Debug, Clone, Default)]
pub(super) struct Frames {
    /// The present frame's header, as far as it has come.
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: usize,
    /// Of the present frame's payload.
    left_bytes: u64,
    /// A Close frame has begun: no other may follow it.
    is_closed: bool,
}

impl Frames {
    /// Moves on by `bytes`.
    pub(super) fn advance(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.end_of_frame(bytes)..];
        }
    }

    /// How many of the `bytes` to come belong to a frame that has begun; all of them if it does not end there.
    pub(super) fn begun_bytes(&self, bytes: &[u8]) -> usize {
        if self.is_between() { 0 } else { self.clone().end_of_frame(bytes) }
    }

    /// The last frame has ended, and no other has begun.
    pub(super) fn is_between(&self) -> bool {
        self.header_bytes == 0
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Moves to the end of the present frame, or of the next one; how far that is, or all of `bytes`.
    fn end_of_frame(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while self.header_bytes < header_length(&self.header[..self.header_bytes]) {
            let Some(byte) = bytes.get(at) else { return at };
            self.header[self.header_bytes] = *byte;
            self.header_bytes += 1;
            at += 1;
            let header = &self.header[..self.header_bytes];
            if header.len() == header_length(header) {
                self.left_bytes = payload_length(header);
                self.is_closed |= header[0] & OPCODE == CLOSE;
            }
        }
        let step = self.left_bytes.min((bytes.len() - at) as u64);
        self.left_bytes -= step;
        if self.left_bytes == 0 {
            self.header_bytes = 0;
        }
        at + step as usize
    }
}

/// How long a frame's header is, as far as its first bytes tell.
fn header_length(header: &[u8]) -> usize {
    let Some(second) = header.get(1) else { return 2 };
    let length = match second & LENGTH {
        LENGTH_IN_16_BITS => 4,
        LENGTH_IN_64_BITS => 10,
        _ => 2,
    };
    if second & MASKED == 0 { length } else { length + 4 }
}

fn payload_length(header: &[u8]) -> u64 {
    let extended = |bytes: &[u8]| bytes.iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
    match header[1] & LENGTH {
        LENGTH_IN_16_BITS => extended(&header[2..4]),
        LENGTH_IN_64_BITS => extended(&header[2..10]),
        length => u64::from(length),
    }
}

const OPCODE: u8 = 0x0f;
const CLOSE: u8 = 0x08;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;
const LENGTH_IN_16_BITS: u8 = 126;
const LENGTH_IN_64_BITS: u8 = 127;
const HEADER_BYTES_MAX: usize = 14;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame, written independently of what reads it.
    fn frame(opcode: u8, payload: usize, is_masked: bool) -> Vec<u8> {
        let mask = if is_masked { 0x80 } else { 0 };
        let mut bytes = vec![0x80 | opcode];
        match payload {
            0..126 => bytes.push(mask | payload as u8),
            126..65536 => {
                bytes.push(mask + 126);
                bytes.extend((payload as u16).to_be_bytes());
            }
            _ => {
                bytes.push(mask + 127);
                bytes.extend((payload as u64).to_be_bytes());
            }
        }
        if is_masked {
            bytes.extend([1, 2, 3, 4]);
        }
        // Looks like the header of a Close frame wherever it is taken for one.
        bytes.extend(std::iter::repeat_n(0x88, payload));
        bytes
    }

    fn any_frame() -> impl Strategy<Value = Vec<u8>> {
        let payload = prop_oneof![0usize..4, 120usize..130, 65_530usize..65_540];
        (prop_oneof![0u8..3, 9u8..11], payload, any::<bool>()).prop_map(|(o, p, m)| frame(o, p, m))
    }

    proptest! {
        #[test]
        fn every_end_of_a_frame_is_found_however_the_bytes_come(
            frames in prop::collection::vec(any_frame(), 1..6),
            cuts in prop::collection::vec(1usize..70_000, 0..12),
        ) {
            let bytes = frames.concat();
            let mut ends = vec![0];
            for frame in &frames {
                ends.push(ends[ends.len() - 1] + frame.len());
            }
            let (mut place, mut at) = (Frames::default(), 0);
            let mut cuts = cuts.into_iter().map(|cut| cut % 97 + 1).cycle();
            while at < bytes.len() {
                prop_assert_eq!(place.is_between(), ends.contains(&at));
                let next = *ends.iter().find(|end| **end >= at).unwrap();
                prop_assert_eq!(place.begun_bytes(&bytes[at..]), next - at);
                let step = cuts.next().unwrap_or(1_000).min(bytes.len() - at);
                prop_assert_eq!(place.begun_bytes(&bytes[at..at + step]), (next - at).min(step));
                place.advance(&bytes[at..at + step]);
                at += step;
            }
            prop_assert!(place.is_between() && !place.is_closed());
        }

        #[test]
        fn any_bytes_at_all_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut place = Frames::default();
            place.advance(&bytes);
            prop_assert!(place.begun_bytes(&bytes) <= bytes.len());
        }
    }

    #[test]
    fn a_close_frame_is_noticed_by_its_header_and_not_by_a_payload() {
        let mut place = Frames::default();
        place.advance(&frame(2, 3, false));
        assert!(!place.is_closed());
        place.advance(&frame(8, 2, false)[..2]);
        assert!(place.is_closed() && !place.is_between());
    }
}
