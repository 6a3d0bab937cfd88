//! Tells when the entries of one directory change; the only file that uses `notify`.
//!
//! A [`Watch`] looks after itself: it waits for a directory that is not there yet, follows one that is
//! removed and made again (or a symlink that is pointed elsewhere), and where the kernel refuses a watch for
//! want of capacity it polls, saying so once. So its user has one loop: await [`Watch::next`], look again.
//!
//! What happened is gathered between two calls, so a burst of events is one answer, memory is bounded, and
//! `next` can stand in a `select!`. Reading is no change: opening a file does not trigger its own watch.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use notify::event::{EventKind, Flag, ModifyKind, RenameMode};
use notify::{Error, ErrorKind, Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tokio_util::task::AbortOnDropHandle;

/// How often a directory that cannot be watched is looked at, and one that is watched is checked to be
/// the one its path leads to.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// More changed entries than this between two calls of [`Watch::next`] are answered with
/// [`Changed::Everything`].
const ENTRIES_MAX: usize = 4096;

/// What changed in a watched directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// These entries, by their path below the watched one.
    Entries(BTreeMap<PathBuf, EntryChange>),
    /// Anything may have: the directory came, went or was replaced, events were lost, or it is polled, in which
    /// case renames are not told from other changes.
    Everything,
}

/// How an entry changed. Where several things happened to it, the last one that moved its name counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryChange {
    /// It was made, written, removed or renamed away.
    Touched,
    /// Something that was complete elsewhere got this name by a rename.
    RenamedIn,
}

/// Watches one directory until it is dropped.
#[derive(Debug)]
pub struct Watch {
    seen: Arc<Seen>,
    _task: AbortOnDropHandle<()>,
}

/// Watches the entries of `directory`, an absolute path, but not what lies deeper; it need not exist yet.
/// The first answer is [`Changed::Everything`], once the watch is in place or the directory is known to be
/// missing: what is read after it misses nothing. Must be called within a tokio runtime.
pub fn watch(directory: impl Into<PathBuf>) -> Watch {
    let seen = Arc::new(Seen::default());
    let task = tokio::spawn(run(directory.into(), Arc::clone(&seen), attach));
    Watch { seen, _task: AbortOnDropHandle::new(task) }
}

impl Watch {
    /// Waits until something has changed since the last call. Cancel safe.
    pub async fn next(&mut self) -> Changed {
        loop {
            if let Some(changed) = self.seen.gathered().take() {
                return changed;
            }
            self.seen.something.notified().await;
        }
    }
}

/// What `notify`'s thread hands to the tasks.
#[derive(Debug, Default)]
struct Seen {
    gathered: Mutex<Option<Changed>>,
    something: Notify,
    /// The directory itself was removed or renamed: the watch on it is dead.
    lost: Notify,
}

impl Seen {
    fn gathered(&self) -> MutexGuard<'_, Option<Changed>> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn everything(&self) {
        *self.gathered() = Some(Changed::Everything);
        self.something.notify_one();
    }

    fn event(&self, directory: &Path, event: Result<Event, Error>) {
        match event {
            Err(_) => self.everything(),
            Ok(event) if event.kind.is_access() => {}
            Ok(event) if event.flag() == Some(Flag::Rescan) => self.everything(),
            Ok(event) if event.paths.iter().any(|path| path == directory) => {
                // Its own attributes are nobody's business; that it went away is.
                if event.kind.is_remove() || matches!(event.kind, EventKind::Modify(ModifyKind::Name(_))) {
                    self.lost.notify_one();
                    self.everything();
                }
            }
            Ok(event) => {
                gather(&mut self.gathered(), event);
                self.something.notify_one();
            }
        }
    }
}

/// Adds an event to what was gathered so far.
fn gather(gathered: &mut Option<Changed>, event: Event) {
    let Changed::Entries(entries) = gathered.get_or_insert_with(|| Changed::Entries(BTreeMap::new())) else {
        return;
    };
    match event.kind {
        // Comes after its two halves, `From` and `To`.
        EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => {}
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
            entries.extend(event.paths.into_iter().map(|path| (path, EntryChange::RenamedIn)));
        }
        EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => {
            entries.extend(event.paths.into_iter().map(|path| (path, EntryChange::Touched)));
        }
        // Written or given other attributes: its name still stands for the same thing.
        _ => {
            for path in event.paths {
                entries.entry(path).or_insert(EntryChange::Touched);
            }
        }
    }
    if entries.len() > ENTRIES_MAX {
        *gathered = Some(Changed::Everything);
    }
}

/// A watch of the kernel, on the directory that `path` led to when it was made.
struct Attached {
    _watcher: RecommendedWatcher,
    identity: (u64, u64),
}

/// How a watch is asked for: [`attach`].
type Attach = fn(&Path, Arc<Seen>) -> Result<RecommendedWatcher, Error>;

/// Keeps the directory watched, whatever becomes of it.
async fn run(directory: PathBuf, seen: Arc<Seen>, attach: Attach) {
    let mut tick = tokio::time::interval(POLL_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut attached: Option<Attached> = None;
    // Whether the user knows that the directory is not there. It may have been when they looked first.
    let mut told_missing = false;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            // Told with the event already.
            () = seen.lost.notified() => (attached, told_missing) = (None, true),
        }
        let there = tokio::fs::metadata(&directory).await.ok().map(|m| (m.dev(), m.ino()));
        if there.is_some() && there == attached.as_ref().map(|a| a.identity) {
            continue;
        }
        attached = None;
        let Some(identity) = there else {
            if !told_missing {
                seen.everything();
            }
            told_missing = true;
            continue;
        };
        told_missing = false;
        let (path, handler) = (directory.clone(), Arc::clone(&seen));
        match tokio::task::spawn_blocking(move || attach(&path, handler)).await {
            Ok(Ok(watcher)) => attached = Some(Attached { _watcher: watcher, identity }),
            Ok(Err(error)) => say_why_not(&directory, &error),
            Err(_) => return, // the runtime is shutting down
        }
        seen.everything();
    }
}

/// Asks the kernel for a watch. Blocks for a moment: `notify` answers from a thread of its own.
fn attach(directory: &Path, seen: Arc<Seen>) -> Result<RecommendedWatcher, Error> {
    let path = directory.to_path_buf();
    let mut watcher = notify::recommended_watcher(move |event| seen.event(&path, event))?;
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// What lifts the limit that stands in the way of a watch.
fn remedy(error: &Error) -> Option<&'static str> {
    match &error.kind {
        ErrorKind::MaxFilesWatch => Some("sysctl fs.inotify.max_user_watches=524288"),
        ErrorKind::Io(io) => match io.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
            Some(rustix::io::Errno::MFILE) => {
                Some("sysctl fs.inotify.max_user_instances=1024, or ulimit -n 65536")
            }
            Some(rustix::io::Errno::NOSPC) => Some("sysctl fs.inotify.max_user_watches=524288"),
            _ => None,
        },
        _ => None,
    }
}

/// Says once that directories are polled, and what to do about it. A watch is tried again with each poll.
fn say_why_not(directory: &Path, error: &Error) {
    static LIMIT: Once = Once::new();
    let directory = directory.display();
    match remedy(error) {
        Some(hint) => LIMIT.call_once(|| {
            tracing::warn!(
                hint,
                "the kernel has no watch left for `{directory}` ({error}): looking every {POLL_INTERVAL:?} instead"
            );
        }),
        None => tracing::debug!("cannot watch `{directory}`: {error}: looking every {POLL_INTERVAL:?} instead"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use notify::event::{AccessKind, AccessMode, CreateKind, DataChange, MetadataKind, RemoveKind};

    use super::*;

    fn folded(events: &[EventKind]) -> Option<Changed> {
        let seen = Seen::default();
        for kind in events {
            seen.event(Path::new("/d"), Ok(Event::new(*kind).add_path("/d/x".into())));
        }
        seen.gathered().take()
    }

    fn entry(change: EntryChange) -> Option<Changed> {
        Some(Changed::Entries(BTreeMap::from([("/d/x".into(), change)])))
    }

    #[test]
    fn events_are_reduced_to_what_became_of_the_name() {
        use EntryChange::{RenamedIn, Touched};
        let create = EventKind::Create(CreateKind::Folder);
        let remove = EventKind::Remove(RemoveKind::Folder);
        let moved = |mode| EventKind::Modify(ModifyKind::Name(mode));
        let chmod = EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any));
        let write = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let open = EventKind::Access(AccessKind::Open(AccessMode::Any));
        for (events, expected) in [
            (vec![open], None),
            (vec![create], entry(Touched)),
            (vec![write, open], entry(Touched)),
            (vec![moved(RenameMode::To), moved(RenameMode::Both)], entry(RenamedIn)),
            (vec![create, moved(RenameMode::From), moved(RenameMode::To), chmod], entry(RenamedIn)),
            (vec![moved(RenameMode::To), remove, create], entry(Touched)),
            (vec![moved(RenameMode::To), moved(RenameMode::From)], entry(Touched)),
        ] {
            assert_eq!(folded(&events), expected, "{events:?}");
        }
    }

    #[test]
    fn lost_events_and_floods_mean_everything() {
        let seen = Seen::default();
        seen.event(Path::new("/d"), Ok(Event::new(EventKind::Other).set_flag(Flag::Rescan)));
        assert_eq!(seen.gathered().take(), Some(Changed::Everything));
        for n in 0..=ENTRIES_MAX {
            let event = Event::new(EventKind::Create(CreateKind::File)).add_path(format!("/d/{n}").into());
            seen.event(Path::new("/d"), Ok(event));
        }
        assert_eq!(seen.gathered().take(), Some(Changed::Everything));
    }

    #[test]
    fn a_limit_is_told_with_what_lifts_it() {
        let io = |code| Error::io(std::io::Error::from_raw_os_error(code));
        let emfile = rustix::io::Errno::MFILE.raw_os_error();
        assert!(remedy(&Error::new(ErrorKind::MaxFilesWatch)).unwrap().contains("max_user_watches"));
        assert!(remedy(&io(emfile)).unwrap().contains("max_user_instances"));
        assert_eq!(remedy(&Error::path_not_found()), None);
    }

    /// Waits for what is asked, with room for a slow machine.
    async fn next(watch: &mut Watch) -> Changed {
        tokio::time::timeout(Duration::from_secs(20), watch.next()).await.expect("nothing was reported")
    }

    #[tokio::test]
    async fn a_directory_is_followed_through_its_life() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("root");
        let mut watch = watch(&directory);
        assert_eq!(next(&mut watch).await, Changed::Everything, "it is not there");

        fs::create_dir(&directory).unwrap();
        assert_eq!(next(&mut watch).await, Changed::Everything, "it appeared");

        fs::create_dir(parent.path().join("staged")).unwrap();
        fs::rename(parent.path().join("staged"), directory.join("b")).unwrap();
        let renamed = BTreeMap::from([(directory.join("b"), EntryChange::RenamedIn)]);
        assert_eq!(next(&mut watch).await, Changed::Entries(renamed));

        fs::remove_dir_all(&directory).unwrap();
        while next(&mut watch).await != Changed::Everything {}
        fs::create_dir(&directory).unwrap();
        assert_eq!(next(&mut watch).await, Changed::Everything, "it came back");
        fs::write(directory.join("c"), "").unwrap();
        let Changed::Entries(entries) = next(&mut watch).await else { panic!("the new one is not watched") };
        assert!(entries.contains_key(&directory.join("c")), "{entries:?}");
    }

    #[tokio::test]
    async fn where_the_kernel_has_no_watch_left_the_directory_is_polled_until_it_has() {
        use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
        static TRIES: AtomicU32 = AtomicU32::new(0);
        fn refused_once(directory: &Path, seen: Arc<Seen>) -> Result<RecommendedWatcher, Error> {
            if TRIES.fetch_add(1, Relaxed) == 0 {
                return Err(Error::new(ErrorKind::MaxFilesWatch));
            }
            attach(directory, seen)
        }
        let directory = tempfile::tempdir().unwrap();
        let seen = Arc::new(Seen::default());
        let task = tokio::spawn(run(directory.path().into(), Arc::clone(&seen), refused_once));
        let mut watch = Watch { seen, _task: AbortOnDropHandle::new(task) };
        for tries in 1..=2 {
            assert_eq!(next(&mut watch).await, Changed::Everything);
            assert_eq!(TRIES.load(Relaxed), tries);
        }
        fs::write(directory.path().join("a"), "").unwrap();
        let Changed::Entries(_) = next(&mut watch).await else { panic!("it is still polled") };
    }

    #[tokio::test]
    async fn reading_is_no_change() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a"), "1").unwrap();
        let mut watch = watch(directory.path());
        assert_eq!(next(&mut watch).await, Changed::Everything);
        fs::read(directory.path().join("a")).unwrap();
        fs::write(directory.path().join("b"), "2").unwrap();
        let Changed::Entries(entries) = next(&mut watch).await else { panic!() };
        assert_eq!(entries.keys().collect::<Vec<_>>(), [&directory.path().join("b")]);
    }
}
