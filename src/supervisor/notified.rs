//! What a worker says about itself with sd_notify(3): a socket of its own for each process, and who is believed.
//!
//! A message counts only if the kernel says that a process of the worker's tree has sent it. One that had ended by the
//! time its message was read cannot be looked up, and is not believed; `systemd-notify` waits for that reason until
//! its message was read (`BARRIER=1`, whose descriptor is closed here once what came before has been taken).

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg, sockopt};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::launch::reach;
use super::readiness::{SharedTree, ask};
use super::socket::SocketGuard;
use crate::config::Account;

/// A longer message is cut; systemd itself takes no more.
const MESSAGE_MAX: usize = 4096;
/// Descriptors that come with one message; more are closed by the kernel.
const DESCRIPTORS_MAX: usize = 8;
/// Of a status, so many characters are shown.
const STATUS_MAX: usize = 300;

/// The socket of one process that is about to be started.
#[derive(Debug)]
pub(crate) struct NotifySocket {
    guard: SocketGuard,
    socket: UnixDatagram,
}

/// Listens to one process until this is dropped.
#[derive(Debug)]
pub(crate) struct Notified {
    said: watch::Receiver<Said>,
    _task: AbortOnDropHandle<()>,
}

/// What a process has said so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// It is ready.
    pub(crate) ready: bool,
    /// What it is doing, in its own words.
    pub(crate) status: Option<String>,
    /// Somebody else has said that it is ready: the sender's pid.
    pub(crate) disbelieved: Option<i32>,
}

impl NotifySocket {
    /// Opens the socket at the guard's path, for processes that run as `account`. Call within a tokio runtime.
    pub(crate) fn bind(guard: SocketGuard, account: Option<&Account>) -> io::Result<Self> {
        let socket = UnixDatagram::bind(guard.path())?;
        sockopt::set_socket_passcred(&socket, true)?;
        match account {
            Some(account) => reach::give(guard.path(), account)?,
            None => std::fs::set_permissions(guard.path(), std::fs::Permissions::from_mode(0o600))?,
        }
        Ok(Self { guard, socket })
    }

    /// Opens the socket of a process that an earlier switchman has started anew, under the path that it was told.
    pub(crate) fn again(guard: SocketGuard, account: Option<&Account>) -> io::Result<Self> {
        // Nobody listens there any more.
        let _ = std::fs::remove_file(guard.path());
        Self::bind(guard, account)
    }

    /// What the process finds in `NOTIFY_SOCKET`.
    pub(crate) fn path(&self) -> &Path {
        self.guard.path()
    }

    /// Listens from now on, and believes the members of `tree`.
    pub(crate) fn listen(self, tree: SharedTree) -> Notified {
        let (sender, said) = watch::channel(Said::default());
        Notified { said, _task: AbortOnDropHandle::new(tokio::spawn(self.run(tree, sender))) }
    }

    async fn run(self, tree: SharedTree, sender: watch::Sender<Said>) {
        loop {
            let received = self.socket.async_io(Interest::READABLE, || receive(&self.socket)).await;
            let (text, pid, descriptors) = match received {
                Ok(received) => received,
                Err(error) => {
                    tracing::error!(path = %self.path().display(), %error, "no notification is read any more");
                    return;
                }
            };
            let mut next = sender.borrow().clone();
            // Who is ready has nothing more to say, but must never find its socket full.
            if !next.ready {
                let mut told = Said::default();
                take(&text, &mut told);
                let is_member =
                    told != Said::default() && ask(&tree, move |tree| tree.look().contains(&pid)).await;
                if is_member {
                    next.status = told.status.or(next.status);
                    next.ready = told.ready;
                } else if told.ready {
                    tracing::warn!(
                        pid,
                        "READY=1 came from a process that the worker has not started; it is not believed"
                    );
                    next.disbelieved = Some(pid);
                }
                sender.send_if_modified(|said| {
                    let is_new = *said != next;
                    *said = next;
                    is_new
                });
            }
            // A sender may wait for this.
            drop(descriptors);
        }
    }
}

impl Notified {
    /// What it has said; changes are seen.
    pub(crate) fn said(&self) -> watch::Receiver<Said> {
        self.said.clone()
    }
}

/// One message: its text, who sent it (0: unknown), and what came with it.
fn receive(socket: &UnixDatagram) -> io::Result<(String, i32, Vec<OwnedFd>)> {
    let mut text = [0; MESSAGE_MAX];
    let mut space =
        [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX), ScmCredentials(1))];
    let mut with = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let length = recvmsg(socket, &mut [IoSliceMut::new(&mut text)], &mut with, flags)?.bytes;
    let (mut pid, mut descriptors) = (0, Vec::new());
    for message in with.drain() {
        match message {
            RecvAncillaryMessage::ScmCredentials(sender) => pid = sender.pid.as_raw_nonzero().get(),
            RecvAncillaryMessage::ScmRights(rights) => descriptors.extend(rights),
            _ => {}
        }
    }
    Ok((String::from_utf8_lossy(&text[..length.min(MESSAGE_MAX)]).into_owned(), pid, descriptors))
}

/// Takes what a message says: one `NAME=value` a line.
fn take(text: &str, said: &mut Said) {
    for line in text.lines() {
        match line.split_once('=') {
            Some(("READY", "1")) => said.ready = true,
            Some(("STATUS", status)) => {
                let shown = status.chars().take(STATUS_MAX).map(|c| if c.is_control() { ' ' } else { c });
                said.status = Some(shown.collect::<String>().trim().to_owned()).filter(|s| !s.is_empty());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::supervisor::socket::SocketTable;
    use crate::supervisor::tree::Tree;

    #[test]
    fn lines_of_a_message_are_told_apart() {
        let said = |text: &str| {
            let mut said = Said::default();
            take(text, &mut said);
            said
        };
        let ready = Said { ready: true, ..Said::default() };
        assert_eq!(said("READY=1\nMAINPID=7"), ready);
        assert_eq!(said("READY=1"), ready);
        assert_eq!(said("READY=0\nREADY\nREADY=11\nXREADY=1"), Said::default());
        assert_eq!(said("STATUS=warming \u{7}up\n").status.as_deref(), Some("warming  up"));
        assert_eq!(said("STATUS=").status, None);
        assert_eq!(
            said(&format!("STATUS={}", "é".repeat(1000))).status.map(|s| s.chars().count()),
            Some(300)
        );
    }

    #[tokio::test]
    async fn only_the_tree_is_believed_and_a_sender_that_waits_is_let_go() {
        let state = tempfile::tempdir().unwrap();
        let table = SocketTable::new(state.path().to_owned());
        let socket = NotifySocket::bind(table.pick(None).unwrap(), None).unwrap();
        let path = socket.path().to_owned();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        // As systemd-notify does: it says so, and then waits until the other side has let go of a descriptor.
        let script = format!(
            "import os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect({path:?})
input()
s.send(b'STATUS=warming up')
s.send(b'READY=1')
read, write = os.pipe()
socket.send_fds(s, [b'BARRIER=1'], [write])
os.close(write)
assert os.read(read, 1) == b''
print('let go')"
        );
        let start = || {
            std::process::Command::new("python3")
                .args(["-c", &script])
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        };
        let (own, stranger) = (start(), start());
        let tree = Arc::new(Mutex::new(Tree::new(own.id(), Path::new("/no/mark"))));
        let notified = socket.listen(tree);
        let mut said = notified.said();
        let number = stranger.id().cast_signed();
        let go = |mut child: std::process::Child| async move {
            drop(child.stdin.take());
            tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap()
        };
        // `input` ends with an error at the end of its input, so a line is written.
        let line = |child: &mut std::process::Child| {
            io::Write::write_all(child.stdin.as_mut().unwrap(), b"\n").unwrap();
        };
        let (mut own, mut stranger) = (own, stranger);
        line(&mut stranger);
        assert_eq!(go(stranger).await.stdout, b"let go\n");
        assert_eq!(*said.borrow_and_update(), Said { disbelieved: Some(number), ..Said::default() });
        line(&mut own);
        assert_eq!(go(own).await.stdout, b"let go\n");
        let now = said.borrow_and_update().clone();
        assert_eq!((now.ready, now.status.as_deref()), (true, Some("warming up")));
        drop(notified);
        tokio::task::yield_now().await;
        assert!(!path.exists(), "its socket is gone with it");
    }
}
