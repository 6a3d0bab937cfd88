//! `tmp/restart.txt` below a version: touching it asks for a rolling restart, as users of Passenger know it.

use std::path::Path;
use std::time::SystemTime;

use super::inventory::RESTART_FILE;

/// The state of the file from which on a newer one is a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartFile {
    /// Its time of modification; none where it is not there. One that came with the upload keeps the time that it
    /// had where it was built, which may lie ahead of this machine's.
    seen: Option<SystemTime>,
    /// The last change of the whole folder then: what is not newer was not touched here since.
    after: SystemTime,
}

impl RestartFile {
    /// As it is now below `folder`, whose last change of all was `newest`. Blocks.
    pub(crate) fn read(folder: &Path, newest: SystemTime) -> Self {
        Self { seen: touched(folder), after: newest }
    }

    /// Takes in when it was last modified; whether that is a request. Each request is one only once.
    pub(crate) fn is_request(&mut self, touched: Option<SystemTime>) -> bool {
        let before = std::mem::replace(&mut self.seen, touched);
        touched != before && touched.is_some_and(|at| at > self.after)
    }
}

/// When the file below `folder` was last modified. Blocks.
pub(crate) fn touched(folder: &Path) -> Option<SystemTime> {
    folder.join(RESTART_FILE).metadata().ok()?.modified().ok()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn only_what_is_newer_is_a_request_and_only_once() {
        let at = |second| Some(UNIX_EPOCH + Duration::from_secs(second));
        let after = UNIX_EPOCH + Duration::from_secs(100);
        for (seen, touches, expected) in [
            (None, vec![None, at(101), at(101), at(102), None, at(103)], vec![1, 3, 5]),
            (at(50), vec![at(50), at(60), at(101), at(101)], vec![2]),
            (at(900), vec![at(900), at(101), at(900)], vec![1, 2]),
            (None, vec![at(100), at(50)], vec![]),
        ] {
            let mut file = RestartFile { seen, after };
            let requests: Vec<usize> =
                touches.iter().enumerate().filter(|(_, at)| file.is_request(**at)).map(|(n, _)| n).collect();
            assert_eq!(requests, expected, "{seen:?} {touches:?}");
        }
    }
}
