//! The lines of all workers: gives each its time, keeps the last ones in memory, hands them to followers and files.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::files;
use super::printer::WAIT_MAX;
use super::record::Record;
use super::writer::{Batch, Writer};
use super::{LogLine, Printer, Stream};
use crate::config::Logs;
use crate::journal::Journal;
use crate::version::{ServiceName, VersionId, WorkerId};

/// Lines kept in memory of each worker. With 50 versions of 4 workers, memory holds 60 MiB at the most.
pub(super) const LINES_MAX: usize = 500;
/// Bytes of text kept in memory of each worker.
pub(super) const BYTES_MAX: usize = 256 * 1024;
/// Lines that a follower may lag behind before it has to read them from the files. They may be long.
const FOLLOW_LAG: usize = 512;
/// The folder of all logs, in the state folder.
const LOGS_FOLDER: &str = "logs";
/// Of a line's prefix in a file, about so many bytes.
const PREFIX: usize = 40;
/// How long to wait for a disk to take what waits for it, when somebody wants to read or switchman ends.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// The lines of all workers; clonable, cheap.
#[derive(Debug, Clone)]
pub struct LogStore {
    shared: Arc<Mutex<Shared>>,
    followers: broadcast::Sender<LogLine>,
    /// The folder of all logs; none: lines are kept in memory only.
    folder: Option<Arc<Path>>,
    /// Where it is written down when a disk does not take lines.
    journal: Journal,
    /// Cancelled when nothing comes any more.
    pub(super) closed: CancellationToken,
}

#[derive(Debug, Default)]
struct Shared {
    /// The time of the last line.
    last: Timestamp,
    versions: HashMap<(ServiceName, VersionId), BTreeMap<WorkerId, Kept>>,
    writers: HashMap<ServiceName, Writer>,
}

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<LogLine>,
    bytes: usize,
}

/// What is kept of one version at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// Its folder; none where lines are kept in memory only.
    pub(super) folder: Option<PathBuf>,
    /// The time of the last line of all: what follows comes to followers.
    pub(super) upto: Timestamp,
    /// The last lines of each worker.
    pub(super) memory: BTreeMap<WorkerId, Vec<LogLine>>,
}

impl Default for LogStore {
    /// One that keeps lines in memory only.
    fn default() -> Self {
        Self {
            shared: Arc::default(),
            followers: broadcast::Sender::new(FOLLOW_LAG),
            folder: None,
            journal: Journal::default(),
            closed: CancellationToken::new(),
        }
    }
}

impl LogStore {
    /// One that writes below the state folder. Services that it is not told of are kept in memory only.
    pub(crate) fn open(state: &Path, journal: &Journal) -> Self {
        let folder = Some(state.join(LOGS_FOLDER).into());
        let store = Self { folder, journal: journal.clone(), ..Self::default() };
        // What lies in files was printed before.
        store.shared().last = now();
        store
    }

    /// What is to be written of a service, from now on.
    pub(crate) fn configure(&self, service: &ServiceName, settings: Logs) {
        let Some(folder) = self.folder.as_ref().map(|folder| folder.join(service.as_str())) else { return };
        let mut shared = self.shared();
        if let Some(writer) = shared.writers.get(service) {
            return writer.configure(settings);
        }
        match Writer::start(service, folder, settings, self.journal.clone()) {
            Ok(writer) => drop(shared.writers.insert(service.clone(), writer)),
            Err(error) => {
                tracing::error!(%service, %error, "what its workers print is kept in memory only: no thread for the files");
            }
        }
    }

    /// The lines of all workers of a version that are in memory, oldest first.
    pub fn logs(&self, service: &ServiceName, version: &VersionId) -> Vec<LogLine> {
        let mut lines: Vec<LogLine> = match self.shared().versions.get(&(service.clone(), version.clone())) {
            Some(workers) => workers.values().flat_map(|kept| kept.lines.iter().cloned()).collect(),
            None => Vec::new(),
        };
        lines.sort_by_key(|line| line.at);
        lines
    }

    /// Every line of every worker from now on; the reader picks what it wants to see.
    pub fn follow(&self) -> broadcast::Receiver<LogLine> {
        self.followers.subscribe()
    }

    /// The versions of a service that have log files, also those that are long gone.
    pub fn on_disk(&self, service: &ServiceName) -> Vec<VersionId> {
        let Some(folder) = &self.folder else { return Vec::new() };
        files::folders(&folder.join(service.as_str())).into_iter().map(VersionId::from).collect()
    }

    /// The last `count` lines of one process, oldest first.
    pub(crate) fn tail(
        &self,
        service: &ServiceName,
        version: &VersionId,
        (worker, pid): (WorkerId, u32),
        count: usize,
    ) -> Vec<Arc<str>> {
        let shared = self.shared();
        let Some(workers) = shared.versions.get(&(service.clone(), version.clone())) else {
            return Vec::new();
        };
        let lines = workers.get(&worker).into_iter().flat_map(|kept| kept.lines.iter().rev());
        let mut tail: Vec<_> =
            lines.filter(|line| line.pid == pid).take(count).map(|line| line.text.clone()).collect();
        tail.reverse();
        tail
    }

    /// Forgets what is in memory of a version; its files stay for as long as they may.
    pub(crate) fn forget(&self, service: &ServiceName, version: &VersionId) {
        self.shared().versions.remove(&(service.clone(), version.clone()));
    }

    /// Nothing comes any more: everything is written, and who follows is told the rest and then the end.
    pub(crate) async fn close(&self) {
        self.flush().await;
        self.closed.cancel();
    }

    /// Waits until everything is written that was printed so far, for a second at the most.
    pub(crate) async fn flush(&self) {
        let writers: Vec<Writer> = self.shared().writers.values().cloned().collect();
        for writer in writers {
            flush(&writer).await;
        }
    }

    /// What is kept of a version. Everything that was printed so far is in the files then, unless they are too slow.
    pub(super) async fn snapshot(&self, service: &ServiceName, version: &VersionId) -> Snapshot {
        let (snapshot, writer) = {
            let shared = self.shared();
            let memory = match shared.versions.get(&(service.clone(), version.clone())) {
                Some(workers) => {
                    workers.iter().map(|(id, kept)| (*id, kept.lines.iter().cloned().collect())).collect()
                }
                None => BTreeMap::new(),
            };
            let folder = self.folder.as_ref().map(|f| f.join(service.as_str()).join(version.as_str()));
            (Snapshot { folder, upto: shared.last, memory }, shared.writers.get(service).cloned())
        };
        if let Some(writer) = writer {
            flush(&writer).await;
        }
        snapshot
    }

    /// Adds whole lines. Waits for the disk, for [`WAIT_MAX`] at the most and only if it did not have to before:
    /// `lost` counts the lines that it did not take since it last took some.
    pub(super) async fn add(&self, printer: &Printer, lines: &[&[u8]], lost: &mut u64) {
        let Printer { service, version, worker, pid, stream, .. } = printer;
        let writer = self.shared().writers.get(service).cloned();
        let room = match &writer {
            None => None,
            Some(writer) => {
                let bytes = lines.iter().map(|line| line.len() + PREFIX).sum();
                writer.room(bytes, if *lost == 0 { WAIT_MAX } else { Duration::ZERO }).await
            }
        };
        let is_lost = writer.is_some() && room.is_none();
        let note = (*lost > 0 && !is_lost)
            .then(|| format!("{lost} lines before this one are missing in the file: the disk was too slow"));
        *lost = if is_lost { *lost + lines.len() as u64 } else { 0 };
        let note = note.as_ref().map(|note| (Stream::Note, note.as_bytes()));
        let all = note.into_iter().chain(lines.iter().map(|line| (*stream, *line)));

        let mut text = Vec::new();
        let mut shared = self.shared();
        let now = now();
        let first = shared.next(now);
        // Of very many, the first ones would be pushed out of memory at once.
        let (followed, kept_from) =
            (self.followers.receiver_count() > 0, lines.len().saturating_sub(LINES_MAX));
        for (n, (stream, line)) in all.enumerate() {
            let at = if n == 0 { first } else { shared.next(now) };
            if room.is_some() {
                Record { at, stream, pid: *pid, text: line }.write(&mut text);
            }
            if !followed && n < kept_from {
                continue;
            }
            let line = LogLine {
                at,
                service: service.clone(),
                version: version.clone(),
                worker: *worker,
                pid: *pid,
                stream,
                text: Arc::from(String::from_utf8_lossy(line)),
            };
            if followed {
                // Who followed may have gone meanwhile.
                let _ = self.followers.send(line.clone());
            }
            shared.keep(line);
        }
        // Still under the lock: files, followers and memory have the same order.
        if let (Some(writer), Some(room)) = (writer, room) {
            writer.write(Batch { version: version.clone(), worker: *worker, first, text, room });
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// The time of the next line: `now`, or a microsecond after the last one.
    fn next(&mut self, now: Timestamp) -> Timestamp {
        self.last = now.max(after(self.last));
        self.last
    }

    fn keep(&mut self, line: LogLine) {
        let workers = self.versions.entry((line.service.clone(), line.version.clone())).or_default();
        let kept = workers.entry(line.worker).or_default();
        kept.bytes += line.text.len();
        kept.lines.push_back(line);
        while kept.lines.len() > LINES_MAX || kept.bytes > BYTES_MAX {
            kept.bytes -= kept.lines.pop_front().map_or(kept.bytes, |oldest| oldest.text.len());
        }
    }
}

async fn flush(writer: &Writer) {
    if tokio::time::timeout(FLUSH_MAX, writer.flush()).await.is_err() {
        tracing::warn!("the disk does not take what workers print");
    }
}

/// In whole microseconds, as files have it.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

/// The time of the next line at the earliest.
pub(super) fn after(at: Timestamp) -> Timestamp {
    at.saturating_add(SignedDuration::from_micros(1)).unwrap_or(at)
}
