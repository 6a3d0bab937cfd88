//! What is written down of each process, so that the next switchman finds it: one small JSON file beside its `PIDFILE`.
//!
//! ```text
//! <state>/run/app/4f2a91c/0-1.pid     worker 0, process 1: where it may write its number
//! <state>/run/app/4f2a91c/0-1.json    this record
//! <state>/run/app/4f2a91c/0-1.out     its output, see `pipes`; likewise 0-1.err
//! ```
//!
//! A record is written when the process has just been started and removed when nothing of it is left. It is only
//! a claim: [`Record::misfit`] checks it against `/proc` before anybody trusts it, and a record that does not fit
//! is never a reason to signal a process. An older or newer switchman may read it: add fields with
//! `#[serde(default)]`, and do not change what one means.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use procfs::process::Process;
use serde::{Deserialize, Serialize};

use super::tree::Mark;
use crate::registry::Address;
use crate::version::{ServiceName, VersionId, WorkerId};

/// The ending of a record's name.
const ENDING: &str = "json";
/// The ending of the name that a worker is told as its `PIDFILE`.
pub(crate) const PIDFILE: &str = "pid";

/// One process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) service: ServiceName,
    pub(crate) version: VersionId,
    pub(crate) worker: WorkerId,
    /// Its number among the processes of the version.
    pub(crate) process: u64,
    /// How often its worker had been started again.
    pub(crate) restarts: u32,
    pub(crate) pid: u32,
    /// When it started, in clock ticks since the machine did (`starttime` in proc(5)): tells it from a later process
    /// of the same number.
    pub(crate) started: u64,
    /// Which start of the machine that was (`/proc/sys/kernel/random/boot_id`).
    pub(crate) boot: String,
    pub(crate) address: ListensOn,
    /// Whether it was given its socket.
    #[serde(default)]
    pub(crate) inherited: bool,
    /// Its control group.
    #[serde(default)]
    pub(crate) cgroup: Option<PathBuf>,
    /// Its `NOTIFY_SOCKET`.
    #[serde(default)]
    pub(crate) notify: Option<PathBuf>,
    /// It speaks HTTP/2 (`protocol: h2c`).
    pub(crate) h2c: bool,
    /// What it was started with, as `fingerprint` says it.
    pub(crate) command: String,
    /// The version's folder.
    pub(crate) folder: PathBuf,
    /// Which folder of that name it was.
    pub(crate) identity: Option<(u64, u64)>,
    pub(crate) pidfile: PathBuf,
    /// When it was started.
    pub(crate) at: Timestamp,
    /// Whether it has been ready.
    pub(crate) ready: bool,
    /// It was adopted only to be ended: whoever finds it next does not go on with it, be it ready by then.
    #[serde(default)]
    pub(crate) unwanted: bool,
    /// `stop.grace` when it was started.
    pub(crate) grace: Duration,
    /// `stop.drain` when it was started.
    pub(crate) drain: Duration,
}

/// Where it listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ListensOn {
    /// A port.
    Port(SocketAddr),
    /// A socket file.
    Socket(PathBuf),
}

impl From<&Address> for ListensOn {
    fn from(address: &Address) -> Self {
        match address {
            Address::Tcp(address) => Self::Port(*address),
            Address::Unix(path) => Self::Socket(path.clone()),
        }
    }
}

impl From<&ListensOn> for Address {
    fn from(listens: &ListensOn) -> Self {
        match listens {
            ListensOn::Port(address) => Self::Tcp(*address),
            ListensOn::Socket(path) => Self::Unix(path.clone()),
        }
    }
}

impl Record {
    /// Writes it, and says where that fails.
    pub(crate) fn write_down(&self) {
        if let Err(error) = self.write() {
            let Self { service, version, worker, pid, .. } = self;
            tracing::error!(
                %service, %version, %worker, pid, %error,
                "this worker cannot be recorded; the next switchman will end it instead of going on with it"
            );
        }
    }

    /// Writes it beside the file and renames, so that there is the old one, the new one or none. It need not outlive
    /// the machine, and is not forced to the disk.
    pub(crate) fn write(&self) -> io::Result<()> {
        let file = self.pidfile.with_extension(ENDING);
        let mut new = tempfile::NamedTempFile::new_in(file.parent().unwrap_or(Path::new(".")))?;
        serde_json::to_writer(&mut new, self)?;
        new.flush()?;
        new.persist(&file)?;
        Ok(())
    }

    /// Why this is not the process that the record speaks of, if it is not. `boot` is what [`boot`] says.
    pub(crate) fn misfit(&self, boot: &str) -> Option<String> {
        if self.boot != boot {
            return Some("the machine was started again since".to_owned());
        }
        let stat = Process::new(self.pid.cast_signed()).and_then(|process| process.stat());
        let Some(stat) = stat.ok().filter(|stat| !matches!(stat.state, 'Z' | 'X')) else {
            return Some(format!("process {} has ended", self.pid));
        };
        if stat.starttime != self.started {
            return Some(format!("the number {} was given to another process", self.pid));
        }
        // Where neither can be looked at, number and start have to do.
        (Mark::new(&self.pidfile).carried_by(stat.pid) == Some(false))
            .then(|| format!("process {} has neither its PIDFILE nor its output", self.pid))
    }

    /// The process number that a file's name says, as in `0-7.json`.
    pub(crate) fn number_in(name: &Path) -> Option<u64> {
        name.file_stem()?.to_str()?.split_once('-')?.1.parse().ok()
    }
}

/// When a process started, in clock ticks since the machine did; none if it has ended.
pub(crate) fn started(pid: u32) -> Option<u64> {
    Process::new(pid.cast_signed()).and_then(|process| process.stat()).ok().map(|stat| stat.starttime)
}

/// Which start of the machine this is.
pub(crate) fn boot() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Every record below `run`. One that cannot be read is said; its process is found by its `PIDFILE`.
pub(crate) fn read_all(run: &Path) -> Vec<Record> {
    let files = files(run);
    let records = files.iter().filter(|file| file.extension().is_some_and(|ending| ending == ENDING));
    let read = |file: &PathBuf| {
        let read = std::fs::read(file).and_then(|bytes| Ok(serde_json::from_slice::<Record>(&bytes)?));
        match read {
            // One that was copied here speaks of another place.
            Ok(record) if record.pidfile.with_extension(ENDING) == **file => Some(record),
            Ok(_) => {
                tracing::warn!(file = %file.display(), "this record belongs elsewhere and is not used");
                None
            }
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "this record of a worker cannot be read and is not used");
                None
            }
        }
    };
    records.filter_map(read).collect()
}

/// The files of all versions below `run`: `<run>/<service>/<version>/*`, but not the folder of sockets.
pub(crate) fn files(run: &Path) -> Vec<PathBuf> {
    let below = |folder: PathBuf| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    // No service's name begins so, and what `@sockets` links to is no concern of this.
    let is_service =
        |path: &PathBuf| !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"@"));
    below(run.to_owned()).into_iter().filter(is_service).flat_map(below).flat_map(below).collect()
}

/// Removes what lies beside a `PIDFILE` whose process has ended.
pub(crate) fn remove(pidfile: &Path) {
    for ending in [PIDFILE, ENDING, super::pipes::OUT, super::pipes::ERR] {
        // It may not have been made.
        let _ = std::fs::remove_file(pidfile.with_extension(ending));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::ffi::{OsStr, OsString};
    use std::process::{Child, Command};

    use super::*;

    fn record(run: &Path, pid: u32) -> Record {
        let folder = run.join("app/4f2a91c");
        std::fs::create_dir_all(&folder).unwrap();
        Record {
            service: "app".into(),
            version: "4f2a91c".into(),
            worker: WorkerId(0),
            process: 1,
            restarts: 3,
            pid,
            started: started(pid).unwrap_or_default(),
            boot: boot().unwrap(),
            address: ListensOn::Port(([127, 0, 0, 1], 4711).into()),
            inherited: false,
            cgroup: None,
            notify: None,
            h2c: false,
            command: "c0ffee".to_owned(),
            folder: PathBuf::from("/srv/app/4f2a91c"),
            identity: Some((1, u64::MAX)),
            pidfile: folder.join("0-1.pid"),
            at: Timestamp::now(),
            ready: true,
            unwanted: false,
            grace: Duration::from_millis(1_500),
            drain: Duration::from_secs(30),
        }
    }

    struct Ended(Child);

    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    fn sleeps(pidfile: &Path) -> Ended {
        let child = Command::new("sleep").arg("1000").env("PIDFILE", pidfile).spawn().unwrap();
        // Until it has become `sleep`, it looks like this process; and for a moment it has no environment.
        let process = Process::new(child.id().cast_signed()).unwrap();
        let is_marked = |environ: HashMap<OsString, OsString>| {
            environ.get(OsStr::new("PIDFILE")).is_some_and(|p| p == pidfile)
        };
        while !process.environ().is_ok_and(is_marked) {
            std::thread::yield_now();
        }
        Ended(child)
    }

    #[test]
    fn what_is_written_is_read_and_what_is_damaged_or_copied_is_not() {
        let run = tempfile::tempdir().unwrap();
        let record = record(run.path(), 1);
        record.write().unwrap();
        let unix = Record {
            address: ListensOn::Socket("/run/x.sock".into()),
            pidfile: record.pidfile.with_file_name("1-2.pid"),
            ..record.clone()
        };
        unix.write().unwrap();
        let folder = record.pidfile.parent().unwrap();
        std::fs::copy(folder.join("0-1.json"), folder.join("0-9.json")).unwrap();
        std::fs::write(folder.join("0-8.json"), "{half").unwrap();
        let mut read = read_all(run.path());
        read.sort_by(|a, b| a.pidfile.cmp(&b.pidfile));
        assert_eq!(read, [record.clone(), unix]);
        remove(&record.pidfile);
        assert_eq!(read_all(run.path()).len(), 1);
        assert_eq!(Record::number_in(Path::new("/x/12-34.json")), Some(34));
        assert_eq!(Record::number_in(Path::new("/x/notes")), None);
    }

    #[test]
    fn only_the_very_process_fits() {
        let run = tempfile::tempdir().unwrap();
        let pidfile = run.path().join("app/4f2a91c/0-1.pid");
        let own = sleeps(&pidfile);
        let stranger = sleeps(&run.path().join("app/4f2a91c/0-2.pid"));
        let good = record(run.path(), own.0.id());
        let boot = boot().unwrap();
        assert_eq!(good.misfit(&boot), None);

        let other_boot = Record { boot: "another".to_owned(), ..good.clone() };
        let later = Record { started: good.started - 1, ..good.clone() };
        let forged = record(run.path(), stranger.0.id());
        let gone = Record { pid: 4_194_304 + 1, ..good.clone() };
        for (misfit, words) in [
            (other_boot, "the machine was started again"),
            (later, "was given to another process"),
            (forged, "neither its PIDFILE nor its output"),
            (gone, "has ended"),
        ] {
            let said = misfit.misfit(&boot).unwrap();
            assert!(said.contains(words), "{said}");
        }
    }
}
