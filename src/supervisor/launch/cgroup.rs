//! Control groups (cgroup v2): one for each worker, so that whatever it starts is known, limited and ended with it.
//!
//! ```text
//! <switchman's own>/supervisor/                    switchman itself, once limits are wanted
//!                  /workers/app-4f2a91c-0-811-17/  a worker
//! ```
//!
//! A group is made wherever the kernel lets us. Limits need controllers too, and the kernel lets a group hand those down
//! only if no process is in the group itself: so switchman moves aside first.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use procfs::process::Process;
use rustix::process::{Pid, Signal, kill_process};

use crate::config::CgroupLimits;

/// The group of all workers.
const WORKERS: &str = "workers";
/// The group that switchman moves into.
const SUPERVISOR: &str = "supervisor";
/// The period that a share of the processors is measured over, in microseconds: the kernel's own default.
const PERIOD: u64 = 100_000;
/// The first pause before an emptied group is tried to be removed again; it doubles.
const REMOVE_MIN: Duration = Duration::from_millis(1);
/// The longest.
const REMOVE_MAX: Duration = Duration::from_secs(1);

/// Where groups of workers can be made.
#[derive(Debug)]
pub(crate) struct Cgroups {
    /// Of switchman and its workers.
    own: PathBuf,
}

/// Why no groups can be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoCgroups {
    /// There is no cgroup v2, or this process is outside of what is mounted.
    #[error("no cgroup v2 is mounted here")]
    Absent,
    /// It is not ours to write.
    #[error("{} cannot be used: {source}", folder.display())]
    Unusable { folder: PathBuf, source: io::Error },
}

/// The group of one worker. It stays until [`Cgroup::remove`]: workers may outlive switchman.
#[derive(Debug, Clone)]
pub(crate) struct Cgroup {
    folder: PathBuf,
}

impl Cgroups {
    /// Below the group that switchman itself is in.
    pub(crate) fn find() -> Result<Self, NoCgroups> {
        let own = own_group().ok_or(NoCgroups::Absent)?;
        let own = match own.parent() {
            // An earlier switchman, or systemd's `DelegateSubgroup=`, has moved us aside.
            Some(parent) if own.ends_with(SUPERVISOR) && parent.join("cgroup.procs").exists() => {
                parent.to_owned()
            }
            _ => own,
        };
        let folder = own.join(WORKERS);
        let made = match fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        };
        let writable = made.and_then(|()| {
            use rustix::fs::Access;
            Ok(rustix::fs::access(&folder, Access::WRITE_OK | Access::EXEC_OK)?)
        });
        writable.map_err(|source| NoCgroups::Unusable { folder, source })?;
        Ok(Self { own })
    }

    /// Removes the groups that switchmans which are gone have left empty.
    pub(crate) fn sweep(&self) {
        let entries = fs::read_dir(self.own.join(WORKERS)).into_iter().flatten().flatten();
        for folder in entries.map(|entry| entry.path()) {
            // The maker of one that is empty may be about to put a process there.
            let maker =
                folder.file_name().and_then(|name| name.to_str()?.rsplit('-').nth(1)?.parse::<u32>().ok());
            if maker.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
                Cgroup { folder }.remove();
            }
        }
    }

    /// Hands the `wanted` controllers down to the groups of workers. Answers with those that cannot be had, and why.
    pub(crate) fn control<'a>(&self, wanted: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
        let available = fs::read_to_string(self.own.join("cgroup.controllers")).unwrap_or_default();
        let mut missing = Vec::new();
        for controller in wanted {
            if !available.split_whitespace().any(|there| there == controller) {
                let why = format!("{} does not have it", self.own.display());
                missing.push((controller.to_owned(), why));
            } else if let Err(error) = self.hand_down(controller) {
                let why = format!("{} does not hand it down: {error}", self.own.display());
                missing.push((controller.to_owned(), why));
            }
        }
        missing
    }

    fn hand_down(&self, controller: &str) -> io::Result<()> {
        let on = format!("+{controller}");
        let file = self.own.join("cgroup.subtree_control");
        if let Err(error) = fs::write(&file, &on) {
            if error.raw_os_error() != Some(rustix::io::Errno::BUSY.raw_os_error()) {
                return Err(error);
            }
            self.move_aside()?;
            fs::write(&file, &on)?;
        }
        fs::write(self.own.join(WORKERS).join("cgroup.subtree_control"), &on)
    }

    fn move_aside(&self) -> io::Result<()> {
        let aside = self.own.join(SUPERVISOR);
        match fs::create_dir(&aside) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        fs::write(aside.join("cgroup.procs"), std::process::id().to_string())
    }

    /// A new group, whose name begins with `name`; a limit whose controller is missing is left out.
    pub(crate) fn make(&self, name: &str, limits: &CgroupLimits) -> io::Result<Cgroup> {
        // Unique among all supervisors of this process; the pid tells it from those of other switchmans.
        static LAST: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = LAST.fetch_add(1, Relaxed) + 1;
            let folder = self.own.join(WORKERS).join(format!("{name}-{}-{number}", std::process::id()));
            match fs::create_dir(&folder) {
                // A switchman of the past had the same pid.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    let group = Cgroup { folder };
                    // It is nobody's yet: none is left behind where it cannot be limited.
                    return group.limit(limits).inspect_err(|_| _ = group.remove()).map(|()| group.clone());
                }
            }
        }
    }
}

/// The folder of the group that this process is in.
fn own_group() -> Option<PathBuf> {
    let me = Process::myself().ok()?;
    let path = me.cgroups().ok()?.0.into_iter().find(|group| group.hierarchy == 0)?.pathname;
    let mounts = me.mountinfo().ok()?;
    let mount = mounts.0.into_iter().find(|mount| mount.fs_type == "cgroup2")?;
    // What is mounted may be a part of the tree, and we outside of it.
    let inside = Path::new(&path).strip_prefix(&mount.root).ok()?;
    let is_outside = inside.components().any(|part| part == std::path::Component::ParentDir);
    (!is_outside).then(|| mount.mount_point.join(inside).components().collect())
}

impl Cgroup {
    /// The group in this folder, if there is one still.
    pub(crate) fn open(folder: &Path) -> Option<Self> {
        folder.join("cgroup.procs").exists().then(|| Self { folder: folder.to_owned() })
    }

    /// Its folder, by which it can be opened again.
    pub(crate) fn path(&self) -> &Path {
        &self.folder
    }

    /// The file that a process joins it by: it writes `0`.
    pub(crate) fn door(&self) -> io::Result<File> {
        OpenOptions::new().write(true).open(self.folder.join("cgroup.procs"))
    }

    /// The processes in it and in groups below it, zombies not among them.
    pub(crate) fn members(&self) -> Vec<i32> {
        let mut members = Vec::new();
        for folder in self.with_below() {
            let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            // A process of another pid namespace has the number 0 here.
            members.extend(text.lines().filter_map(|line| line.parse().ok()).filter(|pid: &i32| *pid > 0));
        }
        members
    }

    /// Ends every process in it with KILL, in one go that no fork escapes.
    pub(crate) fn kill(&self) -> io::Result<()> {
        match fs::write(self.folder.join("cgroup.kill"), "1") {
            // Kernels before 5.14. Who calls looks again until nobody is left.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.folder.exists() => {
                for pid in self.members().into_iter().filter_map(Pid::from_raw) {
                    // It may have ended meanwhile.
                    let _ = kill_process(pid, Signal::KILL);
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            killed => killed,
        }
    }

    /// Removes it; answers whether it is gone. One that has processes stays.
    pub(crate) fn remove(&self) -> bool {
        for folder in self.with_below().iter().rev() {
            // One that is not empty, or gone already.
            let _ = fs::remove_dir(folder);
        }
        !self.folder.exists()
    }

    /// Removes it once all of its processes are gone from /proc: they are in the group for a moment longer.
    pub(crate) async fn remove_emptied(&self) {
        let mut pause = REMOVE_MIN;
        while !self.remove() && self.members().is_empty() {
            if pause > REMOVE_MAX {
                tracing::warn!(cgroup = %self.folder.display(), "it is empty, and cannot be removed");
                return;
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    /// How often the kernel ended a process of it because `memory_max` was reached.
    pub(crate) fn out_of_memory(&self) -> u64 {
        let events = fs::read_to_string(self.folder.join("memory.events")).unwrap_or_default();
        let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.parse().ok()).unwrap_or(0)
    }

    fn limit(&self, limits: &CgroupLimits) -> io::Result<()> {
        let cpu = |thousandths: u64| format!("{} {PERIOD}", thousandths * PERIOD / 1000);
        let group = |_| "1".to_owned();
        for (file, text) in [
            ("memory.max", limits.memory_max.map(|bytes| bytes.to_string())),
            // Half a worker is worse than none: one that is started again.
            ("memory.oom.group", limits.memory_max.map(group)),
            ("cpu.max", limits.cpu_max.map(cpu)),
            ("pids.max", limits.pids_max.map(|count| count.to_string())),
        ] {
            let path = self.folder.join(file);
            if let Some(text) = text.filter(|_| path.exists()) {
                fs::write(path, text)?;
            }
        }
        Ok(())
    }

    /// Its folder and those below it, those above first.
    fn with_below(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.folder.clone()];
        let mut next = 0;
        while let Some(folder) = folders.get(next) {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            let below: Vec<PathBuf> = below.map(|entry| entry.path()).collect();
            folders.extend(below);
            next += 1;
        }
        folders
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// None where this machine has no cgroup that we may write, which is said.
    #[allow(clippy::print_stderr, reason = "a test that cannot run says so")]
    fn cgroups() -> Option<Cgroups> {
        Cgroups::find().inspect_err(|why| eprintln!("NOT TESTED: groups of workers: {why}")).ok()
    }

    fn start(group: &Cgroup, script: &str) -> Child {
        let child = Command::new("sh").args(["-c", script]).stdin(Stdio::null()).spawn().unwrap();
        fs::write(group.folder.join("cgroup.procs"), child.id().to_string()).unwrap();
        child
    }

    fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
        let started = std::time::Instant::now();
        while !is_so() {
            assert!(started.elapsed().as_secs() < 30, "{what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn whatever_a_member_starts_is_in_the_group_and_ended_with_it() {
        let Some(cgroups) = cgroups() else { return };
        let group = cgroups.make("app-4f2a91c-0", &CgroupLimits::default()).unwrap();
        let other = cgroups.make("app-4f2a91c-0", &CgroupLimits::default()).unwrap();
        assert_ne!(other.path(), group.path());
        assert!(other.remove());
        // It waits until it is in the group; then its child leaves its session, and itself ends.
        let mut child = start(
            &group,
            &format!(
                "while ! grep -q $$ {0}/cgroup.procs; do :; done; setsid sleep 1000 & exit 0",
                group.folder.display()
            ),
        );
        child.wait().unwrap();
        wait_until("the sleep is alone", || group.members().len() == 1);
        assert_ne!(group.members(), [child.id().cast_signed()]);
        assert!(!group.remove());
        assert!(Cgroup::open(group.path()).is_some(), "one with processes stays");

        let again = Cgroup::open(group.path()).unwrap();
        again.kill().unwrap();
        wait_until("nobody is left", || again.members().is_empty());
        // What is left of an ended process is gone a moment after it is in no list any more.
        wait_until("it is removed", || again.remove());
        assert!(Cgroup::open(group.path()).is_none());
        again.kill().unwrap();
        assert_eq!((again.members(), again.out_of_memory()), (vec![], 0), "it is gone: nobody is in it");
    }

    #[test]
    fn groups_below_a_group_belong_to_it() {
        let Some(cgroups) = cgroups() else { return };
        let group = cgroups.make("app-4f2a91c-1", &CgroupLimits::default()).unwrap();
        fs::create_dir_all(group.folder.join("deep/deeper")).unwrap();
        let deeper = Cgroup::open(&group.folder.join("deep/deeper")).unwrap();
        let mut child = start(&deeper, "exec sleep 1000");
        assert_eq!(group.members(), [child.id().cast_signed()]);
        group.kill().unwrap();
        child.wait().unwrap();
        wait_until("it is removed", || group.remove());
    }

    #[test]
    fn what_a_switchman_that_is_gone_has_left_is_swept_away() {
        let Some(cgroups) = cgroups() else { return };
        let own = cgroups.make("app-4f2a91c-2", &CgroupLimits::default()).unwrap();
        // No process has this number.
        let left = own.folder.with_file_name("app-4f2a91c-2-4194305-1");
        fs::create_dir(&left).unwrap();
        cgroups.sweep();
        assert!(!left.exists() && own.folder.exists());
        assert!(own.remove());
    }

    #[test]
    fn a_controller_that_is_not_there_is_named() {
        let Some(cgroups) = cgroups() else { return };
        let missing = cgroups.control(["no-such-controller"].into_iter());
        assert_eq!(missing[0].0, "no-such-controller");
        assert!(missing[0].1.contains("does not have it"), "{missing:?}");
    }
}
