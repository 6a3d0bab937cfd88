//! The tracker with a clock and a root that are set by hand.

use std::time::{SystemTime, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;
use crate::deploy::manifest::Manifest;
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

proptest! {
    /// What the supervisor relies on, whatever happens in the root: a version comes before it settles or goes,
    /// goes before it comes again, and the versions that have come are those that are there.
    #[test]
    fn the_changes_tell_a_consistent_story(
        listings in prop::collection::vec(prop::collection::btree_map("[a-d]", 0u64..4, 0..4), 1..20),
        quiet in prop::collection::vec(0u64..2_000, 20),
    ) {
        let mut root = Root::new();
        let mut complete: BTreeMap<String, bool> = BTreeMap::new();
        for (folders, quiet) in listings.iter().zip(quiet) {
            root.pass(700);
            root.renamed_in = folders.keys().take(1).map(|name| format!("/srv/{name}").into()).collect();
            let folders: Vec<(&str, u64)> = folders.iter().map(|(name, ino)| (name.as_str(), *ino)).collect();
            let mut steps = root.list(&folders);
            steps.extend(root.look(quiet));
            for step in steps {
                let (version, what) = step.split_once(' ').unwrap();
                let before = match what {
                    "gone" => complete.remove(version),
                    "arriving" => complete.insert(version.to_owned(), false),
                    _ => complete.insert(version.to_owned(), true),
                };
                let expected = if what == "gone" { before.is_some() } else { before != Some(true) };
                prop_assert!(expected, "{step} after {before:?}");
            }
            prop_assert!(complete.keys().eq(folders.iter().map(|(name, _)| *name)));
        }
    }
}
