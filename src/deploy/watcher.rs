//! Watches one deploy root and tells the supervisor what becomes of its versions.
//!
//! A thin loop: an event only says "look again"; [`scan`] and [`manifest`](super::manifest) read, the
//! [`Tracker`] decides, and this file logs and sends. File systems are read on blocking threads, since they can hang.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use regex::Regex;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::manifest::{Look, look};
use super::scan::{Listing, RootError, scan};
use super::tracker::{Due, Step, Tracker};
use super::{ChangeKind, VersionChange};
use crate::fs_watch::{self, Changed, EntryChange};
use crate::version::ServiceName;

/// The root is read again after this long without an event, so that one that was missed heals.
const RESCAN: Duration = Duration::from_secs(30);
/// The same where a version is a symlink: what becomes of its other end is no event in the root.
const RESCAN_LINKS: Duration = Duration::from_secs(1);
/// The root is not read more often than this, whatever happens in it.
const SCAN_PAUSE: Duration = Duration::from_millis(20);
/// Folders that are looked at at the same time.
const LOOKS_MAX: usize = 4;

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
    /// A folder was looked at.
    Looked(Due, Look),
    /// A folder is due to be looked at.
    LookDue,
}

struct RootWatcher {
    spec: WatchSpec,
    changes: mpsc::Sender<VersionChange>,
    tracker: Tracker,
    looks: JoinSet<(Due, Look)>,
    /// Whether a version is a symlink.
    links: bool,
}

/// Nobody takes the changes any more.
struct Closed;

impl RootWatcher {
    fn new(spec: WatchSpec, changes: mpsc::Sender<VersionChange>) -> Self {
        let tracker = Tracker::new(spec.settle);
        Self { spec, changes, tracker, looks: JoinSet::new(), links: false }
    }

    async fn run(mut self) -> Result<(), Closed> {
        let mut watch = fs_watch::watch(&self.spec.root);
        let mut scanned = self.scan(BTreeSet::new()).await?;
        loop {
            self.start_looks();
            match self.next_event(&mut watch, scanned).await {
                Event::Scan(changed) => scanned = self.scan(renamed_in(changed)).await?,
                Event::Looked(due, look) => {
                    if let Some(step) = self.tracker.looked(&due, &look) {
                        self.take(step).await?;
                    }
                }
                Event::LookDue => {}
            }
        }
    }

    async fn next_event(&mut self, watch: &mut fs_watch::Watch, scanned: Instant) -> Event {
        let rescan = scanned + if self.links { RESCAN_LINKS } else { RESCAN };
        let next_look = self.tracker.next_look().filter(|_| self.looks.len() < LOOKS_MAX);
        let changed = async {
            tokio::time::sleep_until((scanned + SCAN_PAUSE).into()).await;
            watch.next().await
        };
        let look_due = async {
            match next_look {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = changed => Event::Scan(Some(changed)),
            () = tokio::time::sleep_until(rescan.into()) => Event::Scan(None),
            () = look_due => Event::LookDue,
            Some(Ok((due, look))) = self.looks.join_next() => Event::Looked(due, look),
        }
    }

    /// Reads the root and takes in what is different; answers when that was done.
    async fn scan(&mut self, renamed_in: BTreeSet<PathBuf>) -> Result<Instant, Closed> {
        let (root, versions, now) = (self.spec.root.clone(), self.spec.versions.clone(), Instant::now());
        let listing = tokio::task::spawn_blocking(move || scan(&root, &versions)).await;
        let Ok(listing): Result<Result<Listing, RootError>, _> = listing else { return Err(Closed) };
        if let Ok(listing) = &listing {
            self.links = listing.versions.values().any(|folder| folder.link);
        }
        for step in self.tracker.listed(listing, &renamed_in, now) {
            self.take(step).await?;
        }
        Ok(Instant::now())
    }

    fn start_looks(&mut self) {
        for due in self.tracker.take_due(LOOKS_MAX - self.looks.len(), Instant::now()) {
            self.looks.spawn_blocking(move || {
                let look = look(&due.folder.path);
                (due, look)
            });
        }
    }

    async fn take(&self, step: Step) -> Result<(), Closed> {
        let service = &self.spec.service;
        match step {
            Step::Waits { version, why } => {
                tracing::warn!(%service, %version, "still arriving: {why}");
                Ok(())
            }
            Step::Change { kind, why } => {
                self.log(&kind, &why);
                let change = VersionChange { service: service.clone(), kind };
                self.changes.send(change).await.map_err(|_| Closed)
            }
        }
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
            ChangeKind::Gone { version } => tracing::info!(%service, %version, "gone: {why}"),
            ChangeKind::Ignored(ignored) => {
                tracing::debug!(%service, "{} entries of the deploy root are no versions", ignored.len());
            }
            ChangeKind::Root(Some(problem)) => tracing::error!(%service, "{problem}"),
            ChangeKind::Root(None) => tracing::info!(%service, "the deploy root can be read again"),
        }
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
