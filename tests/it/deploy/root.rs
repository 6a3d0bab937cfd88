//! A watched deploy root in a temporary folder, and the programs that fill it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, SystemTime};

use regex::Regex;
use switchman::deploy::watcher::{self, WatchSpec};
use switchman::deploy::{ChangeKind, VersionChange, manifest};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::support::patience;

/// The default of these tests.
pub(crate) const SETTLE: Duration = Duration::from_millis(300);

/// What these tests watch.
pub(crate) fn spec(root: PathBuf, settle: Duration) -> WatchSpec {
    let versions = Regex::new("^[0-9a-f]{7,64}$").unwrap();
    // Beside the root: what is made in it would be told.
    let kept = root.with_extension("kept");
    WatchSpec {
        service: "app".into(),
        root,
        versions,
        settle,
        complete_when: None,
        restart_on_change: false,
        kept,
    }
}

/// A watched deploy root, and what is told of it.
pub(crate) struct Deploy {
    folder: tempfile::TempDir,
    changes: mpsc::Receiver<VersionChange>,
    cancel: CancellationToken,
}

/// What was told, with the part that differs between runs left out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Told {
    Arriving(String),
    Settled(String),
    Waits(String, Option<String>),
    Broken(String, String),
    Modified(String, String),
    RestartAsked(String, String),
    Gone(String),
    Ignored(Vec<(String, String)>),
    Root(Option<String>),
}

pub(crate) fn arriving(version: &str) -> Told {
    Told::Arriving(version.to_owned())
}

pub(crate) fn settled(version: &str) -> Told {
    Told::Settled(version.to_owned())
}

pub(crate) fn waits(version: &str, why: &str) -> Told {
    Told::Waits(version.to_owned(), Some(why.to_owned()))
}

/// A folder that was quiet changes again.
pub(crate) fn goes_on(version: &str) -> Told {
    Told::Waits(version.to_owned(), None)
}

pub(crate) fn gone(version: &str) -> Told {
    Told::Gone(version.to_owned())
}

impl Deploy {
    /// A watched root that is there.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("app")).unwrap();
        Self::watch(folder, SETTLE)
    }

    /// Watches `app` in `folder`.
    pub(crate) fn watch(folder: tempfile::TempDir, settle: Duration) -> Self {
        Self::watch_as(folder, |spec| WatchSpec { settle, ..spec })
    }

    /// Likewise, in a way of its own.
    pub(crate) fn watch_as(folder: tempfile::TempDir, with: impl FnOnce(WatchSpec) -> WatchSpec) -> Self {
        let (sender, changes) = mpsc::channel(64);
        let cancel = CancellationToken::new();
        watcher::spawn(with(spec(folder.path().join("app"), SETTLE)), sender, cancel.clone());
        Self { folder, changes, cancel }
    }

    /// Waits until the root is being watched: what is renamed into it is seen as such.
    pub(crate) async fn in_force(&mut self) {
        let probe = self.root().join("probe");
        fs::write(&probe, "").unwrap();
        assert!(matches!(self.next().await, Told::Ignored(_)));
        fs::remove_file(&probe).unwrap();
        assert_eq!(self.next().await, Told::Ignored(vec![]));
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("app")
    }

    /// A place on the same file system that is not watched.
    pub(crate) fn elsewhere(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) async fn next_change(&mut self) -> ChangeKind {
        let change = tokio::time::timeout(patience(), self.changes.recv()).await;
        let change = change.expect("nothing was told").expect("the watcher ended");
        assert_eq!(change.service.as_str(), "app");
        change.kind
    }

    pub(crate) async fn next(&mut self) -> Told {
        let name = |version: switchman::version::VersionId| version.to_string();
        match self.next_change().await {
            ChangeKind::Arriving { version, path } => {
                assert_eq!(path, self.root().join(version.as_str()));
                Told::Arriving(name(version))
            }
            ChangeKind::Settled { version, path, .. } => {
                assert_eq!(path, self.root().join(version.as_str()));
                Told::Settled(name(version))
            }
            ChangeKind::Waits { version, why } => Told::Waits(name(version), why),
            ChangeKind::Broken { version, why, .. } => Told::Broken(name(version), why),
            ChangeKind::Modified { version, modification } => {
                Told::Modified(name(version), modification.to_string())
            }
            ChangeKind::RestartAsked { version, why } => Told::RestartAsked(name(version), why),
            ChangeKind::Gone { version } => Told::Gone(name(version)),
            ChangeKind::Ignored(list) => {
                Told::Ignored(list.into_iter().map(|i| (i.name, i.reason)).collect())
            }
            ChangeKind::Root(problem) => Told::Root(problem),
        }
    }

    pub(crate) async fn expect(&mut self, expected: &[Told]) {
        for told in expected {
            assert_eq!(&self.next().await, told);
        }
    }

    /// Waits until the version is told to have settled; it may go on arriving before. Answers with how long after the
    /// last change in its folder that was, by the kernel's stamps.
    pub(crate) async fn settles(&mut self, version: &str) -> Duration {
        loop {
            match self.next().await {
                Told::Settled(name) if name == version => break,
                Told::Arriving(name) | Told::Waits(name, _) if name == version => {}
                other => panic!("{other:?}"),
            }
        }
        let told = SystemTime::now();
        let newest = manifest::look(&self.root().join(version)).manifest.newest;
        told.duration_since(newest).unwrap()
    }

    /// Waits until this many versions are told to have settled, and nothing else.
    pub(crate) async fn settles_all(&mut self, count: usize) {
        for _ in 0..count {
            assert!(matches!(self.next().await, Told::Settled(_)));
        }
    }

    /// Ends the watching; the folder stays.
    pub(crate) fn ends(mut self) -> tempfile::TempDir {
        self.cancel.cancel();
        let empty = tempfile::tempdir().unwrap();
        std::mem::replace(&mut self.folder, empty)
    }

    /// Asserts that nothing is told for `time`.
    pub(crate) async fn silence(&mut self, time: Duration) {
        if let Ok(told) = tokio::time::timeout(time, self.changes.recv()).await {
            panic!("nothing should have been told, but: {told:?}");
        }
    }
}

impl Drop for Deploy {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// A build with `files` files of `size` bytes each in a few folders.
pub(crate) fn build(at: &Path, files: usize, size: usize) {
    for n in 0..files {
        let folder = at.join(format!("lib/part{}", n % 5));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("file{n}.js")), vec![b'x'; size]).unwrap();
    }
}

pub(crate) fn start(program: &str, arguments: &[&str], paths: &[&Path]) -> Child {
    let started = Command::new(program).args(arguments).args(paths).spawn();
    started.unwrap_or_else(|error| panic!("{program}: {error}: apt-get install {program}"))
}

pub(crate) fn run(program: &str, arguments: &[&str], paths: &[&Path]) {
    let status = start(program, arguments, paths).wait().unwrap();
    assert!(status.success(), "{program} {arguments:?} {paths:?}: {status}");
}

/// The same folder, named so that rsync copies what is in it.
pub(crate) fn contents(folder: &Path) -> PathBuf {
    folder.join("")
}
