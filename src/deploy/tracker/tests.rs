//! The tracker with a clock and a root that are set by hand.

use std::time::{SystemTime, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;
use crate::deploy::Modification;
use crate::deploy::manifest::Manifest;
use crate::deploy::proof::Proof;
use crate::deploy::restart_file::RestartFile;
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
        Self::with(false)
    }

    fn with(restart_on_change: bool) -> Self {
        let start = Instant::now();
        let tracker = Tracker::new(Policy { settle: SETTLE, restart_on_change }, start);
        Self { tracker, now: start, start, renamed_in: BTreeSet::new() }
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

    /// Does what is due; every folder was last changed `quiet` ms ago, and nothing else speaks against it.
    fn look(&mut self, quiet: u64) -> Vec<String> {
        self.prove(quiet, &complete())
    }

    /// Likewise; what comes to the proof is this.
    fn prove(&mut self, quiet: u64, proof: &Proof) -> Vec<String> {
        let mut told = Vec::new();
        loop {
            let due = self.tracker.take_due(usize::MAX, self.now);
            if due.is_empty() {
                return told;
            }
            for due in due {
                told.extend(match &due.task {
                    Task::Look => self.judge(&due, quiet, None),
                    Task::Prove(_) => self.proven(&due, proof.clone()),
                    Task::Check(_) => self.checked(&due, quiet, None),
                });
            }
        }
    }

    fn judge(&mut self, due: &Due, quiet: u64, unfinished: Option<Unfinished>) -> Vec<String> {
        let look = self.seen(quiet, unfinished);
        told(self.tracker.seen(due, Seen::Look(look)))
    }

    fn seen(&self, quiet: u64, unfinished: Option<Unfinished>) -> Look {
        let quiet = Duration::from_millis(quiet);
        let wall: SystemTime = UNIX_EPOCH + Duration::from_secs(1_000_000) + (self.now - self.start);
        let manifest = Manifest { files: 3, newest: wall - quiet, unfinished, inventory: Arc::default() };
        Look { at: self.now, took: Duration::ZERO, quiet, manifest }
    }

    fn proven(&mut self, due: &Due, proof: Proof) -> Vec<String> {
        let proven = Proven { at: self.now, took: Duration::ZERO, proof };
        told(self.tracker.seen(due, Seen::Proof(proven)))
    }

    /// Answers a check: the files were last changed `quiet` ms ago, and of those that were there, this one since the
    /// last check.
    fn checked(&mut self, due: &Due, quiet: u64, file: Option<&str>) -> Vec<String> {
        let all = self.seen(quiet, None);
        let modification = file.map(|file| Modification {
            files: vec![file.to_owned()],
            others: false,
            at: all.manifest.newest,
        });
        told(self.tracker.seen(due, Seen::Check(Checked { known: all.clone(), all, modification })))
    }

    /// The one check that is due.
    fn check(&mut self) -> Due {
        let mut due = self.tracker.take_due(usize::MAX, self.now);
        assert!(matches!(&due[..], [Due { task: Task::Check(_), .. }]), "{due:?}");
        due.remove(0)
    }
}

fn complete() -> Proof {
    let (folder, newest) = (std::path::Path::new("/nowhere"), UNIX_EPOCH);
    Proof::Complete { files: Arc::default(), restart_file: RestartFile::read(folder, newest) }
}

fn told(steps: impl IntoIterator<Item = Step>) -> Vec<String> {
    let one = |step: Step| match step.kind {
        ChangeKind::Arriving { version, .. } => format!("{version} arriving"),
        ChangeKind::Waits { version, why: Some(why) } => format!("{version} waits: {why}"),
        ChangeKind::Waits { version, why: None } => format!("{version} goes on"),
        ChangeKind::Broken { version, why, .. } => format!("{version} broken: {why}"),
        ChangeKind::Settled { version, identity, .. } => {
            format!("{version} settled as {}", identity.1)
        }
        ChangeKind::Modified { version, modification } => format!("{version} modified: {modification}"),
        ChangeKind::RestartAsked { version, why } => format!("{version} to restart: {why}"),
        ChangeKind::Gone { version } => format!("{version} gone"),
        ChangeKind::Ignored(ignored) => format!("{} ignored", ignored.len()),
        ChangeKind::Root(problem) => format!("root: {}", problem.as_deref().unwrap_or("well")),
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
    assert_eq!(root.tracker.next_due(), Some(root.now + SETTLE));
    assert_eq!(root.look(0), NOTHING, "not due");
    root.pass(1_000);
    assert_eq!(root.look(1_000), ["a settled as 1"]);
    assert_eq!(root.list(&[("a", 1)]), NOTHING);
    assert_eq!(root.tracker.next_due(), Some(root.now + settled::CHECK_EVERY), "it is checked now and then");
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
    let left = || Some(Unfinished::Transfer(".b.Xa81bQ".into()));
    assert_eq!(root.judge(&due, 10, left()), NOTHING, "the upload goes on");
    root.pass(10_000);
    let said = root.judge(&due, 5_000, left());
    assert_eq!(said, ["a waits: a transfer is not done, or was cut off: `.b.Xa81bQ` is left"]);
    root.pass(10_000);
    assert_eq!(root.judge(&due, 6_000, left()), NOTHING);
    root.pass(10_000);
    assert_eq!(root.judge(&due, 7_000, Some(Unfinished::Empty)), ["a waits: there is no file in it"]);
    root.pass(10_000);
    assert_eq!(root.judge(&due, 10, left()), ["a goes on"]);
}

#[test]
fn a_quiet_folder_is_put_to_the_proof_until_nothing_speaks_against_it() {
    let mut root = Root::new();
    root.list(&[]);
    root.pass(500);
    assert_eq!(root.list(&[("a", 1)]), ["a arriving"]);
    assert_eq!(root.look(0), NOTHING);
    root.pass(1_000);
    let awaits = Proof::Unfinished(Unfinished::Awaits(".ready".into()));
    assert_eq!(root.prove(1_000, &awaits), ["a waits: waits for .ready"]);
    root.pass(1_000);
    assert_eq!(root.prove(2_000, &awaits), NOTHING, "said once");
    root.pass(1_000);
    assert_eq!(root.look(3_000), ["a settled as 1"]);
}

#[test]
fn a_folder_that_changes_during_the_proof_is_looked_at_again() {
    let mut root = Root::new();
    root.list(&[("a", 1)]);
    let look = root.tracker.take_due(1, root.now).remove(0);
    assert_eq!(root.judge(&look, 60_000, None), NOTHING);
    let proof = root.tracker.take_due(1, root.now).remove(0);
    root.pass(100);
    assert_eq!(root.proven(&proof, Proof::Changed), NOTHING);
    assert_eq!(root.look(50), NOTHING);
    root.pass(950);
    assert_eq!(root.look(1_000), ["a settled as 1"]);
}

#[test]
fn what_is_broken_is_not_proven_again_until_it_has_changed() {
    let mut root = Root::new();
    root.list(&[("a", 1)]);
    let broken = Proof::Broken("manifest.sha256: b is missing".into());
    assert_eq!(root.prove(60_000, &broken), ["a broken: manifest.sha256: b is missing"]);
    root.pass(1_000);
    let tasks = |root: &mut Root| {
        let due = root.tracker.take_due(1, root.now).remove(0);
        root.judge(&due, 61_000, None);
        root.tracker.take_due(1, root.now).len()
    };
    assert_eq!(tasks(&mut root), 0, "no proof of the same folder");
    root.pass(1_000);
    assert_eq!(root.look(500), NOTHING, "it is uploaded again");
    root.pass(500);
    assert_eq!(root.look(1_000), ["a settled as 1"]);
}

#[test]
fn changed_files_are_told_and_restart_nothing_unless_asked_to() {
    let mut root = Root::new();
    root.list(&[("a", 1)]);
    root.look(60_000);
    root.pass(2_000);
    let check = root.check();
    assert_eq!(root.checked(&check, 5, Some("b")), ["a modified: b"]);
    root.pass(60_000);
    assert_eq!(root.look(62_000), NOTHING);
}

#[test]
fn changed_files_restart_once_their_folder_is_complete_again() {
    let mut root = Root::with(true);
    root.list(&[("a", 1)]);
    root.look(60_000);
    root.pass(2_000);
    let check = root.check();
    assert_eq!(root.checked(&check, 400, Some("b")), ["a modified: b"]);
    root.pass(600);
    let check = root.check();
    assert_eq!(root.checked(&check, 10, Some("c")), ["a modified: c"], "the upload goes on");
    root.pass(990);
    let open = Proof::Broken("manifest.sha256: d is missing".into());
    let said = ["a waits: not restarted since its files changed: manifest.sha256: d is missing"];
    assert_eq!(root.prove(1_000, &open), said);
    root.pass(2_000);
    assert_eq!(root.prove(3_000, &open), NOTHING, "said once");
    root.pass(2_000);
    assert_eq!(root.look(5_000), ["a to restart: its files have changed: c"]);
    root.pass(60_000);
    assert_eq!(root.look(65_000), NOTHING, "once");
}

#[test]
fn an_application_that_writes_all_the_time_does_not_keep_its_version_from_its_restart() {
    let mut root = Root::with(true);
    root.list(&[("a", 1)]);
    root.look(60_000);
    root.pass(2_000);
    let check = root.check();
    root.checked(&check, 0, Some("b"));
    let changed = root.now;
    loop {
        root.pass(500);
        let mut told = Vec::new();
        for due in root.tracker.take_due(usize::MAX, root.now) {
            told = if due.task == Task::Check(Arc::default()) {
                // A log was written just now; what changed first has not changed since.
                let (all, mut known) = (root.seen(0, None), root.seen(0, None));
                known.quiet = root.now - changed;
                known.manifest.newest -= known.quiet;
                super::tests::told(
                    root.tracker.seen(&due, Seen::Check(Checked { all, known, modification: None })),
                )
            } else {
                root.proven(&due, complete())
            };
        }
        if !told.is_empty() {
            assert_eq!(told, ["a to restart: its files have changed: b"]);
            break;
        }
    }
    let waited = root.now - changed;
    assert!(waited > Duration::from_secs(30) && waited < Duration::from_secs(35), "{waited:?}");
}

#[test]
fn checks_wait_for_each_other_and_take_a_hundredth_of_the_time() {
    let mut root = Root::new();
    root.list(&[("a", 1), ("b", 2), ("c", 3)]);
    root.look(60_000);
    root.pass(2_000);
    let first = root.check();
    assert_eq!(root.tracker.take_due(9, root.now).len(), 0, "one at a time");
    let slow = Look { took: Duration::from_millis(50), ..root.seen(60_000, None) };
    let checked = Checked { known: slow.clone(), all: slow, modification: None };
    root.tracker.seen(&first, Seen::Check(checked));
    assert_eq!(root.tracker.next_due(), Some(root.now + Duration::from_millis(5_050)));
    root.pass(5_050);
    assert_ne!(root.check().version, first.version, "the others come first");
}

#[test]
fn a_check_of_a_folder_that_went_away_does_not_stop_the_others() {
    let mut root = Root::new();
    root.list(&[("a", 1), ("b", 2)]);
    root.look(60_000);
    root.pass(2_000);
    let check = root.check();
    root.list(&[("b", 2)]);
    assert_eq!(root.checked(&check, 60_000, Some("x")), NOTHING);
    root.pass(2_000);
    assert_eq!(root.check().version, "b".into());
}

#[test]
fn a_touched_restart_file_asks_for_a_restart_once() {
    let mut root = Root::new();
    root.list(&[("a", 1), ("b", 2)]);
    root.look(60_000);
    let folders: Vec<(VersionId, Folder)> =
        root.tracker.running().map(|(version, folder)| (version.clone(), folder.clone())).collect();
    let (version, folder) = &folders[0];
    let mut touch = |at: Option<u64>| {
        let at = at.map(|second| UNIX_EPOCH + Duration::from_secs(second));
        told(root.tracker.touched(version, folder, at))
    };
    assert_eq!(touch(None), NOTHING);
    assert_eq!(touch(Some(5)), ["a to restart: tmp/restart.txt was touched"]);
    assert_eq!(touch(Some(5)), NOTHING);
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
