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

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::super::manifest::Manifest;
    use super::*;
    use crate::registry::Ignored;

    const SETTLE: Duration = Duration::from_secs(1);

    /// A tracker, its clock, and a root that is set by hand.
    struct Root {
        tracker: Tracker,
        now: Instant,
        start: Instant,
        renamed_in: BTreeSet<PathBuf>,
    }

    impl Root {
        fn new() -> Self {
            let start = Instant::now();
            Self { tracker: Tracker::new(SETTLE), now: start, start, renamed_in: BTreeSet::new() }
        }

        fn pass(&mut self, ms: u64) {
            self.now += Duration::from_millis(ms);
        }

        /// Takes in a listing of `name`, `inode` pairs; a name with `@` is a symlink.
        fn list(&mut self, folders: &[(&str, u64)]) -> Vec<String> {
            let folder = |name: &str, ino| Folder {
                path: format!("/srv/{name}").into(),
                identity: (1, ino),
                link: name.ends_with('@'),
            };
            let versions = folders.iter().map(|(name, ino)| (VersionId::from(*name), folder(name, *ino)));
            self.take(Ok(Listing { versions: versions.collect(), ignored: Vec::new() }))
        }

        fn take(&mut self, listing: Result<Listing, RootError>) -> Vec<String> {
            let renamed_in = std::mem::take(&mut self.renamed_in);
            told(self.tracker.listed(listing, &renamed_in, self.now))
        }

        /// Looks at what is due; every folder was last changed `quiet` ms ago.
        fn look(&mut self, quiet: u64) -> Vec<String> {
            let due = self.tracker.take_due(usize::MAX, self.now);
            due.iter().flat_map(|due| self.judge(due, quiet, None)).collect()
        }

        fn judge(&mut self, due: &Due, quiet: u64, unfinished: Option<Unfinished>) -> Vec<String> {
            let quiet = Duration::from_millis(quiet);
            let wall: SystemTime = UNIX_EPOCH + Duration::from_secs(1_000_000) + (self.now - self.start);
            let manifest = Manifest { files: 3, newest: wall - quiet, unfinished };
            let look = Look { at: self.now, took: Duration::ZERO, quiet, manifest };
            told(self.tracker.looked(due, &look))
        }
    }

    fn told(steps: impl IntoIterator<Item = Step>) -> Vec<String> {
        let one = |step| match step {
            Step::Waits { version, why } => format!("{version} waits: {why}"),
            Step::Change { kind, .. } => match kind {
                ChangeKind::Arriving { version, .. } => format!("{version} arriving"),
                ChangeKind::Settled { version, identity, .. } => {
                    format!("{version} settled as {}", identity.1)
                }
                ChangeKind::Gone { version } => format!("{version} gone"),
                ChangeKind::Ignored(ignored) => format!("{} ignored", ignored.len()),
                ChangeKind::Root(problem) => format!("root: {}", problem.as_deref().unwrap_or("well")),
            },
        };
        steps.into_iter().map(one).collect()
    }

    const NOTHING: [&str; 0] = [];

    #[test]
    fn a_folder_arrives_settles_and_goes() {
        let mut root = Root::new();
        assert_eq!(root.list(&[]), NOTHING);
        root.pass(500);
        assert_eq!(root.list(&[("a", 1)]), ["a arriving"]);
        assert_eq!(root.look(0), NOTHING);
        assert_eq!(root.tracker.next_look(), Some(root.now + SETTLE));
        assert_eq!(root.look(0), NOTHING, "not due");
        root.pass(1_000);
        assert_eq!(root.look(1_000), ["a settled as 1"]);
        assert_eq!(root.list(&[("a", 1)]), NOTHING);
        assert_eq!(root.tracker.next_look(), None, "a settled folder is not looked at");
        assert_eq!(root.list(&[]), ["a gone"]);
    }

    #[test]
    fn at_the_start_old_folders_settle_at_once() {
        let mut root = Root::new();
        assert_eq!(root.list(&[("a", 1), ("b", 2)]), ["a arriving", "b arriving"]);
        assert_eq!(root.look(60_000), ["a settled as 1", "b settled as 2"]);
    }

    #[test]
    fn a_rename_into_place_settles_at_once_also_when_its_news_come_late() {
        let mut root = Root::new();
        root.list(&[]);
        root.renamed_in.insert("/srv/a".into());
        assert_eq!(root.list(&[("a", 1)]), ["a arriving"]);
        assert_eq!(root.look(0), ["a settled as 1"]);

        assert_eq!(root.list(&[("a", 1), ("b", 2)]), ["b arriving"]);
        assert_eq!(root.look(0), NOTHING);
        root.renamed_in.insert("/srv/b".into());
        assert_eq!(root.list(&[("a", 1), ("b", 2)]), NOTHING);
        assert_eq!(root.look(0), ["b settled as 2"]);
    }

    #[test]
    fn a_settled_version_that_is_renamed_is_settled_and_half_an_upload_is_not() {
        let mut root = Root::new();
        root.list(&[("a", 1)]);
        root.look(60_000);
        root.renamed_in.insert("/srv/b".into());
        assert_eq!(root.list(&[("b", 1)]), ["a gone", "b settled as 1"]);

        root.pass(500);
        root.list(&[("b", 1), ("c", 3)]);
        assert_eq!(root.look(0), NOTHING);
        root.renamed_in.insert("/srv/d".into());
        assert_eq!(root.list(&[("b", 1), ("d", 3)]), ["c gone", "d arriving"]);
        assert_eq!(root.look(0), NOTHING);
    }

    #[test]
    fn a_replaced_folder_starts_from_the_beginning() {
        let mut root = Root::new();
        root.list(&[("a", 1), ("l@", 1)]);
        root.look(60_000);
        root.pass(500);
        assert_eq!(root.list(&[("a", 2), ("l@", 2)]), ["a gone", "l@ gone", "a arriving", "l@ arriving"]);
        assert_eq!(
            root.look(2_000),
            ["l@ settled as 2"],
            "the stamps of a folder that just came are not believed"
        );
        root.pass(1_000);
        assert_eq!(root.look(3_000), ["a settled as 2"]);
    }

    #[test]
    fn a_look_at_a_folder_that_was_replaced_meanwhile_counts_for_nothing() {
        let mut root = Root::new();
        root.list(&[("a", 1)]);
        let due = root.tracker.take_due(1, root.now);
        root.list(&[("a", 2)]);
        assert_eq!(root.judge(&due[0], 60_000, None), NOTHING);
        root.list(&[]);
        assert_eq!(root.judge(&due[0], 60_000, None), NOTHING);
    }

    #[test]
    fn what_keeps_a_quiet_folder_from_settling_is_said_once() {
        let mut root = Root::new();
        root.list(&[("a", 1)]);
        let due = root.tracker.take_due(1, root.now).remove(0);
        let left = || Some(Unfinished::Transfer("/srv/a/.b.Xa81bQ".into()));
        assert_eq!(root.judge(&due, 10, left()), NOTHING, "the upload goes on");
        let said = root.judge(&due, 5_000, left());
        assert_eq!(said, ["a waits: rsync is not done, or was cut off: `/srv/a/.b.Xa81bQ` is left"]);
        assert_eq!(root.judge(&due, 6_000, left()), NOTHING);
        assert_eq!(root.judge(&due, 7_000, Some(Unfinished::Empty)), ["a waits: there is no file in it"]);
    }

    #[test]
    fn few_are_looked_at_at_a_time_and_each_once() {
        let mut root = Root::new();
        root.list(&[("a", 1), ("b", 2), ("c", 3)]);
        assert_eq!(root.tracker.take_due(2, root.now).len(), 2);
        assert_eq!(root.tracker.take_due(2, root.now).len(), 1);
        assert_eq!(root.tracker.take_due(2, root.now).len(), 0);
    }

    #[test]
    fn a_root_that_is_gone_takes_its_versions_along_and_one_that_cannot_be_read_does_not() {
        let mut root = Root::new();
        let unreadable = || RootError::Unreadable { path: "/srv".into(), error: "denied".into() };
        let missing = || RootError::Missing("/srv".into());
        root.list(&[("a", 1)]);
        root.look(60_000);
        assert_eq!(root.take(Err(unreadable())).len(), 1, "only the root");
        assert_eq!(root.take(Err(unreadable())), NOTHING, "said once");
        assert_eq!(root.list(&[("a", 1)]), ["root: well"]);

        let steps = root.take(Err(missing()));
        assert_eq!(steps, ["root: deploy root `/srv` does not exist (hint: mkdir -p /srv)", "a gone"]);
        root.pass(500);
        assert_eq!(root.list(&[("a", 1)]), ["root: well", "a arriving"]);
    }

    #[test]
    fn the_list_of_ignored_entries_is_sent_when_it_changes() {
        let mut root = Root::new();
        let ignored = vec![Ignored { name: "x".into(), reason: "not a folder".into() }];
        let listing = Listing { ignored, ..Listing::default() };
        assert_eq!(root.take(Ok(listing.clone())), ["1 ignored"]);
        assert_eq!(root.take(Ok(listing)), NOTHING);
        assert_eq!(root.list(&[]), ["0 ignored"]);
    }
}
