//! Who has a file below a folder open for writing, as far as `/proc` lets us see.
//!
//! One reading of `/proc` asks for the target of every descriptor of every process that we may look into: some
//! milliseconds. So it is done only where a folder would count as complete otherwise.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What the kernel puts behind the path of a file that was removed while it was open.
const REMOVED: &str = " (deleted)";
/// In the mode of a link below `/proc/PID/fd`: the file is open for writing.
const WRITES: u32 = 0o200;

/// A process that has a file open for writing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    /// The file, below the folder.
    pub file: PathBuf,
    /// The process.
    pub pid: u32,
    /// What it is called (`comm`).
    pub program: String,
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, pid, program } = self;
        write!(f, "{} is open for writing by pid {pid} ({program})", file.display())
    }
}

/// Whose open files count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// Everybody's.
    Anybody,
    /// Not those of processes that run in the folder: the version's own workers write their logs there.
    Strangers,
}

/// Somebody who may still write to a file below `folder`. Blocks.
pub(crate) fn writer(folder: &Path, who: Who) -> Option<Writer> {
    // The kernel's paths have no symlinks in them.
    let folder = folder.canonicalize().ok()?;
    let own = std::process::id();
    let pids =
        fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| *pid != own).find_map(|pid| of_process(pid, &folder, who))
}

/// What a process has open there. One that ends meanwhile, or that we may not look into, has nothing.
fn of_process(pid: u32, folder: &Path, who: Who) -> Option<Writer> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let open = |link: PathBuf| {
        let target = fs::read_link(&link).ok()?;
        let file = target.strip_prefix(folder).ok()?;
        let writes = link.symlink_metadata().ok()?.permissions().mode() & WRITES != 0;
        let removed = file.to_string_lossy().ends_with(REMOVED) && !target.exists();
        // A folder is never open for writing.
        (writes && !removed).then(|| file.to_owned())
    };
    let file = fs::read_dir(process.join("fd")).ok()?.flatten().find_map(|fd| open(fd.path()))?;
    if who == Who::Strangers && fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder)) {
        return None;
    }
    let program = fs::read_to_string(process.join("comm")).unwrap_or_default().trim().to_owned();
    Some(Writer { file, pid, program })
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A process that runs in `cwd` and has opened `file` by the time this returns, with this redirection.
    fn opened(redirection: &str, file: &Path, cwd: &Path) -> Child {
        let script = format!("exec 3{redirection}\"$1\"; echo; read end");
        let mut child = Command::new("sh")
            .args(["-c", &script, "sh"])
            .arg(file)
            .current_dir(cwd)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        child
    }

    /// Ends it as it wants to end.
    fn ended(mut child: Child) {
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn who_writes_is_named_until_it_stops() {
        let parent = tempfile::tempdir().unwrap();
        let (folder, link) = (parent.path().join("4f2a91c"), parent.path().join("link"));
        fs::create_dir_all(folder.join("js")).unwrap();
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        let file = folder.join("js/app.js");
        fs::write(&file, "").unwrap();
        assert_eq!(writer(&folder, Who::Anybody), None);

        let reader = opened("<", &file, parent.path());
        assert_eq!(writer(&folder, Who::Anybody), None, "who reads does not write");
        ended(reader);

        let writes = opened(">>", &file, parent.path());
        for folder in [&folder, &link] {
            let found = writer(folder, Who::Strangers).unwrap();
            assert_eq!((found.file.as_path(), found.pid), (Path::new("js/app.js"), writes.id()));
            assert_eq!(
                found.to_string(),
                format!("js/app.js is open for writing by pid {} (sh)", writes.id())
            );
        }
        fs::rename(&file, folder.join("renamed")).unwrap();
        assert_eq!(writer(&folder, Who::Anybody).unwrap().file, Path::new("renamed"));
        fs::remove_file(folder.join("renamed")).unwrap();
        assert_eq!(writer(&folder, Who::Anybody), None, "what is removed is no part of the folder");
        ended(writes);

        let own = opened(">", &folder.join("app.log"), &folder);
        assert_eq!(writer(&folder, Who::Strangers), None);
        assert!(writer(&folder, Who::Anybody).is_some());
        ended(own);
        assert_eq!(writer(&folder, Who::Anybody), None);
    }
}
