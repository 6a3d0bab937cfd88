//! Writes the lines of one service to its files: a thread of its own, because a disk can stand still.
//!
//! A file that becomes too large or too old is renamed and the next one begun, so no line is lost or cut; the oldest
//! files go when there are too many. A disk that is full, or too slow, costs lines, and a line says how many; nothing
//! else.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant, SystemTime};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::files::{self, LogFile};
use super::record::Record;
use super::{LINE_MAX, Stream};
use crate::config::Logs;
use crate::journal::{Journal, What};
use crate::version::{ServiceName, VersionId, WorkerId};

/// Bytes of lines of one service that may wait for the disk.
const QUEUE_BYTES: u32 = 8 << 20;
/// The smallest size at which a file is set aside, also with very many workers.
const FILE_MIN: u64 = LINE_MAX as u64;
/// How often an open file is looked at: is it still the one that has its name, has it become old.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A file that nobody writes to is closed after this time.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How often files that have become old are looked for while nothing is written.
const TIDY_EVERY: Duration = Duration::from_secs(3600);

/// Lines of one worker, as they are to lie in its file.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) version: VersionId,
    pub(super) worker: WorkerId,
    /// When the first of them was read.
    pub(super) first: Timestamp,
    pub(super) text: Vec<u8>,
    /// Its place in the queue; given back when it is written.
    pub(super) room: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum Job {
    Lines(Batch),
    Flush(oneshot::Sender<()>),
    Settings(Logs),
}

/// Brings lines to the thread. The thread writes what it was given and ends when the last one of these is gone.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    jobs: Sender<Job>,
    room: Arc<Semaphore>,
}

impl Writer {
    /// Starts the thread of a service, which writes below `folder`.
    pub(super) fn start(
        service: &ServiceName,
        folder: PathBuf,
        settings: Logs,
        journal: Journal,
    ) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let disk = Disk {
            service: service.clone(),
            folder,
            settings,
            journal,
            open: HashMap::new(),
            lost: HashMap::new(),
            failing: false,
            looked: Instant::now(),
        };
        std::thread::Builder::new().name(format!("logs {service}")).spawn(move || disk.run(&queue))?;
        Ok(Self { jobs, room: Arc::new(Semaphore::new(QUEUE_BYTES as usize)) })
    }

    /// A place in the queue for this many bytes: waits for it as long as `wait` says. None: these lines are lost.
    pub(super) async fn room(&self, bytes: usize, wait: Duration) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes).unwrap_or(QUEUE_BYTES).min(QUEUE_BYTES);
        match self.room.clone().try_acquire_many_owned(bytes) {
            Ok(room) => Some(room),
            Err(_) if wait.is_zero() => None,
            Err(_) => {
                tokio::time::timeout(wait, self.room.clone().acquire_many_owned(bytes)).await.ok()?.ok()
            }
        }
    }

    // The thread ends only after the last of its writers, so nothing is sent in vain.

    /// Writes these lines after those that were given before.
    pub(super) fn write(&self, batch: Batch) {
        let _ = self.jobs.send(Job::Lines(batch));
    }

    /// Ends when everything is written that was given before.
    pub(super) fn flush(&self) -> oneshot::Receiver<()> {
        let (done, flushed) = oneshot::channel();
        let _ = self.jobs.send(Job::Flush(done));
        flushed
    }

    /// Goes on with other settings.
    pub(super) fn configure(&self, settings: Logs) {
        let _ = self.jobs.send(Job::Settings(settings));
    }
}

/// A worker of the service.
type Worker = (VersionId, WorkerId);

/// The thread's side.
#[derive(Debug)]
struct Disk {
    service: ServiceName,
    folder: PathBuf,
    settings: Logs,
    journal: Journal,
    open: HashMap<Worker, Open>,
    /// Lines that could not be written.
    lost: HashMap<Worker, u64>,
    /// Whether the last try failed: it is told once.
    failing: bool,
    looked: Instant,
}

/// A file that is being written.
#[derive(Debug)]
struct Open {
    file: File,
    path: PathBuf,
    identity: (u64, u64),
    size: u64,
    /// When its first line was read.
    began: Timestamp,
    used: Instant,
}

impl Open {
    /// Goes on with the file of a worker, or makes it. `now` is when its first line was read.
    fn new(folder: &Path, worker: WorkerId, now: Timestamp) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
        let path = files::current(folder, worker);
        let file = OpenOptions::new().create(true).append(true).read(true).mode(0o640).open(&path)?;
        let metadata = file.metadata()?;
        let (identity, mut size) = ((metadata.dev(), metadata.ino()), metadata.len());
        let mut began = now;
        if size > 0 {
            let (mut head, mut last) = ([0; 64], [0]);
            let read = file.read_at(&mut head, 0)?;
            began = Record::read(&head[..read]).map_or(now, |record| record.at);
            file.read_exact_at(&mut last, size - 1)?;
            // A machine that went down may have left half a line.
            if last != *b"\n" {
                (&file).write_all(b"\n")?;
                size += 1;
            }
        }
        Ok(Self { file, path, identity, size, began, used: Instant::now() })
    }

    /// All of it or nothing: what only fits in part is taken back.
    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(text);
        match &written {
            Ok(()) => self.size += text.len() as u64,
            // Where even that fails, the half line is cleared when the file is opened again.
            Err(_) => drop(self.file.set_len(self.size)),
        }
        written
    }
}

impl Disk {
    fn run(mut self, queue: &Receiver<Job>) {
        self.tidy();
        loop {
            let wait = if self.open.is_empty() { TIDY_EVERY } else { LOOK_EVERY };
            match queue.recv_timeout(wait) {
                Ok(Job::Lines(batch)) => self.lines(batch),
                Ok(Job::Flush(done)) => {
                    // Who asked may have gone away.
                    let _ = done.send(());
                }
                Ok(Job::Settings(settings)) => {
                    self.settings = settings;
                    self.tidy();
                }
                Err(RecvTimeoutError::Timeout) if self.open.is_empty() => self.tidy(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.looked.elapsed() >= LOOK_EVERY {
                self.looked = Instant::now();
                self.look();
            }
        }
    }

    fn lines(&mut self, batch: Batch) {
        if !self.settings.file {
            return self.forward(&batch);
        }
        let worker = (batch.version.clone(), batch.worker);
        let mut rest = &batch.text[..];
        let written = self.write(&worker, batch.first, &mut rest);
        match written {
            Ok(()) if !self.failing => {}
            Ok(()) => {
                self.failing = false;
                tracing::info!(service = %self.service, "what workers print is written again");
                self.journal.record(&self.service, None, What::Logs { failing: None });
            }
            Err(error) => {
                let lines = rest.iter().filter(|byte| **byte == b'\n').count();
                *self.lost.entry(worker).or_default() += lines as u64;
                if !std::mem::replace(&mut self.failing, true) {
                    let folder = self.folder.display();
                    tracing::error!(
                        service = %self.service, %folder, %error,
                        "what workers print cannot be written and is lost meanwhile; they go on"
                    );
                    let failing = Some(format!("{folder}: {error}"));
                    self.journal.record(&self.service, None, What::Logs { failing });
                }
            }
        }
        drop(batch.room);
    }

    /// Writes `rest`, which becomes shorter by what is written; beginning a new file where one is full.
    fn write(&mut self, worker: &Worker, first: Timestamp, rest: &mut &[u8]) -> io::Result<()> {
        if let Some(lost) = self.lost.remove(worker) {
            let text = format!("{lost} lines were lost here: the disk was full, or could not be written");
            let pid = Record::read(rest).map_or(0, |record| record.pid);
            let mut note = Vec::new();
            Record { at: first, stream: Stream::Note, pid, text: text.as_bytes() }.write(&mut note);
            if let Err(error) = self.write(worker, first, &mut &note[..]) {
                self.lost.insert(worker.clone(), lost);
                return Err(error);
            }
        }
        while !rest.is_empty() {
            if !self.open.contains_key(worker) {
                let folder = self.folder.join(worker.0.as_str());
                self.open.insert(worker.clone(), Open::new(&folder, worker.1, first)?);
                self.tidy();
            }
            let (limit, max_age) = (self.limit(), self.settings.max_age);
            let Some(open) = self.open.get_mut(worker) else { continue };
            let mut fits = whole_lines(rest, limit.saturating_sub(open.size));
            if open.size > 0 && (fits == 0 || is_over(open.began, max_age, first)) {
                match self.set_aside(worker) {
                    Ok(()) => continue,
                    // Rather a file that is too large than lines that are lost.
                    Err(error) => {
                        tracing::warn!(service = %self.service, %error, "a log file cannot be renamed");
                        fits = rest.len();
                    }
                }
            }
            let Some(open) = self.open.get_mut(worker) else { continue };
            // A line that is longer than a file may be has one of its own.
            let (now, later) = rest.split_at(if fits == 0 { first_line(rest) } else { fits });
            open.write(now)?;
            open.used = Instant::now();
            *rest = later;
        }
        Ok(())
    }

    /// How large a file may become: what is being written takes half of what all may take at the most.
    fn limit(&self) -> u64 {
        let share = self.settings.max_total / (2 * self.open.len().max(1) as u64);
        self.settings.max_file.min(share).max(FILE_MIN)
    }

    /// Renames the file of a worker; the next line begins a new one.
    fn set_aside(&mut self, worker: &Worker) -> io::Result<()> {
        let Some(open) = self.open.get(worker) else { return Ok(()) };
        let folder = self.folder.join(worker.0.as_str());
        let mut at = Timestamp::now();
        let mut path = files::aside(&folder, worker.1, at);
        // Two within a microsecond, or a clock that was set back.
        while path.exists() {
            at += SignedDuration::from_micros(1);
            path = files::aside(&folder, worker.1, at);
        }
        match fs::rename(&open.path, path) {
            // Somebody has deleted it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
        self.open.remove(worker);
        self.tidy();
        Ok(())
    }

    /// Deletes the oldest files, so that the rest and what is being written take no more than they may.
    fn tidy(&self) {
        let writing: Vec<(u64, u64)> = self.open.values().map(|open| open.identity).collect();
        let folders = files::folders(&self.folder);
        let all = folders.iter().flat_map(|version| files::list(&self.folder.join(version)));
        let closed: Vec<LogFile> = all.filter(|file| !writing.contains(&file.identity)).collect();
        let room = self.settings.max_total.saturating_sub(writing.len() as u64 * self.limit());
        let oldest = SystemTime::now().checked_sub(self.settings.keep).unwrap_or(SystemTime::UNIX_EPOCH);
        for file in files::surplus(closed, room, oldest) {
            match files::delete(&file.path) {
                Ok(()) => tracing::info!(file = %file.path.display(), "an old log was deleted"),
                Err(error) => {
                    tracing::error!(file = %file.path.display(), %error, "an old log cannot be deleted")
                }
            }
        }
        for version in folders {
            // One that has files in it stays.
            let _ = fs::remove_dir(self.folder.join(version));
        }
    }

    /// Lets go of files that have lost their name (somebody moved or deleted them) or that nobody writes to, and
    /// sets those aside that have become old.
    fn look(&mut self) {
        let mut old = Vec::new();
        let (now, max_age) = (Timestamp::now(), self.settings.max_age);
        self.open.retain(|worker, open| {
            let Ok(metadata) = fs::metadata(&open.path) else { return false };
            // Somebody may have emptied it.
            open.size = metadata.len();
            if open.size > 0 && is_over(open.began, max_age, now) {
                old.push(worker.clone());
            }
            (metadata.dev(), metadata.ino()) == open.identity && open.used.elapsed() < IDLE_MAX
        });
        for worker in old {
            if let Err(error) = self.set_aside(&worker) {
                tracing::error!(service = %self.service, %error, "an old log cannot be renamed");
            }
        }
    }

    /// The lines go into switchman's own log.
    fn forward(&self, batch: &Batch) {
        let Batch { version, worker, text, .. } = batch;
        let service = &self.service;
        for Record { stream, pid, text, .. } in
            text.split_inclusive(|byte| *byte == b'\n').filter_map(Record::read)
        {
            let (stream, text) = (stream.as_str(), String::from_utf8_lossy(text));
            tracing::info!(target: "worker", %service, %version, %worker, pid, stream, "{text}");
        }
    }
}

/// How many bytes of `text` are whole lines and at most `room`.
fn whole_lines(text: &[u8], room: u64) -> usize {
    let room = usize::try_from(room).unwrap_or(usize::MAX).min(text.len());
    text[..room].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
}

/// How many bytes its first line has.
fn first_line(text: &[u8]) -> usize {
    text.iter().position(|byte| *byte == b'\n').map_or(text.len(), |end| end + 1)
}

fn is_over(began: Timestamp, time: Duration, now: Timestamp) -> bool {
    now.duration_since(began) >= SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX)
}
