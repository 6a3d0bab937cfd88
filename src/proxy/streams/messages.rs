//! The messages of a gRPC stream as they pass: where one ends. Pure.
//!
//! A message is a flag (one byte), its length (four, the most significant first) and so many bytes (gRPC over
//! HTTP2, "Length-Prefixed-Message"). A client takes a stream that ends within one for broken.

/// Bytes before a message's own: the flag and the length.
const HEAD: u8 = 5;

/// How far a stream of messages was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Messages {
    /// How much of the head was read.
    head: u8,
    /// What is known of the length; once the head is whole, how many bytes are still to come.
    left: u32,
}

impl Messages {
    pub(crate) fn new() -> Self {
        Self { head: 0, left: 0 }
    }

    /// Whether nothing of a message was sent that is not ended.
    pub(crate) fn between(&self) -> bool {
        self.head == 0
    }

    /// How many bytes certainly do not go beyond the next end of a message.
    pub(crate) fn ahead(&self) -> usize {
        if self.head < HEAD {
            (HEAD - self.head).into()
        } else {
            usize::try_from(self.left).unwrap_or(usize::MAX)
        }
    }

    /// Notes that `bytes` pass.
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.head < HEAD {
                // The flag, which comes first, is shifted out by the length.
                self.left = self.left << 8 | u32::from(*first);
                self.head += 1;
                bytes = rest;
            } else {
                let taken = self.ahead().min(bytes.len());
                self.left -= u32::try_from(taken).unwrap_or(self.left);
                bytes = &bytes[taken..];
            }
            if self.head == HEAD && self.left == 0 {
                self.head = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(flag: u8, length: usize) -> Vec<u8> {
        let head = [&[flag], &(length as u32).to_be_bytes()[..]].concat();
        [head, vec![0xff; length]].concat()
    }

    proptest! {
        /// However the bytes are cut, a message ends where it ends, and nothing that is certain is beyond that.
        #[test]
        fn ends_are_those_of_the_messages(
            messages in proptest::collection::vec((0u8..2, prop_oneof![0usize..9, 60_000usize..70_000]), 1..5),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let messages: Vec<_> = messages.into_iter().map(|(flag, length)| message(flag, length)).collect();
            let bytes = messages.concat();
            let ends: Vec<usize> = messages.iter().scan(0, |at, m| { *at += m.len(); Some(*at) }).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut passing = Messages::new();
            for pair in cuts.windows(2) {
                passing.pass(&bytes[pair[0]..pair[1]]);
                let here = pair[1];
                prop_assert_eq!(passing.between(), here == 0 || ends.contains(&here), "at {}", here);
                if let Some(next) = ends.iter().copied().find(|end| *end > here) {
                    prop_assert!((1..=next - here).contains(&passing.ahead()), "{} at {}", passing.ahead(), here);
                }
            }
        }

        /// No bytes at all can do harm.
        #[test]
        fn anything_passes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut whole = Messages::new();
            whole.pass(&bytes);
            let mut single = Messages::new();
            bytes.iter().for_each(|byte| single.pass(std::slice::from_ref(byte)));
            prop_assert_eq!(whole, single);
        }
    }

    #[test]
    fn the_longest_message_is_not_too_long() {
        let mut messages = Messages::new();
        messages.pass(&[1, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!((messages.between(), messages.ahead()), (false, u32::MAX as usize));
    }
}
