//! What is known of one deploy root, and what each new listing or look makes of it. Pure: no I/O, no clock.
//!
//! ```text
//! listed --> Arriving --looked: quiet--> proven: complete --> Settled <--> checked, touched
//!               ^------- not quiet, not complete, broken        |  restart asked for
//!               +---------- another folder in its place --------+
//! ```

mod arriving;
mod settled;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::check::Checked;
use super::diff::{Difference, diff};
use super::inventory::Inventory;
use super::manifest::{Look, Unfinished};
use super::proof::{Claim, Proven};
use super::scan::{Folder, Listing, RootError};
use super::settle::Settling;
use super::{ChangeKind, in_one_line};
use crate::version::VersionId;
use arriving::{Arriving, News, Progress};
use settled::Settled;

/// After a check, none is made for this many times as long as it took: all checks of a service's versions take a
/// hundredth of a core.
const CHECK_SHARE: u32 = 100;

/// One step of the watcher: what is sent to the supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What happened.
    pub kind: ChangeKind,
    /// How that is known, for the log.
    pub why: String,
}

/// Something to be done with a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The version.
    pub version: VersionId,
    /// Its folder.
    pub folder: Folder,
    /// What is to be done.
    pub task: Task,
}

/// What can be done with a folder. Each is answered with what was [`Seen`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Look at what lies in it.
    Look,
    /// Prove that it is complete.
    Prove(Claim),
    /// Compare it with what its files were.
    Check(Arc<Inventory>),
}

/// What was seen of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Answers [`Task::Look`].
    Look(Look),
    /// Answers [`Task::Prove`].
    Proof(Proven),
    /// Answers [`Task::Check`].
    Check(Checked),
}

/// When folders are complete, and what follows from their changes.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// How long nothing below a folder may change before it is complete.
    pub settle: Duration,
    /// Whether a version whose files have changed is restarted once its folder is complete again.
    pub restart_on_change: bool,
}

/// How far a folder has come.
#[derive(Debug)]
enum Stage {
    Arriving(Arriving),
    Settled(Settled),
}

/// Everything that is known of one deploy root.
#[derive(Debug)]
pub struct Tracker {
    policy: Policy,
    listing: Listing,
    /// By version; one for each of `listing.versions`.
    stages: BTreeMap<VersionId, Stage>,
    problem: Option<RootError>,
    /// When the last listing began.
    listed: Option<Instant>,
    /// When the next check may be made; none while one is made.
    next_check: Option<Instant>,
}

impl Tracker {
    /// Nothing is known yet, at `now`.
    pub fn new(policy: Policy, now: Instant) -> Self {
        let (listing, stages) = (Listing::default(), BTreeMap::new());
        Self { policy, listing, stages, problem: None, listed: None, next_check: Some(now) }
    }

    /// The folders that are versions.
    pub fn folders(&self) -> &BTreeMap<VersionId, Folder> {
        &self.listing.versions
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
            steps.push(step(kind, "read the deploy root"));
            self.problem = problem;
        }
        if let Some(listing) = listing {
            self.change_folders(&listing, now, &mut steps);
            if listing.ignored != self.listing.ignored {
                steps.push(step(ChangeKind::Ignored(listing.ignored.clone()), "read the deploy root"));
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
                    steps.push(step(ChangeKind::Gone { version: version.clone() }, why));
                    gone.insert(version.clone(), self.stages.remove(&version));
                }
                Difference::Came { version, folder, renamed_from } => {
                    let before = renamed_from.and_then(|from| gone.get_mut(&from)?.take());
                    let (stage, step) = match before {
                        Some(Stage::Settled(stage)) => {
                            let step = settled(&version, &folder, "renamed from another version");
                            (Stage::Settled(stage.renamed(now)), step)
                        }
                        Some(Stage::Arriving(stage)) => arriving(&version, &folder, stage.renamed(now)),
                        // A symlink is new while what it leads to may have been complete for long.
                        None => match absent.filter(|_| !folder.link) {
                            Some(absent) => {
                                arriving(&version, &folder, Arriving::new(Settling::came_after(absent), now))
                            }
                            None => arriving(&version, &folder, Arriving::new(Settling::found(), now)),
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
            if let Some(Stage::Arriving(stage)) = self.stages.get_mut(version)
                && !folder.link
                && renamed_in.contains(&folder.path)
            {
                stage.renamed_in(now);
            }
        }
    }

    /// When something is due next; none if no folder waits for anything.
    pub fn next_due(&self) -> Option<Instant> {
        self.stages.values().filter_map(|stage| self.due(stage)).map(|(at, _)| at).min()
    }

    /// When something is to be done with a folder, and since when that waits: checks wait for each other.
    fn due(&self, stage: &Stage) -> Option<(Instant, Instant)> {
        match stage {
            Stage::Arriving(stage) => stage.due().map(|at| (at, at)),
            Stage::Settled(stage) => match stage.due()? {
                (at, true) => Some((at, at)),
                (at, false) => Some((at.max(self.next_check?), at)),
            },
        }
    }

    /// What is to be done by `now`, at most `count` things, the longest due first. What was seen must be handed to
    /// [`Tracker::seen`].
    pub fn take_due(&mut self, count: usize, now: Instant) -> Vec<Due> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let due = self.stages.iter().filter_map(|(version, stage)| Some((self.due(stage)?, version)));
            let waiting = due.filter(|((at, _), _)| *at <= now).map(|((_, since), version)| (since, version));
            let Some((_, version)) = waiting.min() else { break };
            let version = version.clone();
            let task = match self.stages.get_mut(&version) {
                Some(Stage::Arriving(stage)) => stage.take(),
                Some(Stage::Settled(stage)) => stage.take(),
                None => None,
            };
            if matches!(task, Some(Task::Check(_))) {
                self.next_check = None;
            }
            let folder = self.listing.versions.get(&version).cloned();
            taken.extend(task.zip(folder).map(|(task, folder)| Due { version, folder, task }));
        }
        taken
    }

    /// Takes in what was seen of a folder. One that was replaced meanwhile is not judged by it.
    pub fn seen(&mut self, due: &Due, seen: Seen) -> Vec<Step> {
        if let Seen::Check(checked) = &seen {
            self.next_check = Some(checked.all.at + checked.all.took * (CHECK_SHARE + 1));
        }
        let Some(folder) = self.listing.versions.get(&due.version).filter(|folder| **folder == due.folder)
        else {
            return Vec::new();
        };
        let Some(stage) = self.stages.get_mut(&due.version) else { return Vec::new() };
        let Policy { settle, restart_on_change } = self.policy;
        let (version, path) = (&due.version, &folder.path);
        let news = match (&mut *stage, seen) {
            (Stage::Arriving(arriving), Seen::Look(look)) => arriving.looked(&look, settle),
            (Stage::Arriving(arriving), Seen::Proof(proven)) => {
                let at = proven.at;
                match arriving.proven(proven, settle) {
                    Progress::Complete { files, restart_file, why } => {
                        let step = settled(version, folder, &why);
                        *stage = Stage::Settled(Settled::new(files, restart_file, at));
                        return vec![step];
                    }
                    other => other,
                }
            }
            (Stage::Settled(settled), Seen::Check(checked)) => {
                let news = settled.checked(checked, settle, restart_on_change);
                return news.into_iter().map(|news| told(version, news)).collect();
            }
            (Stage::Settled(settled), Seen::Proof(proven)) => {
                return settled.proven(proven).into_iter().map(|news| told(version, news)).collect();
            }
            // It has become another folder of the same identity: what was due of the first counts for nothing.
            (Stage::Arriving(_), Seen::Check(_)) | (Stage::Settled(_), Seen::Look(_)) => return Vec::new(),
        };
        let Progress::News(news) = news else { return Vec::new() };
        let version = version.clone();
        vec![match news {
            News::GoesOn => step(ChangeKind::Waits { version, why: None }, "it changes again"),
            News::Waits(why) => waits(version, &why),
            News::Broken(why) => {
                let (path, why) = (path.clone(), in_one_line(&why));
                step(ChangeKind::Broken { version, path, why }, "it is quiet")
            }
        }]
    }

    /// The folders whose restart file counts.
    pub fn running(&self) -> impl Iterator<Item = (&VersionId, &Folder)> {
        let settled = |version: &VersionId| matches!(self.stages.get(version), Some(Stage::Settled(_)));
        self.listing.versions.iter().filter(move |(version, _)| settled(version))
    }

    /// Takes in when the restart file of a folder was last modified.
    pub fn touched(&mut self, version: &VersionId, folder: &Folder, at: Option<SystemTime>) -> Option<Step> {
        self.listing.versions.get(version).filter(|now| *now == folder)?;
        let Some(Stage::Settled(stage)) = self.stages.get_mut(version) else { return None };
        let why = format!("{} was touched", super::inventory::RESTART_FILE);
        stage.touched(at).then(|| told(version, settled::News::Restart(why)))
    }
}

fn step(kind: ChangeKind, why: &str) -> Step {
    Step { kind, why: why.to_owned() }
}

fn waits(version: VersionId, why: &Unfinished) -> Step {
    step(ChangeKind::Waits { version, why: Some(in_one_line(&why.to_string())) }, "it is quiet")
}

fn arriving(version: &VersionId, folder: &Folder, stage: Arriving) -> (Stage, Step) {
    let kind = ChangeKind::Arriving { version: version.clone(), path: folder.path.clone() };
    (Stage::Arriving(stage), step(kind, "its folder is there"))
}

fn settled(version: &VersionId, folder: &Folder, why: &str) -> Step {
    let (path, identity) = (folder.path.clone(), folder.identity);
    step(ChangeKind::Settled { version: version.clone(), path, identity }, why)
}

fn told(version: &VersionId, news: settled::News) -> Step {
    let version = version.clone();
    match news {
        settled::News::Modified(modification) => {
            step(ChangeKind::Modified { version, modification }, "its files were checked")
        }
        settled::News::Restart(why) => step(ChangeKind::RestartAsked { version, why }, "it settled"),
        settled::News::Waits(why) => {
            step(ChangeKind::Waits { version, why: Some(in_one_line(&why)) }, "its files were checked")
        }
    }
}
