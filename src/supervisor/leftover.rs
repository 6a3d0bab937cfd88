//! Workers of a switchman that was killed: they are ended before anything is started.
//!
//! They cannot be served (nobody reads their output, nobody knows whether they are ready), and beside the new ones
//! they would hold memory, files and jobs twice. A leftover is a process whose `PIDFILE` lies in our own state
//! folder: that folder is locked, so no other switchman that lives has started it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use super::socket;

/// How long leftovers may take to end after TERM. Nobody is answered meanwhile, so it is short.
const GRACE: Duration = Duration::from_secs(5);
/// How long to wait for them to vanish after KILL. Only one that hangs in the kernel takes longer.
const KILL_MAX: Duration = Duration::from_secs(5);
/// Between two looks at `/proc`, which tells nobody when a process ends.
const LOOK: Duration = Duration::from_millis(20);

/// Ends every process whose `PIDFILE` is below `run`: TERM, a short grace, KILL.
pub(super) async fn end(run: PathBuf) {
    let begun = Instant::now();
    let mut told = None;
    loop {
        let folder = run.clone();
        let Ok(left) = tokio::task::spawn_blocking(move || find(&folder)).await else { return };
        if left.is_empty() {
            // Their pid files say nothing true any more, and nobody listens on their sockets. There may be none.
            let _ = tokio::task::spawn_blocking(move || {
                socket::remove_left(&run);
                std::fs::remove_dir_all(&run)
            })
            .await;
            return;
        }
        let signal = if begun.elapsed() < GRACE { Signal::TERM } else { Signal::KILL };
        if told != Some(signal) {
            tracing::warn!(
                pids = ?left.iter().map(|pid| pid.as_raw_nonzero().get()).collect::<Vec<_>>(),
                "ending workers that an earlier switchman left behind when it was killed"
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

/// The processes that were started with a `PIDFILE` below `run`, but for this one and what it descends from.
fn find(run: &Path) -> Vec<Pid> {
    let Ok(all) = procfs::process::all_processes() else { return Vec::new() };
    let is_left = |process: &procfs::process::Process| {
        // What cannot be read is another user's, and was not started by this one.
        process.environ().is_ok_and(|environ| {
            environ.get(OsStr::new("PIDFILE")).is_some_and(|pidfile| Path::new(pidfile).starts_with(run))
        })
    };
    let me = ancestors();
    all.flatten()
        .filter(|process| !me.contains(&process.pid) && is_left(process))
        .filter(|process| process.stat().is_ok_and(|stat| stat.state != 'Z'))
        .filter_map(|process| Pid::from_raw(process.pid))
        .collect()
}

/// This process and those it descends from: a switchman may itself be a worker of one.
fn ancestors() -> Vec<i32> {
    let parent = |pid: &i32| {
        let stat = procfs::process::Process::new(*pid).and_then(|process| process.stat()).ok()?;
        Some(stat.ppid).filter(|ppid| *ppid > 0)
    };
    std::iter::successors(Some(std::process::id().cast_signed()), parent).collect()
}
