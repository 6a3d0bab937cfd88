//! Watches one deploy root and tells the supervisor what becomes of its versions.
//!
//! A thin loop: an event only says "look again"; [`scan`], [`look`], [`prove`] and [`check`] read, the
//! [`Tracker`] decides, and this file logs and sends. File systems are read on blocking threads, since they can hang.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use regex::Regex;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::check::check;
use super::kept::Kept;
use super::manifest::look;
use super::proof::{Proof, prove};
use super::scan::{Folder, Listing, RootError, scan};
use super::tracker::{Due, Policy, Seen, Step, Task, Tracker};
use super::{ChangeKind, VersionChange, restart_file};
use crate::fs_watch::{self, Changed, EntryChange};
use crate::version::{ServiceName, VersionId};

/// The root is read again after this long without an event, so that one that was missed heals.
const RESCAN: Duration = Duration::from_secs(30);
/// The same where a version is a symlink: what becomes of its other end is no event in the root.
const RESCAN_LINKS: Duration = Duration::from_secs(1);
/// The root is not read more often than this, whatever happens in it.
const SCAN_PAUSE: Duration = Duration::from_millis(20);
/// Folders that are looked at at the same time.
const LOOKS_MAX: usize = 4;
/// How often the restart files of all versions are looked at: one `stat` a version.
const RESTART_FILES_EVERY: Duration = Duration::from_secs(1);

/// What to watch.
#[derive(Debug, Clone)]
pub struct WatchSpec {
    /// The service whose versions these are.
    pub service: ServiceName,
    /// Its deploy root, absolute.
    pub root: PathBuf,
    /// Folder names that are versions.
    pub versions: Regex,
    /// How long nothing below a folder may change before it counts as complete.
    pub settle: Duration,
    /// The file that comes last, below each folder: without it no folder is complete. A list as `sha256sum` writes it
    /// is held against the files.
    pub complete_when: Option<PathBuf>,
    /// Whether a version whose files have changed is restarted, once its folder is complete again.
    pub restart_on_change: bool,
    /// A folder for what is remembered of the versions' files.
    pub kept: PathBuf,
}

/// Watches `spec.root` until `cancel`, or until nobody takes the changes any more.
pub fn spawn(
    spec: WatchSpec,
    changes: mpsc::Sender<VersionChange>,
    cancel: CancellationToken,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        cancel.run_until_cancelled(RootWatcher::new(spec, changes).run()).await;
    })
}

/// Everything that can wake the watcher.
enum Event {
    /// Something changed directly under the root, or it is time to read it again.
    Scan(Option<Changed>),
    /// What was due was done.
    Done(Done),
    /// Something is due to be done with a folder.
    Due,
    /// The restart files are due to be looked at.
    RestartFilesDue,
}

/// What a blocking thread did.
enum Done {
    /// A folder was looked at, in one way or another.
    Seen(Box<(Due, Seen)>),
    /// When the restart files of these folders were last modified.
    RestartFiles(Vec<(VersionId, Folder, Option<SystemTime>)>),
}

struct RootWatcher {
    spec: Arc<WatchSpec>,
    changes: mpsc::Sender<VersionChange>,
    kept: Kept,
    tracker: Tracker,
    jobs: JoinSet<Done>,
    /// Whether a version is a symlink.
    links: bool,
    /// When the restart files are looked at next; none while they are.
    restart_files: Option<Instant>,
}

/// Nobody takes the changes any more.
struct Closed;

impl RootWatcher {
    fn new(spec: WatchSpec, changes: mpsc::Sender<VersionChange>) -> Self {
        let WatchSpec { settle, restart_on_change, .. } = spec;
        let tracker = Tracker::new(Policy { settle, restart_on_change }, Instant::now());
        let kept = Kept::new(spec.kept.clone());
        let restart_files = Some(Instant::now());
        let (spec, jobs) = (Arc::new(spec), JoinSet::new());
        Self { spec, changes, kept, tracker, jobs, links: false, restart_files }
    }

    async fn run(mut self) -> Result<(), Closed> {
        let mut watch = fs_watch::watch(&self.spec.root);
        let mut scanned = self.scan(BTreeSet::new()).await?;
        loop {
            self.start_jobs();
            match self.next_event(&mut watch, scanned).await {
                Event::Scan(changed) => scanned = self.scan(renamed_in(changed)).await?,
                Event::Done(Done::Seen(seen)) => {
                    let (due, seen) = *seen;
                    for step in self.tracker.seen(&due, seen) {
                        self.take(step).await?;
                    }
                }
                Event::Done(Done::RestartFiles(files)) => {
                    self.restart_files = Some(Instant::now() + RESTART_FILES_EVERY);
                    for (version, folder, touched) in files {
                        if let Some(step) = self.tracker.touched(&version, &folder, touched) {
                            self.take(step).await?;
                        }
                    }
                }
                Event::Due => {}
                Event::RestartFilesDue => self.look_at_restart_files(),
            }
        }
    }

    async fn next_event(&mut self, watch: &mut fs_watch::Watch, scanned: Instant) -> Event {
        let rescan = scanned + if self.links { RESCAN_LINKS } else { RESCAN };
        let next_due = self.tracker.next_due().filter(|_| self.jobs.len() < LOOKS_MAX);
        let restart_files = self.restart_files.filter(|_| self.tracker.running().next().is_some());
        let changed = async {
            tokio::time::sleep_until((scanned + SCAN_PAUSE).into()).await;
            watch.next().await
        };
        tokio::select! {
            changed = changed => Event::Scan(Some(changed)),
            () = tokio::time::sleep_until(rescan.into()) => Event::Scan(None),
            () = until(next_due) => Event::Due,
            () = until(restart_files) => Event::RestartFilesDue,
            Some(Ok(done)) = self.jobs.join_next() => Event::Done(done),
        }
    }

    /// Reads the root and takes in what is different; answers when that was done.
    async fn scan(&mut self, renamed_in: BTreeSet<PathBuf>) -> Result<Instant, Closed> {
        let (root, versions, now) = (self.spec.root.clone(), self.spec.versions.clone(), Instant::now());
        let kept = self.kept.clone();
        let listing = tokio::task::spawn_blocking(move || {
            let listing = scan(&root, &versions);
            if let Ok(listing) = &listing {
                kept.retain(&listing.versions);
            }
            listing
        });
        let Ok(listing): Result<Result<Listing, RootError>, _> = listing.await else { return Err(Closed) };
        if let Ok(listing) = &listing {
            self.links = listing.versions.values().any(|folder| folder.link);
        }
        for step in self.tracker.listed(listing, &renamed_in, now) {
            self.take(step).await?;
        }
        Ok(Instant::now())
    }

    fn start_jobs(&mut self) {
        for due in self.tracker.take_due(LOOKS_MAX.saturating_sub(self.jobs.len()), Instant::now()) {
            let (spec, kept) = (self.spec.clone(), self.kept.clone());
            self.jobs.spawn_blocking(move || {
                let seen = see(&spec, &kept, &due);
                Done::Seen(Box::new((due, seen)))
            });
        }
    }

    fn look_at_restart_files(&mut self) {
        self.restart_files = None;
        let folders: Vec<(VersionId, Folder)> =
            self.tracker.running().map(|(version, folder)| (version.clone(), folder.clone())).collect();
        self.jobs.spawn_blocking(move || {
            let touched = folders.into_iter().map(|(version, folder)| {
                let touched = restart_file::touched(&folder.path);
                (version, folder, touched)
            });
            Done::RestartFiles(touched.collect())
        });
    }

    async fn take(&self, Step { kind, why }: Step) -> Result<(), Closed> {
        self.log(&kind, &why);
        let change = VersionChange { service: self.spec.service.clone(), kind };
        self.changes.send(change).await.map_err(|_| Closed)
    }

    fn log(&self, kind: &ChangeKind, why: &str) {
        let service = &self.spec.service;
        match kind {
            ChangeKind::Arriving { version, path } => {
                tracing::info!(%service, %version, path = %path.display(), "arriving: {why}");
            }
            ChangeKind::Settled { version, path, .. } => {
                tracing::info!(%service, %version, path = %path.display(), "settled: {why}");
            }
            ChangeKind::Waits { version, why: Some(why) } => tracing::warn!(%service, %version, "{why}"),
            ChangeKind::Waits { version, why: None } => tracing::info!(%service, %version, "{why}"),
            ChangeKind::Broken { version, why, .. } => tracing::error!(%service, %version, "{why}"),
            // The supervisor knows whether it is news.
            ChangeKind::Modified { version, modification } => {
                tracing::debug!(%service, %version, "modified: {modification}");
            }
            ChangeKind::RestartAsked { version, why } => {
                tracing::info!(%service, %version, "to restart: {why}")
            }
            ChangeKind::Gone { version } => tracing::info!(%service, %version, "gone: {why}"),
            ChangeKind::Ignored(ignored) => {
                tracing::debug!(%service, "{} entries of the deploy root are no versions", ignored.len());
            }
            ChangeKind::Root(Some(problem)) => tracing::error!(%service, "{problem}"),
            ChangeKind::Root(None) => tracing::info!(%service, "the deploy root can be read again"),
        }
    }
}

/// Does what is due with a folder. Blocks.
fn see(spec: &WatchSpec, kept: &Kept, due: &Due) -> Seen {
    let Folder { path, identity, .. } = &due.folder;
    match &due.task {
        Task::Look => Seen::Look(look(path)),
        Task::Check(files) => Seen::Check(check(path, files)),
        Task::Prove(claim) => {
            let marker = spec.complete_when.as_ref();
            if claim.runs.is_some() {
                return Seen::Proof(prove(path, marker, None, claim));
            }
            let before = kept.load(*identity);
            let mut proven = prove(path, marker, before.as_ref(), claim);
            if let Proof::Complete { files, .. } = &mut proven.proof {
                match before {
                    // What the application has written beside the files that it had then is none of them.
                    Some(before) => *files = Arc::new(before),
                    None => kept.store(*identity, files),
                }
            }
            Seen::Proof(proven)
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// The paths that were renamed into the root.
fn renamed_in(changed: Option<Changed>) -> BTreeSet<PathBuf> {
    match changed {
        Some(Changed::Entries(entries)) => entries
            .into_iter()
            .filter(|(_, change)| *change == EntryChange::RenamedIn)
            .map(|(path, _)| path)
            .collect(),
        Some(Changed::Everything) | None => BTreeSet::new(),
    }
}
