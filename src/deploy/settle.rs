//! When one folder counts as quiet: nothing below it has changed for a while and no transfer is left in
//! it, or it was renamed into place whole. Then it is complete, unless its [`proof`](super::proof) fails.
//! Pure: it is told what each look saw, and when.
//!
//! Time is kept by the monotonic clock. The file system's stamps only say how much quieter than "since the last
//! look" a folder is, and are believed only where that is possible: after a step of the wall clock, or with a
//! file server whose clock is behind, a folder that is being written must not seem old.

use std::time::{Duration, Instant};

use super::manifest::{Look, Manifest, Unfinished};

/// A folder that is quiet but unfinished is looked at again after `settle`, so that the end of an upload that stood
/// still is seen in time; the pause is at most this,
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// at least this,
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// and, for one that lies abandoned, the longest one after this time.
const ABANDONED: Duration = Duration::from_secs(600);
/// A look that took long is followed by a pause this many times as long, where `settle` is shorter than that: an
/// upload of a million files must not keep a core busy with looking at it.
const PAUSE_PER_LOOK: u32 = 4;
/// The same for a folder that is unfinished, which may go on for hours.
const PAUSE_PER_VAIN_LOOK: u32 = 20;

/// A folder on its way to being complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settling {
    /// What the last look saw.
    seen: Option<Manifest>,
    /// When the last look began, or when the folder was surely not there; none where nothing is known.
    known: Option<Instant>,
    /// How long nothing had changed at the last look.
    quiet: Duration,
    /// It was renamed into place, and no look has judged it since.
    whole: bool,
    /// It was arriving under another name: a rename says nothing.
    continued: bool,
}

/// What one look leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is complete, if nothing else speaks against it.
    Quiet(Reason),
    /// It is not quiet, or a transfer is left in it.
    LookAgain {
        /// When to look next.
        at: Instant,
        /// What shows that more is to come; none if it has merely changed a moment ago.
        unfinished: Option<Unfinished>,
    },
}

/// Why a folder counts as quiet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It was renamed into place.
    Whole,
    /// Nothing below it has changed for this long.
    Still(Duration),
}

impl Settling {
    /// A folder that was there before anybody looked.
    pub fn found() -> Self {
        Self { seen: None, known: None, quiet: Duration::ZERO, whole: false, continued: false }
    }

    /// A folder that was not there at `absent`.
    pub fn came_after(absent: Instant) -> Self {
        Self { known: Some(absent), ..Self::found() }
    }

    /// The same folder under another name.
    #[must_use]
    pub fn continued(self) -> Self {
        Self { continued: true, ..self }
    }

    /// The folder was seen to be renamed into place.
    pub fn renamed_in(&mut self) {
        self.whole = !self.continued;
    }

    /// Judges what a look saw; `settle` is how long nothing may change.
    pub fn looked(&mut self, look: &Look, settle: Duration) -> Verdict {
        let since_known = self.known.map(|known| look.at.saturating_duration_since(known));
        self.quiet = match since_known {
            Some(passed) if self.seen.as_ref() == Some(&look.manifest) => self.quiet + passed,
            // It changed since then, and its stamp says before: the clocks disagree.
            Some(passed) if look.quiet > passed => Duration::ZERO,
            _ => look.quiet,
        };
        self.known = Some(look.at);
        self.seen = Some(look.manifest.clone());

        let whole = std::mem::take(&mut self.whole);
        if look.manifest.unfinished.is_some() {
            let (at, unfinished) = (self.after_vain(look, settle), look.manifest.unfinished.clone());
            return Verdict::LookAgain { at, unfinished };
        }
        if whole {
            return Verdict::Quiet(Reason::Whole);
        }
        if self.quiet >= settle {
            return Verdict::Quiet(Reason::Still(self.quiet));
        }
        let (pause, costly) = (settle - self.quiet, look.took * PAUSE_PER_LOOK);
        let pause = if costly > settle { pause.max(costly) } else { pause };
        Verdict::LookAgain { at: look.at + pause, unfinished: None }
    }

    /// When to look again at a folder that is quiet and yet unfinished, after `look`.
    pub fn after_vain(&self, look: &Look, settle: Duration) -> Instant {
        let abandoned = self.quiet >= ABANDONED;
        let pause = if abandoned { PAUSE_MAX } else { settle.clamp(PAUSE_MIN, PAUSE_MAX) };
        look.at + pause.max(look.took * PAUSE_PER_VAIN_LOOK)
    }

    /// How long nothing had changed at the last look.
    pub fn quiet(&self) -> Duration {
        self.quiet
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;

    const SETTLE: Duration = Duration::from_secs(1);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A look at `now` that finds the last change at `newest`, both in ms, on a wall clock that began at 0.
    fn seen(start: Instant, now: u64, newest: u64) -> Look {
        let manifest = Manifest { files: 1, newest: UNIX_EPOCH + ms(newest), ..empty() };
        Look { at: start + ms(now), took: Duration::ZERO, quiet: ms(now.saturating_sub(newest)), manifest }
    }

    fn empty() -> Manifest {
        Manifest { files: 0, newest: UNIX_EPOCH, unfinished: None, inventory: Default::default() }
    }

    fn again(at: Instant) -> Verdict {
        Verdict::LookAgain { at, unfinished: None }
    }

    fn quiet(for_ms: u64) -> Verdict {
        Verdict::Quiet(Reason::Still(ms(for_ms)))
    }

    #[test]
    fn a_folder_that_was_there_before_is_believed() {
        let start = Instant::now();
        assert_eq!(Settling::found().looked(&seen(start, 9_000, 8_000), SETTLE), quiet(1_000));
        assert_eq!(Settling::found().looked(&seen(start, 9_000, 8_001), SETTLE), again(start + ms(9_001)));
    }

    #[test]
    fn a_folder_settles_when_the_time_has_passed_since_its_last_change() {
        let start = Instant::now();
        let mut folder = Settling::came_after(start);
        assert_eq!(folder.looked(&seen(start, 10, 5), SETTLE), again(start + ms(1_005)));
        assert_eq!(folder.looked(&seen(start, 1_005, 700), SETTLE), again(start + ms(1_700)));
        assert_eq!(folder.looked(&seen(start, 1_700, 700), SETTLE), quiet(1_000));
    }

    #[test]
    fn a_folder_renamed_into_place_settles_at_once_unless_something_is_left_in_it() {
        let start = Instant::now();
        let mut folder = Settling::came_after(start);
        folder.renamed_in();
        let whole = Verdict::Quiet(Reason::Whole);
        assert_eq!(folder.clone().looked(&seen(start, 10, 10), SETTLE), whole);

        let mut look = seen(start, 10, 10);
        look.manifest.unfinished = Some(Unfinished::Empty);
        assert!(matches!(folder.looked(&look, SETTLE), Verdict::LookAgain { .. }));
        assert_eq!(folder.looked(&seen(start, 500, 400), SETTLE), again(start + ms(1_400)), "whole no more");
        folder = folder.continued();
        folder.renamed_in();
        assert_eq!(
            folder.looked(&seen(start, 500, 400), SETTLE),
            again(start + ms(1_400)),
            "half under a new name"
        );
    }

    #[test]
    fn what_a_transfer_left_never_settles_and_is_looked_at_rarely_once_it_is_abandoned() {
        let start = Instant::now();
        let mut folder = Settling::came_after(start);
        let (mut now, mut pauses) = (10, Vec::new());
        for _ in 0..1_000 {
            let mut look = seen(start, now, 5);
            look.manifest.unfinished = Some(Unfinished::Transfer(".a.Xa81bQ".into()));
            let Verdict::LookAgain { at, unfinished: Some(_) } = folder.looked(&look, SETTLE) else {
                panic!("settled with a temporary file in it");
            };
            pauses.push(at - look.at);
            now = (at - start).as_millis() as u64;
        }
        assert!(pauses.is_sorted(), "{pauses:?}");
        assert_eq!((pauses.first(), pauses[599], pauses.last()), (Some(&SETTLE), SETTLE, Some(&PAUSE_MAX)));
    }

    #[test]
    fn a_slow_look_is_followed_by_a_long_pause() {
        let start = Instant::now();
        let slow = Look { took: ms(2_000), ..seen(start, 10, 10) };
        assert_eq!(Settling::came_after(start).looked(&slow, SETTLE), again(start + ms(8_010)));
        let bearable = Look { took: ms(200), ..seen(start, 100, 10) };
        assert_eq!(Settling::came_after(start).looked(&bearable, SETTLE), again(start + ms(1_010)));
    }

    #[test]
    fn a_stamp_older_than_the_last_look_is_not_believed() {
        let start = Instant::now();
        let mut folder = Settling::came_after(start);
        // A file server whose clock is an hour behind, or this machine's clock stepped an hour ahead.
        let behind = |now, newest| Look { quiet: ms(3_600_000), ..seen(start, now, newest) };
        assert_eq!(folder.looked(&behind(10, 1), SETTLE), again(start + ms(1_010)));
        assert_eq!(folder.looked(&behind(1_010, 2), SETTLE), again(start + ms(2_010)));
        assert_eq!(folder.looked(&behind(2_010, 2), SETTLE), quiet(1_000));
    }

    proptest! {
        /// Whatever the pauses of an upload: never settled within `settle` of a change, and no later than
        /// `settle` after the last one.
        #[test]
        fn never_early_never_late(gaps in prop::collection::vec(1u64..1_000, 1..40)) {
            let start = Instant::now();
            let changes: Vec<u64> =
                gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let last = changes[changes.len() - 1];
            let mut folder = Settling::came_after(start);
            let mut now = changes[0];
            loop {
                let newest = changes.iter().copied().filter(|at| *at <= now).max().unwrap_or_default();
                match folder.looked(&seen(start, now, newest), SETTLE) {
                    Verdict::Quiet(_) => break,
                    Verdict::LookAgain { at, .. } => now = (at - start).as_millis() as u64,
                }
            }
            prop_assert_eq!(now, last + 1_000);
        }
    }
}
