//! What each request is stamped with: its id and the time of its start.
//!
//! A person who got an answer of ours quotes the id, and the worker has the same one in its log. The id is made
//! from a generator of the thread, seeded once by the kernel, and written as text into a buffer that is kept, so
//! that stamping costs no system call and no allocation.

use std::cell::RefCell;

/// The longest id that is passed on, in bytes.
const ID_MAX: usize = 128;

/// Makes ids: 128 bits, unique among all threads of all switchmans.
///
/// Two generators of 64 bits each: alone, two threads could walk into each other's sequence.
#[derive(Debug)]
pub(crate) struct Ids(RefCell<[fastrand::Rng; 2]>);

impl Ids {
    /// A generator seeded by the kernel.
    pub(crate) fn new() -> Self {
        let seeded = || {
            let mut seed = [0; 8];
            // The kernel's generator does not fail once the machine is up; fastrand's own seed would do too.
            match getrandom::fill(&mut seed) {
                Ok(()) => fastrand::Rng::with_seed(u64::from_ne_bytes(seed)),
                Err(_) => fastrand::Rng::new(),
            }
        };
        Self(RefCell::new([seeded(), seeded()]))
    }

    /// Appends the next id as 32 hexadecimal digits.
    fn next(&self, out: &mut Vec<u8>) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        for half in self.0.borrow_mut().iter_mut().map(|rng| rng.u64(..)) {
            out.extend((0..16).rev().map(|digit| HEX[(half >> (digit * 4)) as usize & 15]));
        }
    }
}

/// One request's stamp; its memory is used again by the next.
#[derive(Debug, Default)]
pub(crate) struct Stamp {
    /// The id as text; empty as long as there is none.
    id: Vec<u8>,
    /// When its first bytes were seen, in milliseconds since 1970.
    start_ms: u64,
}

impl Stamp {
    /// Begins a request.
    pub(crate) fn begin(&mut self, start_ms: u64) {
        self.id.clear();
        self.start_ms = start_ms;
    }

    /// Gives the request an id, unless it has one: that which a trusted proxy `said`, if it is sane, else a new
    /// one.
    pub(crate) fn identify(&mut self, ids: &Ids, said: Option<&[u8]>) {
        if self.id.is_empty() {
            match said.filter(|id| is_sane(id)) {
                Some(id) => self.id.extend_from_slice(id),
                None => ids.next(&mut self.id),
            }
        }
    }

    /// The id; none where ids are switched off.
    pub(crate) fn id(&self) -> Option<&str> {
        std::str::from_utf8(&self.id).ok().filter(|id| !id.is_empty())
    }

    /// Writes `X-Request-Id`, if there is an id.
    pub(crate) fn write_id(&self, out: &mut Vec<u8>) {
        if !self.id.is_empty() {
            out.extend_from_slice(b"X-Request-Id: ");
            out.extend_from_slice(&self.id);
            out.extend_from_slice(b"\r\n");
        }
    }

    /// Writes `X-Request-Start`.
    pub(crate) fn write_start(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"X-Request-Start: t=");
        out.extend_from_slice(itoa::Buffer::new().format(self.start_ms).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// Whether an id may be passed on: short, and nothing in it that a log or a shell could stumble over.
fn is_sane(id: &[u8]) -> bool {
    (1..=ID_MAX).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_32_hexadecimal_digits_and_differ_within_and_among_threads() {
        let (one, other) = (Ids::new(), Ids::new());
        let ids: HashSet<String> = (0..2000)
            .map(|n| {
                let mut stamp = Stamp::default();
                stamp.identify(if n % 2 == 0 { &one } else { &other }, None);
                stamp.id().unwrap().to_owned()
            })
            .collect();
        assert_eq!(ids.len(), 2000);
        assert!(ids.iter().all(|id| id.len() == 32));
        assert!(ids.iter().all(|id| id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))));
    }

    #[test]
    fn only_a_sane_id_is_passed_on() {
        let longest = "x".repeat(128);
        let too_long = "x".repeat(129);
        for (said, passed) in [
            ("abc-1", true),
            ("Root=1-67891233-abcdef012345678912345678", true),
            (&longest, true),
            (&too_long, false),
            ("", false),
            ("a b", false),
            ("a\tb", false),
            ("caf\u{e9}", false),
            ("a\u{7f}", false),
        ] {
            let mut stamp = Stamp::default();
            stamp.identify(&Ids::new(), Some(said.as_bytes()));
            assert_eq!(stamp.id() == Some(said), passed, "{said:?}");
            assert!(stamp.id().is_some(), "there is always one");
        }
    }

    #[test]
    fn an_id_stays_for_the_whole_request() {
        let (mut stamp, ids) = (Stamp::default(), Ids::new());
        stamp.begin(1_700_000_000_123);
        stamp.identify(&ids, None);
        let first = stamp.id().unwrap().to_owned();
        stamp.identify(&ids, Some(b"other"));
        assert_eq!(stamp.id(), Some(&*first));
        let mut out = Vec::new();
        stamp.write_id(&mut out);
        stamp.write_start(&mut out);
        let expected = format!("X-Request-Id: {first}\r\nX-Request-Start: t=1700000000123\r\n");
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        stamp.begin(0);
        assert_eq!(stamp.id(), None);
    }
}
