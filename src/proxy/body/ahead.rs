//! How much may be held of bodies: taken from a worker ahead of a slow client, or gathered of a slow upload.
//!
//! Each body has its own limit, and all bodies of a thread share one: ten thousand slow clients cost what that
//! says and no more. Where it is used up, bodies go through their ordinary buffers as if nothing was configured.

use std::cell::Cell;
use std::rc::Rc;

/// What the bodies of one thread may hold together, in bytes.
const SHARE: usize = 64 * 1024 * 1024;
/// What is taken from a thread's share at a time, in bytes.
const STEP: usize = 32 * 1024;

/// What the bodies of one thread may still hold together, in bytes.
#[derive(Debug, Clone)]
pub(crate) struct Share(Rc<Cell<usize>>);

impl Default for Share {
    fn default() -> Self {
        Self(Rc::new(Cell::new(SHARE)))
    }
}

/// What one body may hold; gives back to its thread's share when it ends.
#[derive(Debug)]
pub(crate) struct Ahead {
    share: Share,
    most: usize,
    held: usize,
}

impl Ahead {
    /// For a body that may hold `most` bytes beside the ordinary buffers.
    pub(crate) fn new(share: &Share, most: u64) -> Self {
        Self { share: share.clone(), most: usize::try_from(most).unwrap_or(usize::MAX), held: 0 }
    }

    /// The most that it may hold.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// Whether more may be taken while `waiting` bytes wait.
    pub(crate) fn allows(&mut self, waiting: usize) -> bool {
        if waiting >= self.most {
            return false;
        }
        while self.held < waiting {
            let Some(left) = self.share.0.get().checked_sub(STEP) else { return false };
            self.share.0.set(left);
            self.held += STEP;
        }
        true
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.share.0.set(self.share.0.get() + self.held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_body_holds_what_it_may_and_all_hold_what_is_there() {
        let share = Share(Rc::new(Cell::new(3 * STEP)));
        let mut off = Ahead::new(&share, 0);
        assert!(!off.allows(0));
        let mut one = Ahead::new(&share, 2 * STEP as u64);
        assert!(one.allows(0) && one.allows(STEP) && one.allows(2 * STEP - 1) && !one.allows(2 * STEP));
        let mut other = Ahead::new(&share, u64::MAX);
        assert!(other.allows(1) && !other.allows(STEP + 1));
        drop(one);
        assert!(other.allows(3 * STEP) && !other.allows(3 * STEP + 1));
        drop(other);
        assert_eq!(share.0.get(), 3 * STEP);
    }
}
