//! Everything that a worker's process has started, found through `/proc`.
//!
//! A process belongs to the tree of a worker if it is the worker's process, is in its process group or session,
//! descends from a member, is in its control group, was seen as a member before, or is an orphan that carries the
//! worker's [`Mark`]: that finds what was daemonized where there are no control groups. One that has overwritten its
//! environment is found if it is what `PIDFILE` names. Orphans of what this switchman has started come to it (it is
//! the subreaper); those of a worker that it has adopted went to init, so there every process of the machine is looked
//! at. Reading `/proc` blocks for some milliseconds: call from `spawn_blocking`.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use procfs::net::{TcpNetEntry, TcpState};
use procfs::process::{FDTarget, Process, Stat};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions, waitid};

use super::launch::cgroup::Cgroup;
use super::pipes;
use super::record::{self, Record};

/// The process tree of one worker.
#[derive(Debug)]
pub(crate) struct Tree {
    root: i32,
    root_started: Option<u64>,
    /// The user that the root runs as.
    owner: Option<u32>,
    mark: Mark,
    /// Its control group, where it has one.
    cgroup: Option<Cgroup>,
    /// Members with their start times: a number that is used again is not taken for the old process.
    seen: HashMap<i32, u64>,
    /// Processes that do not carry the mark, with their start times: they never will.
    strangers: HashMap<i32, u64>,
    /// Its orphans may be anywhere: it was started by another switchman.
    adopted: bool,
}

/// What tells the processes of one worker from all others: its unique `PIDFILE` in their environment, or, should they
/// have cleared or overwritten that, one of its outputs as their own.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    pidfile: PathBuf,
    outputs: [PathBuf; 2],
}

impl Mark {
    /// Of the worker with this `PIDFILE`.
    pub(crate) fn new(pidfile: &Path) -> Self {
        Self { pidfile: pidfile.to_owned(), outputs: pipes::paths(pidfile) }
    }

    /// The process that `PIDFILE` names now.
    pub(crate) fn named(&self) -> Option<u32> {
        std::fs::read_to_string(&self.pidfile).ok()?.trim().parse().ok()
    }

    /// Whether a process carries it; none if that cannot be told: the process is gone, may not be looked into (another
    /// user's), or has written its title over its whole environment, as nginx does.
    pub(crate) fn carried_by(&self, pid: i32) -> Option<bool> {
        let process = Process::new(pid).ok()?;
        let environ = process.environ().ok().filter(|environ| !environ.is_empty());
        if environ.as_ref().is_some_and(|e| e.get(OsStr::new("PIDFILE")).is_some_and(|p| *p == *self.pidfile))
        {
            return Some(true);
        }
        // Standard output and error: another switchman that reads them has them elsewhere.
        let prints = [1, 2].map(|fd| std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok());
        let ours = prints.iter().flatten().any(|path| self.outputs.contains(path));
        (ours || environ.is_some()).then_some(ours)
    }
}

/// Who listens on a worker's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listener {
    /// Nobody.
    Nobody,
    /// The worker, or `/proc` does not let us see who.
    Own,
    /// Somebody else.
    Other,
}

impl Tree {
    /// The tree below the process `root`, which has just been started with this `PIDFILE`.
    pub(crate) fn new(root: u32, pidfile: &Path) -> Self {
        let root_started = record::started(root);
        Self {
            root: root.cast_signed(),
            root_started,
            owner: owner(root.cast_signed()),
            mark: Mark::new(pidfile),
            cgroup: None,
            seen: HashMap::new(),
            strangers: HashMap::new(),
            adopted: false,
        }
    }

    /// The tree below the process of a record that fits.
    pub(crate) fn adopted(record: &Record) -> Self {
        Self { root_started: Some(record.started), adopted: true, ..Self::new(record.pid, &record.pidfile) }
    }

    /// Whoever is in this control group is a member.
    pub(crate) fn in_cgroup(mut self, cgroup: Option<Cgroup>) -> Self {
        self.cgroup = cgroup;
        self
    }

    /// From now on the member `pid` is the root; everything that was a member stays one.
    pub(crate) fn root_is(&mut self, pid: u32) {
        self.root = pid.cast_signed();
        self.root_started = record::started(pid);
    }

    /// Whether the root itself still runs.
    pub(crate) fn root_runs(&self) -> bool {
        let stat = Process::new(self.root).and_then(|process| process.stat());
        stat.is_ok_and(|stat| Some(stat.starttime) == self.root_started && stat.state != 'Z')
    }

    /// The process that `PIDFILE` names now.
    pub(crate) fn named_by_pidfile(&self) -> Option<u32> {
        self.mark.named()
    }

    /// The members that live now. Reaps those that have ended and were left to switchman.
    pub(crate) fn look(&mut self) -> Vec<i32> {
        self.members().iter().map(|member| member.pid).collect()
    }

    fn members(&mut self) -> Vec<Stat> {
        let me = std::process::id().cast_signed();
        let stats = all_stats();
        // The number of the root was given to somebody else: so no group or session of that number is ours.
        let root_is_new = stats.iter().any(|s| s.pid == self.root && Some(s.starttime) != self.root_started);
        let grouped = self.cgroup.as_ref().map(Cgroup::members).unwrap_or_default();
        let mut members: HashSet<i32> = stats
            .iter()
            .filter(|s| {
                (!root_is_new && (s.pid == self.root || s.pgrp == self.root || s.session == self.root))
                    || self.seen.get(&s.pid) == Some(&s.starttime)
                    || grouped.contains(&s.pid)
            })
            .map(|s| s.pid)
            .collect();
        let mut strangers = HashMap::new();
        for s in stats.iter().filter(|s| s.ppid == me || (self.adopted && s.pid != me)) {
            if self.strangers.get(&s.pid) == Some(&s.starttime) {
                strangers.insert(s.pid, s.starttime);
            } else if s.pid != self.root && !members.contains(&s.pid) {
                match self.mark.carried_by(s.pid) {
                    Some(true) => _ = members.insert(s.pid),
                    Some(false) | None => _ = strangers.insert(s.pid, s.starttime),
                }
            }
        }
        self.strangers = strangers;
        members.extend(self.named(&stats));
        loop {
            let before = members.len();
            let children = stats.iter().filter(|s| members.contains(&s.ppid)).map(|s| s.pid);
            let children: Vec<i32> = children.collect();
            members.extend(children);
            if members.len() == before {
                break;
            }
        }
        let (dead, alive): (Vec<&Stat>, Vec<&Stat>) =
            stats.iter().filter(|s| members.contains(&s.pid)).partition(|s| matches!(s.state, 'Z' | 'X'));
        for orphan in dead.iter().filter(|s| s.ppid == me && s.pid != self.root) {
            reap(orphan.pid);
        }
        self.seen = alive.iter().map(|s| (s.pid, s.starttime)).collect();
        alive.into_iter().cloned().collect()
    }

    /// The orphan that `PIDFILE` names, if the root has left its work to it and nothing else tells whose it is. The worker
    /// writes that file and may write anything: it must be younger than the root and run as the same user.
    fn named(&self, stats: &[Stat]) -> Option<i32> {
        if stats.iter().any(|s| s.pid == self.root && s.state != 'Z') {
            return None;
        }
        let me = std::process::id().cast_signed();
        let named = self.mark.named()?.cast_signed();
        let stat = stats
            .iter()
            .find(|s| s.pid == named && s.ppid == me && Some(s.starttime) >= self.root_started)?;
        (owner(named) == self.owner && self.mark.carried_by(named).is_none()).then_some(stat.pid)
    }

    /// The processor time that the living members, and what they have waited for, have used so far: in ticks.
    pub(crate) fn ticks(&mut self) -> u64 {
        let waited_for = |m: &Stat| u64::try_from(m.cutime + m.cstime).unwrap_or_default();
        self.members().iter().map(|m| m.utime + m.stime + waited_for(m)).sum()
    }

    /// Sends a signal to every member that lives, once; answers whether there was one.
    pub(crate) fn signal(&mut self, signal: Signal) -> bool {
        let members = self.members();
        let (group, others): (Vec<&Stat>, Vec<&Stat>) = members.iter().partition(|m| m.pgrp == self.root);
        // Who has ended meanwhile needs no signal. The group is told in one call, which no fork escapes.
        if let Some(root) = Pid::from_raw(self.root).filter(|_| !group.is_empty()) {
            let _ = rustix::process::kill_process_group(root, signal);
        }
        for pid in others.iter().filter_map(|member| Pid::from_raw(member.pid)) {
            let _ = rustix::process::kill_process(pid, signal);
        }
        if let Some(cgroup) = self.cgroup.as_ref().filter(|_| signal == Signal::KILL) {
            // Whoever was started meanwhile is ended too.
            if let Err(error) = cgroup.kill() {
                tracing::warn!(%error, cgroup = %cgroup.path().display(), "a cgroup cannot be ended as a whole");
            }
        }
        !members.is_empty()
    }

    /// Who listens where connections to 127.0.0.1:`port` go.
    pub(crate) fn who_listens(&mut self, port: u16) -> Listener {
        let Some(listening) = listening() else { return Listener::Own };
        let there: Vec<u64> = listening
            .iter()
            .filter(|(address, _)| address.port() == port && takes_loopback(address.ip()))
            .map(|(_, inode)| *inode)
            .collect();
        if there.is_empty() {
            return Listener::Nobody;
        }
        match self.sockets() {
            Some(own) if there.iter().any(|inode| !own.contains(inode)) => Listener::Other,
            Some(_) | None => Listener::Own,
        }
    }

    /// Where the members listen.
    pub(crate) fn listens_on(&mut self) -> Vec<SocketAddr> {
        let own = self.sockets().unwrap_or_default();
        let mut addresses: Vec<SocketAddr> = listening()
            .unwrap_or_default()
            .into_iter()
            .filter(|(_, inode)| own.contains(inode))
            .map(|(address, _)| address)
            .collect();
        addresses.sort();
        addresses
    }

    /// The sockets that members hold; none if one of them cannot be looked into (another user's).
    fn sockets(&mut self) -> Option<HashSet<u64>> {
        let mut sockets = HashSet::new();
        for pid in self.look() {
            // A process that has ended meanwhile holds nothing.
            let Ok(process) = Process::new(pid) else { continue };
            match process.fd() {
                Ok(fds) => sockets.extend(fds.flatten().filter_map(|fd| match fd.target {
                    FDTarget::Socket(inode) => Some(inode),
                    _ => None,
                })),
                Err(procfs::ProcError::PermissionDenied(_)) => return None,
                Err(_) => {}
            }
        }
        Some(sockets)
    }
}

/// Whether a child of this process has ended and was not reaped. One system call, where a look at `/proc` takes many.
pub(crate) fn has_zombies() -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    waitid(WaitId::All, options).is_ok_and(|ended| ended.is_some())
}

/// Reaps the orphans that were left to switchman and belong to no worker any more. `before` are those that this
/// found last time: only what has been a zombie for two rounds is reaped, because a younger one may belong to
/// somebody in this process who is about to wait for it.
pub(crate) fn reap_orphans(before: &HashSet<i32>) -> HashSet<i32> {
    let me = std::process::id().cast_signed();
    let zombies: HashSet<i32> =
        all_stats().iter().filter(|s| s.ppid == me && s.state == 'Z').map(|s| s.pid).collect();
    zombies.intersection(before).for_each(|pid| reap(*pid));
    zombies
}

/// The user that a process runs as.
fn owner(pid: i32) -> Option<u32> {
    Process::new(pid).and_then(|process| process.uid()).ok()
}

fn reap(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        // Somebody else may have been faster, which is as good.
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
    }
}

fn all_stats() -> Vec<Stat> {
    procfs::process::all_processes()
        .map(|all| all.flatten().filter_map(|process| process.stat().ok()).collect())
        .unwrap_or_default()
}

/// All listening TCP sockets with their inodes; none where `/proc/net` cannot be read.
fn listening() -> Option<Vec<(SocketAddr, u64)>> {
    let v4 = procfs::net::tcp().ok()?;
    // There is no tcp6 where IPv6 is switched off.
    let v6 = procfs::net::tcp6().unwrap_or_default();
    let listens = |entry: &TcpNetEntry| entry.state == TcpState::Listen;
    Some(v4.into_iter().chain(v6).filter(listens).map(|e| (e.local_address, e.inode)).collect())
}

fn takes_loopback(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_unspecified() || ip == IpAddr::V4(Ipv4Addr::LOCALHOST)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use super::*;

    fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
        let started = std::time::Instant::now();
        while !is_so() {
            assert!(started.elapsed().as_secs() < 30, "{what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_tree_holds_group_children_and_strangers_stay_out() {
        let start = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).process_group(0).stdin(Stdio::null()).spawn().unwrap()
        };
        let mut own = start("setsid sleep 1000 & sleep 1000; true");
        let mut stranger = start("exec sleep 1000");
        let mut tree = Tree::new(own.id(), Path::new("/no/mark"));
        wait_until("sh, setsid and sleep", || tree.look().len() == 3);
        assert!(!tree.look().contains(&stranger.id().cast_signed()));

        // Without its parent, the child in a session of its own is known because it was seen before.
        own.kill().unwrap();
        own.wait().unwrap();
        assert_eq!(tree.look().len(), 2);
        assert!(tree.signal(Signal::KILL));
        wait_until("nothing is left", || tree.look().is_empty());
        assert!(!tree.signal(Signal::KILL));
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }

    #[test]
    fn the_number_of_a_dead_root_that_is_used_again_is_no_member() {
        let mut stranger = Command::new("sleep").arg("1000").process_group(0).spawn().unwrap();
        let mut tree = Tree::new(stranger.id(), Path::new("/no/mark"));
        assert_eq!(tree.look().len(), 1);
        let mut tree =
            Tree { root_started: Some(1), seen: HashMap::new(), strangers: HashMap::new(), ..tree };
        assert!(tree.look().is_empty());
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }

    #[test]
    fn an_orphan_is_reaped_when_it_was_seen_twice() {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = child.id().cast_signed();
        let state = || Process::new(pid).and_then(|p| p.stat()).map(|s| s.state);
        wait_until("it has ended", || state().is_ok_and(|s| s == 'Z'));
        let seen = reap_orphans(&HashSet::new());
        assert!(seen.contains(&pid) && state().is_ok(), "seen once, it is left alone");
        // Others of this process may be about to wait for theirs.
        reap_orphans(&HashSet::from([pid]));
        assert!(state().is_err() && child.wait().is_err(), "nothing is left to wait for");
    }
}
