//! Where one event of an event stream ends and the next may begin.
//!
//! Something of our own can be said on a stream of server-sent events, and the stream can end without harm, only between
//! two events: not behind a field whose event is still to be dispatched by its blank line. [`Boundary`] follows a stream
//! over whatever pieces it comes in.
//!
//! Pure. HTML, "Server-sent events", "Parsing an event stream".

/// How far a stream has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boundary {
    /// The next byte begins a line.
    is_line_start: bool,
    /// The line that has begun is a comment.
    is_comment: bool,
    /// Fields have come since the last blank line: a client waits for the rest of their event.
    has_fields: bool,
    /// The last byte was a carriage return, to which a line feed may belong.
    is_after_return: bool,
    /// Lines have ended with both.
    has_pairs: bool,
}

impl Default for Boundary {
    fn default() -> Self {
        Self { is_line_start: true, is_comment: false, has_fields: false, is_after_return: false, has_pairs: false }
    }
}

impl Boundary {
    /// Whether the stream stands between two events.
    pub const fn is_reached(&self) -> bool {
        // A blank line that ends with a carriage return ends there, unless the stream is in the habit of line feeds.
        self.is_line_start && !self.has_fields && !(self.is_after_return && self.has_pairs)
    }

    /// Follows `piece`; returns after how many of its bytes the stream last stood between two events.
    pub fn follow(&mut self, piece: &[u8]) -> Option<usize> {
        let mut last = None;
        for (position, byte) in piece.iter().enumerate() {
            self.step(*byte);
            if self.is_reached() {
                last = Some(position + 1);
            }
        }
        last
    }

    fn step(&mut self, byte: u8) {
        if std::mem::take(&mut self.is_after_return) && byte == b'\n' {
            self.has_pairs = true;
            return;
        }
        match byte {
            b'\r' | b'\n' => {
                let is_blank = self.is_line_start;
                self.has_fields = !is_blank && (self.has_fields || !self.is_comment);
                self.is_line_start = true;
                self.is_after_return = byte == b'\r';
            }
            _ if self.is_line_start => {
                self.is_line_start = false;
                self.is_comment = byte == b':';
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a client makes of a stream: the events that it dispatches, as their lines.
    fn dispatched(stream: &[u8]) -> Vec<Vec<Vec<u8>>> {
        let (mut events, mut lines, mut line) = (Vec::new(), Vec::new(), Vec::new());
        let mut bytes = stream.iter().copied().peekable();
        while let Some(byte) = bytes.next() {
            if !matches!(byte, b'\r' | b'\n') {
                line.push(byte);
                continue;
            }
            if byte == b'\r' {
                bytes.next_if_eq(&b'\n');
            }
            let line = std::mem::take(&mut line);
            match line.first() {
                None if lines.is_empty() => {}
                None => events.push(std::mem::take(&mut lines)),
                Some(b':') => {}
                Some(_) => lines.push(line),
            }
        }
        events
    }

    fn follow(pieces: &[&str]) -> (Boundary, Option<usize>) {
        let mut boundary = Boundary::default();
        let last = pieces.iter().map(|piece| boundary.follow(piece.as_bytes())).last().flatten();
        (boundary, last)
    }

    #[test]
    fn a_blank_line_ends_an_event_whatever_ends_the_lines() {
        for event in
            ["data: 1\n\n", "data: 1\r\n\r\n", "data: 1\r\r", "id: 1\r\ndata: 1\n\n", ": ping\n", ":\n\n", "\n"]
        {
            assert!(follow(&[event]).0.is_reached(), "{event:?}");
            for cut in 1..event.len() {
                let (head, tail) = event.split_at(cut);
                assert!(follow(&[head, tail]).0.is_reached(), "{head:?} {tail:?}");
            }
        }
    }

    #[test]
    fn a_stream_that_has_begun_an_event_is_inside_it() {
        for begun in ["d", "data: 1", "data: 1\n", "data: 1\r\n", "data: 1\n: ping\n", "data: 1\n\nid", ": ping", ":"] {
            assert!(!follow(&[begun]).0.is_reached(), "{begun:?}");
        }
    }

    #[test]
    fn the_line_feed_of_a_blank_line_is_waited_for_where_lines_end_with_both() {
        let (mut boundary, _) = follow(&["data: 1\r\n\r"]);
        assert!(!boundary.is_reached());
        assert_eq!(boundary.follow(b"\n"), Some(1));
    }

    #[test]
    fn the_last_boundary_of_a_piece_is_told() {
        assert_eq!(follow(&["data: 1\n", "\ndata: 2\n\ndata"]).1, Some(10));
        assert_eq!(follow(&["data: 1\n\n", "data: 2\n"]).1, None);
        assert_eq!(follow(&["data: 1\n\n"]).1, Some(9));
    }

    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let part =
            prop::sample::select(vec![&b"\n"[..], b"\r", b"\r\n", b":", b"data", b" ", b"id: 7", b"\xef\xbb\xbf"]);
        prop::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn a_comment_at_a_boundary_changes_no_event(stream in stream(), rest in stream()) {
            let mut boundary = Boundary::default();
            boundary.follow(&stream);
            let is_mark_moved = stream.is_empty() && rest.starts_with(b"\xef\xbb\xbf");
            if boundary.is_reached() && !is_mark_moved {
                let commented = [&stream[..], b":\n\n", &rest].concat();
                prop_assert_eq!(dispatched(&commented), dispatched(&[stream, rest].concat()));
            }
        }

        #[test]
        fn at_a_boundary_every_field_has_been_dispatched(stream in stream()) {
            let mut boundary = Boundary::default();
            boundary.follow(&stream);
            let whole = dispatched(&[&stream[..], b"\n\n"].concat());
            if boundary.is_reached() {
                prop_assert_eq!(dispatched(&stream), whole);
            }
        }

        #[test]
        fn pieces_do_not_matter(stream in stream(), cuts in prop::collection::vec(0..200_usize, 0..4)) {
            let mut whole = Boundary::default();
            let last = whole.follow(&stream);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (stream.len() + 1)).collect();
            cuts.push(stream.len());
            cuts.sort_unstable();
            let (mut boundary, mut from, mut last_in_pieces) = (Boundary::default(), 0, None);
            for cut in cuts {
                last_in_pieces = boundary.follow(&stream[from..cut]).map(|at| from + at).or(last_in_pieces);
                from = cut;
            }
            prop_assert_eq!((boundary, last_in_pieces), (whole, last));
        }
    }
}
