//! What a new process does to itself between fork and exec: the only unsafe code of switchman.
//!
//! The process has one thread, a copy of that which forked; a lock that another thread held stays locked for ever. So
//! everything is made ready before the fork, and afterwards there are only system calls: no allocation, no lock,
//! nothing of the user database.
//!
//! Rights are given up last, because what comes before needs them. A step that fails ends the process, and its number
//! comes back to the parent in the upper bits of the error's code, which the standard library carries over.
#![allow(
    unsafe_code,
    reason = "code between fork and exec, and an exec whose environment holds the new process's pid"
)]

use std::ffi::{CString, OsStr, OsString, c_char};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::ptr;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Gid, Resource, Rlimit, Uid};
use tokio::process::Command;

/// The first inherited descriptor, as sd_listen_fds(3) has it.
const LISTEN_FD: i32 = 3;
/// The variable with the pid for which the descriptors are meant.
const LISTEN_PID: &str = "LISTEN_PID=";
/// Error codes of the system are below this; above them stands the step.
const STEP: i32 = 1 << 12;
/// Where programs are looked for without `PATH`.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// What is to be done, in this order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The file by which a process joins its control group.
    pub(super) cgroup: Option<File>,
    /// The text of `oom_score_adj`.
    pub(super) oom_score_adj: Option<String>,
    pub(super) nice: Option<i32>,
    pub(super) rlimits: Vec<(Resource, Rlimit)>,
    pub(super) umask: Option<u32>,
    /// All groups, the first of them, and the user.
    pub(super) account: Option<(Vec<Gid>, Gid, Uid)>,
    pub(super) no_new_privs: bool,
    /// A socket that becomes descriptor 3.
    pub(super) listener: Option<OwnedFd>,
}

/// What can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Cgroup,
    OomScoreAdj,
    Nice,
    /// The limit with this place in the list.
    Rlimit(usize),
    Groups,
    Group,
    User,
    NoNewPrivs,
    Listener,
}

/// The number of the first limit.
const RLIMITS: i32 = 16;

impl Step {
    fn number(self) -> i32 {
        match self {
            Self::Cgroup => 1,
            Self::OomScoreAdj => 2,
            Self::Nice => 3,
            Self::Groups => 4,
            Self::Group => 5,
            Self::User => 6,
            Self::NoNewPrivs => 7,
            Self::Listener => 8,
            Self::Rlimit(place) => RLIMITS + place as i32,
        }
    }

    fn of(number: i32) -> Option<Self> {
        Some(match number {
            1 => Self::Cgroup,
            2 => Self::OomScoreAdj,
            3 => Self::Nice,
            4 => Self::Groups,
            5 => Self::Group,
            6 => Self::User,
            7 => Self::NoNewPrivs,
            8 => Self::Listener,
            number => Self::Rlimit(usize::try_from(number - RLIMITS).ok()?),
        })
    }

    fn failed(self, code: i32) -> io::Error {
        io::Error::from_raw_os_error(self.number() * STEP + code)
    }
}

/// The step that an error of a start comes from, and what the system said; none if it is the start itself that failed.
pub(super) fn failed_step(error: &io::Error) -> Option<(Step, io::Error)> {
    let code = error.raw_os_error().filter(|code| *code >= STEP)?;
    Some((Step::of(code / STEP)?, io::Error::from_raw_os_error(code % STEP)))
}

impl Plan {
    /// Whether there is nothing to be done: then the process is started without a copy of this one.
    fn is_empty(&self) -> bool {
        let Self { cgroup, oom_score_adj, nice, rlimits, umask, account, no_new_privs, listener } = self;
        cgroup.is_none()
            && oom_score_adj.is_none()
            && nice.is_none()
            && rlimits.is_empty()
            && umask.is_none()
            && account.is_none()
            && !no_new_privs
            && listener.is_none()
    }

    fn carry_out(&self) -> io::Result<()> {
        let step = |step: Step| move |error: rustix::io::Errno| step.failed(error.raw_os_error());
        if let Some(door) = &self.cgroup {
            rustix::io::write(door, b"0").map_err(step(Step::Cgroup))?;
        }
        if let Some(text) = &self.oom_score_adj {
            let file = rustix::fs::open(c"/proc/self/oom_score_adj", OFlags::WRONLY, Mode::empty());
            let written = file.and_then(|file| rustix::io::write(&file, text.as_bytes()));
            written.map_err(step(Step::OomScoreAdj))?;
        }
        if let Some(nice) = self.nice {
            rustix::process::setpriority_process(None, nice).map_err(step(Step::Nice))?;
        }
        for (place, (resource, limit)) in self.rlimits.iter().enumerate() {
            rustix::process::setrlimit(*resource, *limit).map_err(step(Step::Rlimit(place)))?;
        }
        if let Some(umask) = self.umask {
            rustix::process::umask(Mode::from_raw_mode(umask));
        }
        if let Some((groups, gid, uid)) = &self.account {
            rustix::thread::set_thread_groups(groups).map_err(step(Step::Groups))?;
            rustix::thread::set_thread_res_gid(*gid, *gid, *gid).map_err(step(Step::Group))?;
            rustix::thread::set_thread_res_uid(*uid, *uid, *uid).map_err(step(Step::User))?;
        }
        if self.no_new_privs {
            rustix::thread::set_no_new_privs(true).map_err(step(Step::NoNewPrivs))?;
        }
        Ok(())
    }
}

/// Makes the process that `command` starts do what `plan` says. Call when the command is complete: with a listener, it
/// is executed as it is now.
///
/// # Errors
/// A part of the command has a NUL character in it.
pub(super) fn prepare(command: &mut Command, plan: Plan) -> io::Result<()> {
    if plan.is_empty() {
        return Ok(());
    }
    let mut exec = plan.listener.is_some().then(|| Exec::of(command)).transpose()?;
    let become_worker = move || {
        plan.carry_out()?;
        match (&plan.listener, &mut exec) {
            (Some(listener), Some(exec)) => {
                inherit(listener).map_err(|code| Step::Listener.failed(code))?;
                Err(exec.run())
            }
            _ => Ok(()),
        }
    };
    // SAFETY: `become_worker` makes system calls and nothing else: what it reads was made before the fork. An error
    // that holds a number of the system is not allocated.
    unsafe { command.pre_exec(become_worker) };
    Ok(())
}

/// Puts the socket where it is looked for; the copy stays open over exec.
fn inherit(listener: &OwnedFd) -> Result<(), i32> {
    let code = || io::Error::last_os_error().raw_os_error().unwrap_or_default();
    let fd = listener.as_raw_fd();
    // SAFETY: calls with numbers only. What descriptor 3 was in the parent is of no use to the worker.
    let done = unsafe {
        match fd == LISTEN_FD {
            true => libc::fcntl(fd, libc::F_SETFD, 0),
            false => libc::dup2(fd, LISTEN_FD),
        }
    };
    if done < 0 { Err(code()) } else { Ok(()) }
}

/// A command ready for execve(2), but for the pid in its environment.
#[derive(Debug)]
struct Exec {
    /// The program, in each folder of `PATH`.
    programs: Vec<CString>,
    _arguments: Vec<CString>,
    _variables: Vec<CString>,
    /// `LISTEN_PID=`, room for a pid, and zeros.
    listen_pid: [u8; LISTEN_PID.len() + 16],
    argv: Pointers,
    /// Ends with room for `listen_pid`, and a null.
    envp: Pointers,
}

/// Pointers into what lies beside them.
#[derive(Debug)]
struct Pointers(Vec<*const c_char>);

// SAFETY: what the pointers lead to belongs to the same `Exec`, is never changed, and is dropped with it.
unsafe impl Send for Pointers {}
// SAFETY: likewise; they are only read.
unsafe impl Sync for Pointers {}

impl Pointers {
    fn to(strings: &[CString], room: usize) -> Self {
        let pointers = strings.iter().map(|string| string.as_ptr());
        Self(pointers.chain(std::iter::repeat_n(ptr::null(), room)).collect())
    }
}

impl Exec {
    fn of(command: &Command) -> io::Result<Self> {
        let command = command.as_std();
        let mut environment: std::collections::BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => environment.insert(name.to_owned(), value.to_owned()),
                None => environment.remove(name),
            };
        }
        let path = environment.get(OsStr::new("PATH")).map_or(OsStr::new(PATH), OsString::as_os_str);
        let programs = programs(command.get_program(), path)?;
        let arguments = std::iter::once(command.get_program()).chain(command.get_args());
        let arguments = arguments.map(text).collect::<io::Result<Vec<CString>>>()?;
        let variable = |(mut name, value): (OsString, OsString)| {
            name.push("=");
            name.push(value);
            text(&name)
        };
        let variables = environment.into_iter().map(variable).collect::<io::Result<Vec<CString>>>()?;
        let mut listen_pid = [0; LISTEN_PID.len() + 16];
        listen_pid[..LISTEN_PID.len()].copy_from_slice(LISTEN_PID.as_bytes());
        let (argv, envp) = (Pointers::to(&arguments, 1), Pointers::to(&variables, 2));
        Ok(Self { programs, _arguments: arguments, _variables: variables, listen_pid, argv, envp })
    }

    /// Becomes the program. Returns only where that fails.
    fn run(&mut self) -> io::Error {
        let mut digits = itoa::Buffer::new();
        let pid = digits.format(rustix::process::getpid().as_raw_nonzero().get()).as_bytes();
        for (place, digit) in self.listen_pid[LISTEN_PID.len()..].iter_mut().zip(pid) {
            *place = *digit;
        }
        if let [.., place, _] = &mut self.envp.0[..] {
            *place = self.listen_pid.as_ptr().cast();
        }
        let mut denied = false;
        for program in &self.programs {
            // SAFETY: the strings end with NUL, the lists with null, and all of them live in `self`.
            unsafe { libc::execve(program.as_ptr(), self.argv.0.as_ptr(), self.envp.0.as_ptr()) };
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) => {}
                Some(libc::EACCES) => denied = true,
                _ => return error,
            }
        }
        io::Error::from_raw_os_error(if denied { libc::EACCES } else { libc::ENOENT })
    }
}

/// Where execvp(3) would look for a program.
fn programs(program: &OsStr, path: &OsStr) -> io::Result<Vec<CString>> {
    if program.as_bytes().contains(&b'/') {
        return Ok(vec![text(program)?]);
    }
    std::env::split_paths(path).map(|folder| text(folder.join(program).as_os_str())).collect()
}

fn text(text: &OsStr) -> io::Result<CString> {
    CString::new(text.to_owned().into_vec()).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::process::Stdio;

    use super::*;

    /// What a command prints under a plan, or the error of its start.
    async fn prints(words: &[&str], plan: Plan) -> io::Result<String> {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env("LEFT", "right").env_remove("HOME").stdin(Stdio::null());
        prepare(&mut command, plan)?;
        let output = command.output().await?;
        assert!(output.status.success(), "{output:?}");
        Ok(String::from_utf8(output.stdout).unwrap())
    }

    fn inherits() -> (TcpListener, Plan) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let copy = listener.try_clone().unwrap();
        (listener, Plan { listener: Some(copy.into()), ..Plan::default() })
    }

    #[tokio::test]
    async fn a_socket_is_descriptor_3_and_the_environment_holds_the_very_pid() {
        let (listener, plan) = inherits();
        let script = "import os, socket
s = socket.socket(fileno=3)
print(os.environ['LISTEN_PID'] == str(os.getpid()), s.getsockname()[1], os.environ['LEFT'], 'HOME' in os.environ)";
        let printed = prints(&["python3", "-c", script], plan).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(printed, format!("True {port} right False\n"));
    }

    #[tokio::test]
    async fn what_cannot_be_executed_is_told_as_ever() {
        for (words, kind) in [
            (["no-such-program"], io::ErrorKind::NotFound),
            (["./no-such-program"], io::ErrorKind::NotFound),
            (["/etc/passwd"], io::ErrorKind::PermissionDenied),
        ] {
            let (_listener, plan) = inherits();
            assert_eq!(prints(&words, plan).await.unwrap_err().kind(), kind, "{words:?}");
        }
        let (_listener, plan) = inherits();
        assert_eq!(prints(&["a\0b"], plan).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[tokio::test]
    async fn limits_hold_and_the_one_that_fails_is_known() {
        let limit = |current, maximum| Rlimit { current: Some(current), maximum: Some(maximum) };
        let plan = Plan {
            rlimits: vec![(Resource::Nofile, limit(50, 60)), (Resource::Core, limit(0, 0))],
            umask: Some(0o27),
            nice: Some(7),
            no_new_privs: true,
            ..Plan::default()
        };
        let script = "ulimit -Sn; ulimit -Hn; umask; nice; grep NoNewPrivs /proc/self/status";
        let printed = prints(&["sh", "-c", script], plan).await.unwrap();
        assert_eq!(printed, "50\n60\n0027\n7\nNoNewPrivs:\t1\n");

        let wrong = Plan {
            rlimits: vec![(Resource::Core, limit(0, 0)), (Resource::Nofile, limit(60, 50))],
            ..Plan::default()
        };
        let (step, error) = failed_step(&prints(&["true"], wrong).await.unwrap_err()).unwrap();
        assert_eq!((step, error.kind()), (Step::Rlimit(1), io::ErrorKind::InvalidInput));
        assert!(failed_step(&io::Error::from_raw_os_error(libc::ENOENT)).is_none());
    }

    #[test]
    fn every_step_has_a_number_of_its_own() {
        for step in [
            Step::Cgroup,
            Step::OomScoreAdj,
            Step::Nice,
            Step::Groups,
            Step::Group,
            Step::User,
            Step::NoNewPrivs,
            Step::Listener,
            Step::Rlimit(0),
            Step::Rlimit(15),
        ] {
            assert_eq!(Step::of(step.number()), Some(step));
        }
    }
}
