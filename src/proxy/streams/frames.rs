//! The frames of a WebSocket (RFC 6455 section 5.2) as they pass: where one ends, and whether it closes.
//!
//! Nothing is copied and nothing is checked: both sides do that themselves. What is wanted is the next place
//! where a frame of ours may stand between two of theirs. A control frame may stand between the fragments of a
//! message, so every boundary of frames is such a place.

/// The status that a client gets: its server restarts, and it is to come back.
pub(crate) const SERVICE_RESTART: u16 = 1012;
/// The status that a worker gets: to it the client has left, as when its page was closed.
pub(crate) const GOING_AWAY: u16 = 1001;

/// The first byte of a whole Close frame.
const CLOSE: u8 = 0x88;
const OPCODE: u8 = 0x0f;
const CLOSE_OPCODE: u8 = 0x08;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;

/// How far one direction was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frames {
    at: At,
    /// The frame that passes is a Close frame.
    closes: bool,
    closed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Between two frames.
    Boundary,
    /// The byte with the length comes.
    Length,
    /// So many bytes of the extended length come, then so many of the mask; the value so far.
    Extended { left: u8, mask: u8, value: u64 },
    /// So many bytes of mask and payload come.
    Rest(u64),
}

impl Frames {
    pub(crate) fn new() -> Self {
        Self { at: At::Boundary, closes: false, closed: false }
    }

    /// Whether a frame could stand here.
    pub(crate) fn at_boundary(&self) -> bool {
        self.at == At::Boundary
    }

    /// Whether a whole Close frame has passed: nothing follows it.
    pub(crate) fn closed(&self) -> bool {
        self.closed
    }

    /// Notes that `bytes` pass.
    pub(crate) fn pass(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            at += self.pass_frame(&bytes[at..]);
        }
    }

    /// How many of the next bytes lie before the next boundary: all of them if it is further away, none if it
    /// is here.
    pub(crate) fn before_boundary(&self, bytes: &[u8]) -> usize {
        let mut ahead = *self;
        if ahead.at_boundary() { 0 } else { ahead.pass_frame(bytes) }
    }

    /// Notes that the next bytes pass, up to the end of a frame; returns how many.
    fn pass_frame(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            if let At::Rest(left) = self.at {
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - at);
                at += taken;
                self.rest(left - taken as u64);
            } else {
                at += 1;
                self.head(*byte);
            }
            if self.at_boundary() {
                break;
            }
        }
        at
    }

    /// The next byte of a frame's head.
    fn head(&mut self, byte: u8) {
        match self.at {
            At::Boundary => {
                self.closes = byte & OPCODE == CLOSE_OPCODE;
                self.at = At::Length;
            }
            At::Length => {
                let mask = if byte & MASKED == 0 { 0 } else { 4 };
                match byte & LENGTH {
                    126 => self.at = At::Extended { left: 2, mask, value: 0 },
                    127 => self.at = At::Extended { left: 8, mask, value: 0 },
                    length => self.rest(u64::from(mask) + u64::from(length)),
                }
            }
            At::Extended { left, mask, value } => {
                let value = value << 8 | u64::from(byte);
                match left - 1 {
                    // A length beyond 63 bits is forbidden; whoever says it will see the end of the connection.
                    0 => self.rest(value.saturating_add(u64::from(mask))),
                    left => self.at = At::Extended { left, mask, value },
                }
            }
            At::Rest(_) => {}
        }
    }

    fn rest(&mut self, left: u64) {
        self.at = At::Rest(left);
        if left == 0 {
            self.at = At::Boundary;
            self.closed |= self.closes;
        }
    }
}

/// Writes a Close frame; what a client sends is masked.
pub(crate) fn write_close(status: u16, mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
    let status = status.to_be_bytes();
    match mask {
        None => {
            out.extend_from_slice(&[CLOSE, 2]);
            out.extend_from_slice(&status);
        }
        Some(mask) => {
            out.extend_from_slice(&[CLOSE, MASKED | 2]);
            out.extend_from_slice(&mask);
            out.extend([status[0] ^ mask[0], status[1] ^ mask[1]]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame with this head and so much payload.
    fn frame(first: u8, masked: bool, length: usize, form: u8) -> Vec<u8> {
        let mask = if masked { MASKED } else { 0 };
        let mut bytes = vec![first];
        match (form, length) {
            (0, 0..126) => bytes.push(mask | length as u8),
            (0 | 1, 0..65_536) => {
                bytes.push(mask | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(std::iter::repeat_n(0x88, if masked { 4 } else { 0 } + length));
        bytes
    }

    fn any_frame() -> impl Strategy<Value = Vec<u8>> {
        let first = prop_oneof![Just(0x81u8), Just(0x02), Just(0x00), Just(0x80), Just(0x89), Just(0xc1)];
        let length = prop_oneof![0usize..8, 120usize..130, 65_530usize..65_540];
        (first, any::<bool>(), length, 0u8..3).prop_map(|(f, m, l, form)| frame(f, m, l, form))
    }

    proptest! {
        /// However the bytes are cut, the boundaries are found where they are.
        #[test]
        fn boundaries_are_those_of_the_frames(
            frames in proptest::collection::vec(any_frame(), 1..8),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let bytes = frames.concat();
            let ends: Vec<usize> = frames.iter().scan(0, |at, f| { *at += f.len(); Some(*at) }).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut passing = Frames::new();
            for pair in cuts.windows(2) {
                passing.pass(&bytes[pair[0]..pair[1]]);
                let here = pair[1];
                prop_assert_eq!(passing.at_boundary(), here == 0 || ends.contains(&here), "at {}", here);
                let next = ends.iter().copied().find(|end| *end >= here).unwrap_or(here);
                let next = if here == 0 { 0 } else { next };
                prop_assert_eq!(passing.before_boundary(&bytes[here..]), next - here, "from {}", here);
            }
            prop_assert!(!passing.closed());
        }

        /// No bytes at all can do harm.
        #[test]
        fn anything_passes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut whole = Frames::new();
            whole.pass(&bytes);
            let mut single = Frames::new();
            bytes.iter().for_each(|byte| single.pass(std::slice::from_ref(byte)));
            prop_assert_eq!(whole, single);
        }
    }

    #[test]
    fn a_close_frame_is_seen_once_it_is_whole() {
        for (status, mask) in [(SERVICE_RESTART, None), (GOING_AWAY, Some([1, 2, 3, 4]))] {
            let mut out = Vec::new();
            write_close(status, mask, &mut out);
            let mut frames = Frames::new();
            frames.pass(&frame(0x81, false, 5, 0));
            for byte in &out {
                assert!(!frames.closed());
                frames.pass(std::slice::from_ref(byte));
            }
            assert!(frames.closed() && frames.at_boundary());
        }
        let mut out = Vec::new();
        write_close(GOING_AWAY, Some([1, 2, 3, 4]), &mut out);
        // 1001 is 0x03e9.
        assert_eq!(out, [0x88, 0x82, 1, 2, 3, 4, 0x03 ^ 1, 0xe9 ^ 2]);
    }
}
