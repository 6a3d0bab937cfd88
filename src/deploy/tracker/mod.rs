//! What is known of one deploy root, and what each new listing or look makes of it. Pure: no I/O, no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::ChangeKind;
use super::diff::{Difference, diff};
use super::manifest::{Look, Unfinished};
use super::scan::{Folder, Listing, RootError};
use super::settle::{Reason, Settling, Verdict};
use crate::version::VersionId;

#[cfg(test)]
mod tests;

/// One step of the watcher: something to send, or only to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Goes to the supervisor.
    Change {
        /// What happened.
        kind: ChangeKind,
        /// How that is known, for the log.
        why: String,
    },
    /// A version goes on arriving; said when the reason changes.
    Waits {
        /// The version.
        version: VersionId,
        /// What shows that more is to come.
        why: Unfinished,
    },
}

/// A folder that is to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The version.
    pub version: VersionId,
    /// Its folder.
    pub folder: Folder,
}

/// How far a folder has come.
#[derive(Debug)]
enum Stage {
    Arriving {
        settling: Settling,
        /// None while a look is under way.
        next_look: Option<Instant>,
        /// What was said of it last.
        said: Option<Unfinished>,
    },
    Settled,
}

/// Everything that is known of one deploy root.
#[derive(Debug)]
pub struct Tracker {
    settle: Duration,
    listing: Listing,
    /// By version; one for each of `listing.versions`.
    stages: BTreeMap<VersionId, Stage>,
    problem: Option<RootError>,
    /// When the last listing began.
    listed: Option<Instant>,
}

impl Tracker {
    /// Nothing is known yet. `settle` is how long nothing below a folder may change before it is complete.
    pub fn new(settle: Duration) -> Self {
        Self { settle, listing: Listing::default(), stages: BTreeMap::new(), problem: None, listed: None }
    }

    /// Takes in a listing that was begun at `now`; `renamed_in` are the paths that were seen to be renamed into
    /// the root; the one that shows them may have been taken in already.
    pub fn listed(
        &mut self,
        listing: Result<Listing, RootError>,
        renamed_in: &BTreeSet<PathBuf>,
        now: Instant,
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        let (listing, problem) = match listing {
            Ok(listing) => (Some(listing), None),
            // Nobody can tell what has become of the folders: they are still taken to be there.
            Err(problem @ RootError::Unreadable { .. }) => (None, Some(problem)),
            Err(problem) => (Some(Listing::default()), Some(problem)),
        };
        if problem != self.problem {
            let kind = ChangeKind::Root(problem.as_ref().map(RootError::to_string));
            steps.push(change(kind, "read the deploy root"));
            self.problem = problem;
        }
        if let Some(listing) = listing {
            self.change_folders(&listing, now, &mut steps);
            if listing.ignored != self.listing.ignored {
                steps.push(change(ChangeKind::Ignored(listing.ignored.clone()), "read the deploy root"));
            }
            self.listing = listing;
            self.mark_whole(renamed_in, now);
        }
        steps
    }

    fn change_folders(&mut self, listing: &Listing, now: Instant, steps: &mut Vec<Step>) {
        let absent = self.listed.replace(now);
        let mut gone = BTreeMap::new();
        for difference in diff(&self.listing.versions, &listing.versions) {
            match difference {
                Difference::Gone(version) => {
                    let replaced = listing.versions.contains_key(&version);
                    let why =
                        if replaced { "another folder stands in its place" } else { "its folder is gone" };
                    steps.push(change(ChangeKind::Gone { version: version.clone() }, why));
                    gone.insert(version.clone(), self.stages.remove(&version));
                }
                Difference::Came { version, folder, renamed_from } => {
                    let before = renamed_from.and_then(|from| gone.get_mut(&from)?.take());
                    let (stage, step) = match before {
                        Some(Stage::Settled) => {
                            (Stage::Settled, settled(&version, &folder, "renamed from another version"))
                        }
                        Some(Stage::Arriving { settling, .. }) => {
                            arriving(&version, &folder, settling.continued(), now)
                        }
                        // A symlink is new while what it leads to may have been complete for long.
                        None => match absent.filter(|_| !folder.link) {
                            Some(absent) => arriving(&version, &folder, Settling::came_after(absent), now),
                            None => arriving(&version, &folder, Settling::found(), now),
                        },
                    };
                    steps.push(step);
                    self.stages.insert(version, stage);
                }
            }
        }
    }

    /// Notes which folders were renamed into place. The listing that shows a folder may be older than the news.
    fn mark_whole(&mut self, renamed_in: &BTreeSet<PathBuf>, now: Instant) {
        for (version, folder) in &self.listing.versions {
            if let Some(Stage::Arriving { settling, next_look, .. }) = self.stages.get_mut(version)
                && !folder.link
                && renamed_in.contains(&folder.path)
            {
                settling.renamed_in();
                *next_look = next_look.map(|_| now);
            }
        }
    }

    /// When the next look is due; none if no folder waits for one.
    pub fn next_look(&self) -> Option<Instant> {
        self.stages.values().filter_map(Stage::next_look).min()
    }

    /// The folders to look at by `now`, at most `count`, the longest due first. Each look must be handed to
    /// [`Tracker::looked`].
    pub fn take_due(&mut self, count: usize, now: Instant) -> Vec<Due> {
        let mut due: Vec<(Instant, &VersionId, &mut Option<Instant>)> = self
            .stages
            .iter_mut()
            .filter_map(|(version, stage)| match stage {
                Stage::Arriving { next_look, .. } => Some(((*next_look)?, version, next_look)),
                Stage::Settled => None,
            })
            .filter(|(at, ..)| *at <= now)
            .collect();
        due.sort_by_key(|(at, ..)| *at);
        due.into_iter()
            .take(count)
            .filter_map(|(_, version, next_look)| {
                *next_look = None;
                let folder = self.listing.versions.get(version)?.clone();
                Some(Due { version: version.clone(), folder })
            })
            .collect()
    }

    /// Takes in what a look at a folder saw. A folder that was replaced meanwhile is not judged by it.
    pub fn looked(&mut self, due: &Due, look: &Look) -> Option<Step> {
        let folder = self.listing.versions.get(&due.version).filter(|folder| **folder == due.folder)?;
        let stage = self.stages.get_mut(&due.version)?;
        let Stage::Arriving { settling, next_look, said } = stage else { return None };
        match settling.looked(look, self.settle) {
            Verdict::Settled(reason) => {
                *stage = Stage::Settled;
                let files = look.manifest.files;
                let why = match reason {
                    Reason::Whole => format!("renamed into place with {files} files"),
                    Reason::Quiet(quiet) => {
                        format!("nothing in its {files} files has changed for {quiet:.1?}")
                    }
                };
                Some(settled(&due.version, folder, &why))
            }
            Verdict::LookAgain { at, unfinished } => {
                *next_look = Some(at);
                // An upload shows one temporary file after the other; the one it is cut off at is news.
                let why = unfinished.filter(|_| look.quiet >= self.settle)?;
                (said.as_ref() != Some(&why)).then(|| {
                    *said = Some(why.clone());
                    Step::Waits { version: due.version.clone(), why }
                })
            }
        }
    }
}

impl Stage {
    fn next_look(&self) -> Option<Instant> {
        match self {
            Self::Arriving { next_look, .. } => *next_look,
            Self::Settled => None,
        }
    }
}

fn change(kind: ChangeKind, why: &str) -> Step {
    Step::Change { kind, why: why.to_owned() }
}

fn arriving(version: &VersionId, folder: &Folder, settling: Settling, now: Instant) -> (Stage, Step) {
    let kind = ChangeKind::Arriving { version: version.clone(), path: folder.path.clone() };
    (Stage::Arriving { settling, next_look: Some(now), said: None }, change(kind, "its folder is there"))
}

fn settled(version: &VersionId, folder: &Folder, why: &str) -> Step {
    let (path, identity) = (folder.path.clone(), folder.identity);
    change(ChangeKind::Settled { version: version.clone(), path, identity }, why)
}
