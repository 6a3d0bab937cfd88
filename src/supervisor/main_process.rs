//! The main process of a worker: a child of ours, or one that an earlier switchman or a fork has left us.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, waitid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::Child;

/// One process whose end can be waited for.
#[derive(Debug)]
pub(crate) enum MainProcess {
    /// We have started it.
    Child(Child),
    /// We know it by a descriptor of it, which never means another process.
    Known(AsyncFd<OwnedFd>),
}

/// A descriptor of the process with this number now. Whoever wants to be sure which one that is looks it up after this.
pub(crate) fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid.cast_signed()).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::NONBLOCK)?)
}

impl MainProcess {
    /// One that we have not started. Call within a tokio runtime.
    #[allow(
        deprecated,
        reason = "what replaces it is unsafe, for types that are not, as this one is, their descriptor's owner"
    )]
    pub(crate) fn known(descriptor: OwnedFd) -> io::Result<Self> {
        AsyncFd::with_interest(descriptor, Interest::READABLE).map(Self::Known)
    }

    /// Waits until it has ended. The status is known only to its parent: none where that is not us.
    pub(crate) async fn wait(&mut self) -> io::Result<Option<ExitStatus>> {
        match self {
            Self::Child(child) => child.wait().await.map(Some),
            Self::Known(descriptor) => {
                // Dropping the guard leaves it readable, which it will ever be.
                drop(descriptor.readable().await?);
                // What a worker of ours has left behind comes to us, and so does it all after an exec.
                let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
                Ok(waitid(WaitId::PidFd(descriptor.get_ref().as_fd()), options).ok().flatten().map(status))
            }
        }
    }
}

/// As wait(2) writes it.
fn status(status: WaitIdStatus) -> ExitStatus {
    let raw = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => (code & 0xff) << 8,
        (None, Some(signal)) => signal,
        (None, None) => 0,
    };
    ExitStatus::from_raw(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_a_process_is_seen_with_its_status_where_it_is_our_child() {
        for (script, code, signal) in [("exit 7", Some(7), None), ("kill -9 $$", None, Some(9))] {
            let mut child = std::process::Command::new("sh").args(["-c", script]).spawn().unwrap();
            let mut known = MainProcess::known(open(child.id()).unwrap()).unwrap();
            let status = known.wait().await.unwrap().unwrap();
            assert_eq!((status.code(), status.signal()), (code, signal));
            assert_eq!(known.wait().await.unwrap(), None, "it was reaped");
            assert!(child.wait().is_err(), "likewise");
        }
        // The outer shell is the parent of what sleeps.
        let script = "sleep 1000 & echo $!; wait";
        let mut parent = std::process::Command::new("sh")
            .args(["-c", script])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = io::BufReader::new(parent.stdout.take().unwrap());
        io::BufRead::read_line(&mut output, &mut line).unwrap();
        let pid: u32 = line.trim().parse().unwrap();
        let mut known = MainProcess::known(open(pid).unwrap()).unwrap();
        rustix::process::kill_process(Pid::from_raw(pid as i32).unwrap(), rustix::process::Signal::KILL)
            .unwrap();
        assert_eq!(known.wait().await.unwrap(), None, "somebody else's child");
        parent.wait().unwrap();
        assert!(open(parent.id()).is_err());
    }
}
