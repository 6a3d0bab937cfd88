//! A folder that is not known to be complete: looked at until it is quiet, then put to the proof.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Task;
use crate::deploy::inventory::Inventory;
use crate::deploy::manifest::{Look, Manifest, Unfinished};
use crate::deploy::proof::{Claim, Proof, Proven};
use crate::deploy::restart_file::RestartFile;
use crate::deploy::settle::{Reason, Settling, Verdict};

/// A folder on its way to being complete.
#[derive(Debug)]
pub(super) struct Arriving {
    settling: Settling,
    /// What is to be done next, and when; none while it is being done.
    next: Option<(Instant, Task)>,
    /// Why the last look found it quiet.
    reason: Option<Reason>,
    /// The look that found it quiet, for when to look again.
    look: Option<Look>,
    /// What was proven to be broken: the same is not proven again.
    broken: Option<Manifest>,
    /// What was said of it last.
    said: News,
}

/// What is worth saying of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// It is being uploaded.
    GoesOn,
    /// It is quiet, and more is to come.
    Waits(Unfinished),
    /// It is not what its list of checksums says.
    Broken(String),
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Progress {
    /// It goes on arriving, and that is known.
    Nothing,
    /// Likewise, and this is new.
    News(News),
    /// It is complete.
    Complete { files: Arc<Inventory>, restart_file: RestartFile, why: String },
}

impl Arriving {
    /// To be looked at from `now` on.
    pub(super) fn new(settling: Settling, now: Instant) -> Self {
        let next = Some((now, Task::Look));
        Self { settling, next, reason: None, look: None, broken: None, said: News::GoesOn }
    }

    /// The same folder under another name.
    pub(super) fn renamed(self, now: Instant) -> Self {
        Self::new(self.settling.continued(), now)
    }

    /// The folder was seen to be renamed into place.
    pub(super) fn renamed_in(&mut self, now: Instant) {
        self.settling.renamed_in();
        self.next = self.next.take().map(|_| (now, Task::Look));
    }

    /// When something is to be done; none while it is being done.
    pub(super) fn due(&self) -> Option<Instant> {
        self.next.as_ref().map(|(at, _)| *at)
    }

    /// What is to be done now.
    pub(super) fn take(&mut self) -> Option<Task> {
        self.next.take().map(|(_, task)| task)
    }

    /// Takes in what a look saw.
    pub(super) fn looked(&mut self, look: &Look, settle: Duration) -> Progress {
        let verdict = self.settling.looked(look, settle);
        match verdict {
            Verdict::LookAgain { at, unfinished } => {
                self.next = Some((at, Task::Look));
                match unfinished {
                    // An upload shows one temporary file after the other; the one that it stands still at is news.
                    Some(why) if self.settling.quiet() >= settle => self.say(News::Waits(why)),
                    // One that was broken stays so until it is quiet again.
                    _ if matches!(self.said, News::Broken(_)) => Progress::Nothing,
                    _ => self.say(News::GoesOn),
                }
            }
            Verdict::Quiet(_) if self.broken.as_ref() == Some(&look.manifest) => {
                self.next = Some((self.settling.after_vain(look, settle), Task::Look));
                Progress::Nothing
            }
            Verdict::Quiet(reason) => {
                self.reason = Some(reason);
                self.look = Some(look.clone());
                let claim = Claim { seen: look.manifest.clone(), runs: None };
                self.next = Some((look.at, Task::Prove(claim)));
                Progress::Nothing
            }
        }
    }

    /// Takes in what came out of a proof.
    pub(super) fn proven(&mut self, proven: Proven, settle: Duration) -> Progress {
        let Some(look) = self.look.take() else { return Progress::Nothing };
        // The next look is planned from the time of this proof, and no more is spent on both than on looks alone.
        let spent = Look { at: proven.at, took: look.took + proven.took, ..look };
        let next = match proven.proof {
            Proof::Changed => proven.at,
            _ => self.settling.after_vain(&spent, settle),
        };
        self.next = Some((next, Task::Look));
        match proven.proof {
            Proof::Complete { files, restart_file } => {
                let why = why(self.reason, spent.manifest.files);
                Progress::Complete { files, restart_file, why }
            }
            Proof::Changed => Progress::Nothing,
            Proof::Unfinished(why) => self.say(News::Waits(why)),
            Proof::Broken(why) => {
                self.broken = Some(spent.manifest);
                self.say(News::Broken(why))
            }
        }
    }

    fn say(&mut self, news: News) -> Progress {
        if self.said == news {
            return Progress::Nothing;
        }
        self.said = news.clone();
        Progress::News(news)
    }
}

fn why(reason: Option<Reason>, files: u64) -> String {
    match reason {
        Some(Reason::Still(quiet)) => format!("nothing in its {files} files has changed for {quiet:.1?}"),
        Some(Reason::Whole) | None => format!("renamed into place with {files} files"),
    }
}
