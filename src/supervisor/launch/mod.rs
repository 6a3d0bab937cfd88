//! How a worker's process is started: what it is given, and what it does to itself before it becomes the worker.
//!
//! ```text
//! RunSpec, Identity --Outfit::prepare--> place, cgroup, notify socket
//!                    --command--> environment + Plan --fork--> child: Plan --exec--> the worker
//! ```

pub(crate) mod cgroup;
pub(crate) mod check;
mod child;
pub(crate) mod environment;
mod explain;
pub(crate) mod reach;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Gid, Uid};
use tokio::process::Command;

use super::notified::NotifySocket;
use super::place::{Place, Places};
use crate::config::{Account, Isolation, ReadyCheck, Resource, Rlimit, RunCommand, RunSpec};
use crate::registry::Address;
use crate::version::{ServiceName, VersionId, WorkerId};
use cgroup::{Cgroup, Cgroups};
use child::Plan;
pub(crate) use explain::{explain_exit, explain_spawn};

/// What a worker is told about itself.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) service: ServiceName,
    pub(crate) version: VersionId,
    pub(crate) worker: WorkerId,
    /// The version's folder: the working directory.
    pub(crate) folder: PathBuf,
    /// A file of this process alone, which it may write its number to.
    pub(crate) pidfile: PathBuf,
}

/// What one process is given, held until nothing of it is left.
#[derive(Debug)]
pub(crate) struct Outfit {
    /// Where it listens.
    pub(crate) place: Place,
    /// Its control group, where there can be one.
    pub(crate) cgroup: Option<Cgroup>,
    /// Where it says that it is ready, if it is to.
    pub(crate) notify: Option<NotifySocket>,
}

impl Outfit {
    /// Gets everything ready that a process of `who` needs; or says why it cannot be.
    pub(crate) fn prepare(
        spec: &RunSpec,
        who: &Identity,
        places: &Places,
        cgroups: Option<&Cgroups>,
    ) -> Result<Self, String> {
        let account = spec.isolation.account.as_ref();
        if let Some(folder) = who.pidfile.parent() {
            let made = run_folder(folder, account);
            made.map_err(|e| format!("the folder {} cannot be made: {e}", folder.display()))?;
        }
        let seat = (who.service.clone(), who.version.clone(), who.worker);
        let place = places.pick(spec.upstream, seat, account).map_err(|e| e.to_string())?;
        let notify = match spec.ready.check {
            ReadyCheck::Notify => {
                let guard = places.pick_for_notify(account).map_err(|e| e.to_string())?;
                let socket = NotifySocket::bind(guard, account);
                Some(socket.map_err(|e| format!("no socket for its notifications can be opened: {e}"))?)
            }
            _ => None,
        };
        let cgroup = cgroups.and_then(|cgroups| {
            let name = format!("{}-{}-{}", who.service, who.version, who.worker);
            let made = cgroups.make(&name, &spec.isolation.cgroup);
            // It does its work without one; what it leaves behind is found in other ways.
            made.inspect_err(
                |error| tracing::error!(%error, worker = name, "it has no cgroup, and no limits of one"),
            )
            .ok()
        });
        Ok(Self { place, cgroup, notify })
    }

    /// Undoes what would stay: no process was started.
    pub(crate) fn discard(&self) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.remove();
        }
    }
}

/// The folder of a version's pid files. Records of ours lie there too: only what a worker makes itself is its own.
fn run_folder(folder: &Path, account: Option<&Account>) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let Some(account) = account else { return Ok(()) };
    if let Some(service) = folder.parent() {
        reach::pass(service)?;
    }
    reach::share(folder, account)
}

/// The command of one worker: in its own process group, without input. Where its output goes is up to whoever starts
/// it.
///
/// # Errors
/// A part of it has a NUL character in it, or its socket or control group cannot be opened.
pub(crate) fn command(
    run: &RunCommand,
    spec: &RunSpec,
    who: &Identity,
    outfit: &Outfit,
) -> io::Result<Command> {
    let address = outfit.place.address();
    let mut command = basis(run, spec, who, Some(&address));
    if let Some(notify) = &outfit.notify {
        command.env("NOTIFY_SOCKET", notify.path());
    }
    let listener = outfit.place.inherited()?;
    if listener.is_some() {
        command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "http");
    }
    let cgroup = outfit.cgroup.as_ref().map(Cgroup::door).transpose()?;
    child::prepare(&mut command, Plan { cgroup, listener, ..plan(&spec.isolation) })?;
    Ok(command)
}

/// A command that is run beside the workers of a version, with their environment, rights and limits; `address` is that
/// of the worker it is about.
///
/// # Errors
/// A part of it has a NUL character in it.
pub(crate) fn beside(
    run: &RunCommand,
    spec: &RunSpec,
    who: &Identity,
    address: Option<&Address>,
) -> io::Result<Command> {
    let mut command = basis(run, spec, who, address);
    confine(&mut command, &spec.isolation)?;
    Ok(command)
}

/// Makes what `command` starts run as whom and within which limits a service says. Call when the command is complete.
///
/// # Errors
/// A part of it has a NUL character in it.
pub(crate) fn confine(command: &mut Command, isolation: &Isolation) -> io::Result<()> {
    child::prepare(command, plan(isolation))
}

/// A command in a version's folder: with its environment, in its own process group, without input.
fn basis(run: &RunCommand, spec: &RunSpec, who: &Identity, address: Option<&Address>) -> Command {
    let mut command = match run {
        RunCommand::Shell(text) => {
            let mut command = Command::new("sh");
            command.args(["-c", text, "sh"]).arg(environment::place(address)).arg(&who.pidfile);
            command
        }
        RunCommand::Exec(words) => {
            let mut command = Command::new(words.first().map_or("", String::as_str));
            command.args(words.iter().skip(1));
            command
        }
    };
    environment::give(&mut command, spec, who, address);
    command.current_dir(&who.folder).stdin(Stdio::null()).process_group(0);
    command
}

/// What a process does to itself for the sake of these settings.
fn plan(isolation: &Isolation) -> Plan {
    let account = isolation.account.as_ref().map(|account| {
        let groups = account.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        (groups, Gid::from_raw(account.gid), Uid::from_raw(account.uid))
    });
    let limit = |limit: &Rlimit| {
        (resource(limit.resource), rustix::process::Rlimit { current: limit.soft, maximum: limit.hard })
    };
    Plan {
        cgroup: None,
        oom_score_adj: isolation.oom_score_adj.map(|score| score.to_string()),
        nice: isolation.nice,
        rlimits: isolation.rlimits.iter().map(limit).collect(),
        umask: isolation.umask,
        account,
        no_new_privs: isolation.no_new_privs,
        listener: None,
    }
}

fn resource(resource: Resource) -> rustix::process::Resource {
    use rustix::process::Resource as Kernel;
    match resource {
        Resource::As => Kernel::As,
        Resource::Core => Kernel::Core,
        Resource::Cpu => Kernel::Cpu,
        Resource::Data => Kernel::Data,
        Resource::Fsize => Kernel::Fsize,
        Resource::Locks => Kernel::Locks,
        Resource::Memlock => Kernel::Memlock,
        Resource::Msgqueue => Kernel::Msgqueue,
        Resource::Nice => Kernel::Nice,
        Resource::Nofile => Kernel::Nofile,
        Resource::Nproc => Kernel::Nproc,
        Resource::Rss => Kernel::Rss,
        Resource::Rtprio => Kernel::Rtprio,
        Resource::Rttime => Kernel::Rttime,
        Resource::Sigpending => Kernel::Sigpending,
        Resource::Stack => Kernel::Stack,
    }
}
