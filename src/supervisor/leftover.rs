//! What an earlier switchman has left and nobody goes on with: it is ended before anything is started.
//!
//! That is a worker which was started and not yet recorded when switchman was killed, and what a worker that has ended
//! since has left behind. Beside new workers they would hold memory, files and jobs twice. A leftover is a process that
//! carries a mark (`tree::Mark`) of our own state folder: that folder is locked, so no other switchman that lives has
//! started it.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use super::{pipes, record, socket};

/// How long leftovers may take to end after TERM. Nothing is started meanwhile, so it is short.
const GRACE: Duration = Duration::from_secs(5);
/// How long to wait for them to vanish after KILL. Only one that hangs in the kernel takes longer.
const KILL_MAX: Duration = Duration::from_secs(5);
/// Between two looks at `/proc`, which tells nobody when a process ends.
const LOOK: Duration = Duration::from_millis(20);

/// What goes on: the `PIDFILE`s of workers that were found, and the sockets of those that listen on one.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept {
    pub(super) pidfiles: HashSet<PathBuf>,
    pub(super) sockets: HashSet<PathBuf>,
}

/// Ends every process that was started below `run` and is not `kept` (TERM, a short grace, KILL), then removes
/// the files of all that is gone.
pub(super) async fn end(run: PathBuf, kept: Kept) {
    let begun = Instant::now();
    let mut told = None;
    loop {
        let (folder, keep) = (run.clone(), kept.clone());
        let Ok(left) = tokio::task::spawn_blocking(move || find(&folder, &keep)).await else { return };
        if left.is_empty() {
            // An error means that the runtime ends; the next switchman tidies up.
            let _ = tokio::task::spawn_blocking(move || tidy(&run, &kept)).await;
            return;
        }
        let signal = if begun.elapsed() < GRACE { Signal::TERM } else { Signal::KILL };
        if told != Some(signal) {
            tracing::warn!(
                pids = ?left.iter().map(|pid| pid.as_raw_nonzero().get()).collect::<Vec<_>>(),
                "ending processes that an earlier switchman left behind and that belong to no worker which goes on"
            );
            told = Some(signal);
            for pid in &left {
                // Who has ended meanwhile needs no signal.
                let _ = kill_process(*pid, signal);
            }
        }
        if begun.elapsed() > GRACE + KILL_MAX {
            tracing::error!("some of them do not end after KILL; they hang in the kernel");
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Removes what lies beside the pid files of processes that are gone. Nobody listens on their sockets.
fn tidy(run: &Path, kept: &Kept) {
    let gone = record::files(run).into_iter().map(|file| file.with_extension(record::PIDFILE));
    for pidfile in gone.filter(|pidfile| !kept.pidfiles.contains(pidfile)).collect::<HashSet<_>>() {
        record::remove(&pidfile);
    }
    socket::remove_left(run, &kept.sockets);
}

/// The processes that carry a mark below `run` which is not `kept`, but for this one and what it descends from.
fn find(run: &Path, kept: &Kept) -> Vec<Pid> {
    let Ok(all) = procfs::process::all_processes() else { return Vec::new() };
    let me = ancestors();
    all.flatten()
        .filter(|process| !me.contains(&process.pid))
        .filter(|process| marks(process).iter().any(|p| p.starts_with(run) && !kept.pidfiles.contains(p)))
        .filter(|process| process.stat().is_ok_and(|stat| stat.state != 'Z'))
        .filter_map(|process| Pid::from_raw(process.pid))
        .collect()
}

/// The `PIDFILE` of the worker that a process belongs to, as its environment says, else as its outputs say. What cannot
/// be read is another user's, and was not started by this one.
fn marks(process: &procfs::process::Process) -> Vec<PathBuf> {
    let environ = process.environ().ok();
    let pidfile = environ.as_ref().and_then(|environ| environ.get(OsStr::new("PIDFILE")));
    if let Some(pidfile) = pidfile {
        return vec![PathBuf::from(pidfile)];
    }
    let outputs = [1, 2].map(|fd| std::fs::read_link(format!("/proc/{}/fd/{fd}", process.pid)).ok());
    let is_pipe =
        |path: &PathBuf| path.extension().is_some_and(|ending| ending == pipes::OUT || ending == pipes::ERR);
    let outputs = outputs.into_iter().flatten().filter(is_pipe);
    outputs.map(|path| path.with_extension(record::PIDFILE)).collect()
}

/// This process and those it descends from: a switchman may itself be a worker of one.
fn ancestors() -> Vec<i32> {
    let parent = |pid: &i32| {
        let stat = procfs::process::Process::new(*pid).and_then(|process| process.stat()).ok()?;
        Some(stat.ppid).filter(|ppid| *ppid > 0)
    };
    std::iter::successors(Some(std::process::id().cast_signed()), parent).collect()
}
